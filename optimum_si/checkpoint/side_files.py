"""What lies beside the weights of a checkpoint and goes along with its result.

Processors, modules of sentence-transformers, chat templates, vocabularies and licenses are copied; all else in a
folder is its owner's. Python code is never copied, nor what a link brings in from elsewhere.
"""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from transformers import PreTrainedTokenizerBase

from optimum_si.config.small_files import LARGEST
from optimum_si.errors import CheckpointError, reason_of
from optimum_si.warnings import warn

from .adapters import find_adapter
from .listing import copy_file, files_at, files_below, stays_inside
from .locate import find_file


_MODULES, _ROUTER, _TEMPLATES_FOLDER = "modules.json", "router_config.json", "additional_chat_templates"
#: Files of the model, by their whole name.
_OF_MODEL = re.compile(
    r"((video_|image_)?(pre)?processor|feature_extractor|audio_tokenizer|router|sentence_[\w-]{1,60})_config\.json"
    r"|modules\.json|config_sentence_transformers\.json|generation_config[\w-]{0,60}\.json"
)
_LICENSES = re.compile(
    r"(licen[sc]e|notice|copying|use_policy)[\w-]{0,60}(\.(txt|md|rst|html|pdf))?", re.IGNORECASE | re.ASCII
)
#: Files of its tokenizer, which mean nothing beside another one.
_OF_TOKENIZER = re.compile(
    r"tokenizer\.json|tokenizer\.model(\.v\d{1,3})?|vocab(ulary)?\.(txt|json|bpe)|vocab-(src|tgt)\.json"
    r"|(target|entity)_vocab\.json|merges\.txt|bpe\.codes|dict\.txt|emoji\.json|normalizer\.json|byte_maps\.json"
    r"|word_(shape|pronunciation)\.json|(sentencepiece(\.bpe)?|spiece|spm|spm_char|tiktoken)\.model"
    r"|(source|target)\.spm|prophetnet\.tokenizer|tekken\.json|[\w-]{1,60}\.tiktoken"
    rf"|chat_template\.(jinja|json)|{_TEMPLATES_FOLDER}/[\w-]{{1,200}}\.jinja",
    re.ASCII,
)
#: Those that a tokenizer writes itself, and may have changed.
_SETTINGS = re.compile(r"tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json")
#: Kinds of files in the folder of a module, such as a Dense layer with its weights.
_OF_MODULES = (".json", ".txt", ".model", ".jinja", ".safetensors", ".bin")
#: Folders of a result, which are no module's.
_OWN_FOLDERS = ("onnx", "report")
#: Bytes of a file that are copied, beside the weights and in the folder of a module, and files of all modules.
_LARGEST, _LARGEST_OF_MODULE, _MOST = 1 << 28, 1 << 32, 1000
#: Bytes of a list of modules, and names that a warning holds.
_LARGEST_LIST, _SHOWN = 1 << 20, 8


