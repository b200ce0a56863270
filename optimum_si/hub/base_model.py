"""Where a model came from, in words that may be published: a Hub id, or the bare name of a local folder."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from optimum_si.calibration.files import looks_like_a_path
from optimum_si.checkpoint.adapters import find_adapter
from optimum_si.checkpoint.locate import find_file
from optimum_si.config.small_files import read_small
from optimum_si.errors import CheckpointError
from optimum_si.report import REPORT_NAME, Report


#: What a model that was derived from another takes over from its card.
CARRIED = ("license", "license_name", "license_link", "language", "pipeline_tag")
#: Of which these may be lists.
_LISTS = ("license", "language")
_SNAPSHOT = re.compile(r"models--(?P<id>.+?)/snapshots/")


def base_of(source: str, **hub_options: Any) -> dict[str, Any]:
    """What is known of a base model.

    Args:
        source: Hub id, local folder or file that the model was loaded from; "" where it was made in memory.
        hub_options: ``revision``, ``token``, ``cache_dir``, ... that it was loaded with.

    Returns:
        ``name`` (a Hub id, or the last part of a local path), ``on_hub``, and what :data:`CARRIED` names of its card;
        ``adapter_of``, the name of the model that it was merged into, where it is an adapter.
    """
    base = _base_of(source, **hub_options)
    try:
        adapter = find_adapter(source, **hub_options)
    except Exception:  # as for cards
        return base
    if adapter is None:
        return base
    if adapter.embedded:
        return {**base, "adapter_of": base["name"]}
    changed = base_of(adapter.base, **adapter.place_of_base(hub_options))
    carried = {name: changed[name] for name in CARRIED if name in changed}
    return {**carried, **base, "adapter_of": changed["name"]}


def _base_of(source: str, **hub_options: Any) -> dict[str, Any]:
    """:func:`base_of`, of what lies there itself."""
    if not source:
        return {"name": "model", "on_hub": False}
    path = Path(source)
    if not path.exists() and not _is_hub_id(source):
        return {"name": path.name or "model", "on_hub": False}  # a folder that has gone since
    if not path.exists():
        return {"name": source, "on_hub": True, **_carried(source, **hub_options)}
    if snapshot := _SNAPSHOT.search(f"{path.as_posix()}/"):
        return {"name": snapshot["id"].replace("--", "/"), "on_hub": True, **_carried(source)}
    if path.is_file():  # a GGUF file, whose folder may have a card
        return {"name": path.name, "on_hub": False, **_carried(str(path.parent))}
    if (path / REPORT_NAME).is_file():  # a result of ours, such as `induce` writes: its own base is what matters
        try:
            report = Report.load(path)
            if report.task == "induce" and report.base:
                return report.base
        except CheckpointError:
            pass
    return {"name": path.resolve().name, "on_hub": False, **_carried(source)}


def public_name(dataset: str) -> str:
    """A dataset as a page may name it: a Hub name as it is, a local path by its last part."""
    if not (Path(dataset).exists() or looks_like_a_path(dataset) or dataset.startswith("~")):
        return dataset
    return re.split(r"[/\\]", dataset.rstrip("/\\"))[-1].strip(".") or "local-data"


def _is_hub_id(source: str) -> bool:
    if Path(source).is_absolute() or source.startswith((".", "~")) or "\\" in source:
        return False
    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return True


def _carried(source: str, **hub_options: Any) -> dict[str, Any]:
    """Of the base model's card; nothing where there is none, or it cannot be reached or read."""
    try:
        file = find_file(source, "README.md", **hub_options)
        if file is None:
            return {}
        data = ModelCard(read_small(file).decode(), ignore_metadata_errors=True).data.to_dict()
        # Of other types they are mistakes, such as the language "no" without quotes.
        data = {name: value for name, value in data.items() if _is_text(value, name in _LISTS)}
    except (
        Exception
    ):  # of the network, of YAML, of the card's own checks: a line on the license is not worth a failed run
        return {}
    return {name: data[name] for name in CARRIED if data.get(name) is not None}


def _is_text(value: Any, or_list: bool) -> bool:
    return isinstance(value, str) or (or_list and isinstance(value, list) and all(isinstance(v, str) for v in value))