@dataclass
class SideFiles:
    """Files that go along with a model.

    Args:
        source: place that they are from.
        files: where each is on this machine, by its path in the checkpoint.
        left: what does not go along, with the reason.
        code: Python files, by the same paths.
        more: those of the model that an adapter belongs to, for what the adapter's place lacks.
    """

    source: str
    files: dict[str, Path] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    code: list[str] = field(default_factory=list)
    more: "SideFiles | None" = None

    def save(self, directory: str | Path, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Copy into a directory what it does not hold already, and warn of what is left behind.

        Args:
            directory: where model and tokenizer have been written.
            tokenizer: that of the result; files of another one are left out.
        """
        own = tokenizer is None or _is_same_place(getattr(tokenizer, "name_or_path", ""), self.source)
        left = dict(self.left)
        for name, file in self.files.items():
            if _SETTINGS.fullmatch(name) and tokenizer is not None or _OF_TOKENIZER.fullmatch(name) and not own:
                continue
            target = Path(directory, name)
            if not os.path.lexists(target) and (reason := copy_file(file, target, _LARGEST_OF_MODULE)) is not None:
                left[name] = reason
        # A model that runs its own code has written that already.
        left |= {name: "Python code" for name in self.code if not Path(directory, name).exists()}
        if left:
            named = [f"{name!r} ({reason})" for name, reason in sorted(left.items())]
            shown = ", ".join(named[:_SHOWN]) + (f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else "")
            warn(f"{self.source!r} holds files that do not go along: {shown}. Look at them, and copy what is needed.")
        if self.more is not None:
            self.more.save(directory, tokenizer)


def find_side_files(source: str | Path, required: bool = False, **kwargs: Any) -> SideFiles:
    """What goes along from the place of a model; from the Hub it is downloaded, or taken from the cache.

    Args:
        source: directory or Hub id; a file, "" and places that are gone have nothing.
        required: warn where the place cannot be looked at.
        kwargs: where on the Hub: ``revision``, ``token``, ``subfolder``, ...
    """
    found = SideFiles(str(source))
    if not str(source) or Path(source).is_file():
        return found
    try:
        _collect(found, kwargs)
        adapter = find_adapter(source, **kwargs)
        if adapter is not None and not adapter.embedded:
            found.more = find_side_files(adapter.base, required, **adapter.place_of_base(kwargs))
    except Exception as error:  # of the network, of the Hub, for names that are none
        if required:
            reason = reason_of(error)
            warn(f"what lies beside the weights of {str(source)!r} cannot be found, and does not go along: {reason}")
    return found


def check_sizes(source: str | Path, subfolder: str | None = None) -> None:
    """Refuse a folder with files of a tokenizer or processor that are too large to be any: they are read whole.

    Raises:
        CheckpointError: names the file.
    """
    for name, size in files_at(str(source), subfolder=subfolder).items() if Path(source).is_dir() else ():
        is_small = _SETTINGS.fullmatch(name) or _OF_MODEL.fullmatch(name)
        largest = LARGEST if is_small else _LARGEST if _OF_TOKENIZER.fullmatch(name) else size
        if size > largest:
            raise CheckpointError(
                f"{name!r} in {str(source)!r} has {size:,} bytes, and at most {largest:,} are read: it is damaged."
            )


def _collect(found: SideFiles, kwargs: dict[str, Any]) -> None:
    """Sort the files of a place."""
    listed = files_at(found.source, **kwargs)
    modules = _module_folders(found, listed, kwargs)
    if Path(found.source).is_dir():
        for folder in (_TEMPLATES_FOLDER, *modules):
            listed |= files_below(Path(found.source, kwargs.get("subfolder") or ""), folder)
    of_modules = 0
    for name, size in sorted(listed.items()):
        path = PurePosixPath(name)
        if any(part.startswith(".") for part in path.parts):  # hidden, or out of the folder
            continue
        inside = any(path.is_relative_to(folder) for folder in modules)
        if path.suffix == ".py" and (inside or len(path.parts) == 1):
            found.code.append(name)
        elif inside and path.suffix in _OF_MODULES:
            of_modules += 1
            largest = _LARGEST_OF_MODULE if of_modules <= _MOST else -1
            _take(found, name, size, largest, kwargs)
        elif any(kind.fullmatch(name) for kind in (_OF_MODEL, _LICENSES, _OF_TOKENIZER, _SETTINGS)):
            _take(found, name, size, _LARGEST, kwargs)


def _take(found: SideFiles, name: str, size: int, largest: int, kwargs: dict[str, Any]) -> None:
    """Find one file, or note why it is left behind."""
    if name in found.left:
        return
    if size > largest:
        found.left[name] = f"{size:,} bytes" if largest >= 0 else "one of too many"
    elif size < 0 or (file := find_file(found.source, name, **kwargs)) is None:
        found.left[name] = "no regular file"
    elif Path(found.source).is_dir() and not stays_inside(file, Path(found.source)):
        found.left[name] = "a link to elsewhere"
    else:
        found.files[name] = file


def _module_folders(found: SideFiles, listed: dict[str, int], kwargs: dict[str, Any]) -> list[str]:
    """Folders that sentence-transformers loads modules from, beside the model that lies in the place itself."""
    folders = []
    for path in _module_paths(found, _MODULES, listed, kwargs) + _module_paths(found, _ROUTER, listed, kwargs):
        parts = PurePosixPath(path).parts
        plain = "\\" not in path and path.isprintable() and not any(part.startswith((".", "/")) for part in parts)
        if plain and parts and parts[0] not in _OWN_FOLDERS:
            folders.append("/".join(parts))
        elif parts:
            found.left[path[:80]] = "no name of a module's folder"
    return folders


def _module_paths(found: SideFiles, name: str, listed: dict[str, int], kwargs: dict[str, Any]) -> list[str]:
    """The paths that a list of modules names; none where there is no list, or it is damaged."""
    if not 0 <= listed.get(name, -1) <= _LARGEST_LIST or (file := find_file(found.source, name, **kwargs)) is None:
        return []
    if Path(found.source).is_dir() and not stays_inside(file, Path(found.source)):
        return []
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        values = None
    if name == _ROUTER and isinstance(values, dict) and isinstance(values.get("types"), dict):
        return list(values["types"])
    if name == _MODULES and isinstance(values, list):
        paths = [entry.get("path") for entry in values if isinstance(entry, dict)]
        return [path for path in paths if isinstance(path, str)]
    found.left[name] = "damaged"
    return []


def _is_same_place(first: str, second: str) -> bool:
    if first and Path(first).exists() and Path(second).exists():
        return Path(first).resolve() == Path(second).resolve()
    return first == second
