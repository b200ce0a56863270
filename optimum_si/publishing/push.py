"""One commit on the Hub with a pruned checkpoint, its card and pictures, and an ONNX export where it is asked for."""

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP library that the client of the Hub uses, whichever that is
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from ..configuration import SIConfig
from ..errors import ConfigurationError, PictureError, PublishError
from ..reporting import Report, draw
from .base import public_name
from .card import CARD_NAME, PICTURES, broken_metadata, build, is_edited, read_facts


logger = logging.getLogger(__name__)

#: Seconds before each further try of an upload that lost its connection.
WAITS = (1, 4, 16)
ONNX = "onnx"
_WEIGHTS = (".safetensors", ".bin")
_Result = TypeVar("_Result")


def push_folder(
    directory: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    with_onnx: bool = False,
) -> CommitInfo:
    """Publish a directory that ``prune`` or ``induce`` wrote, as :meth:`SIPruner.push_to_hub` does.

    Files of an earlier push that the directory no longer has (such as shards) are removed in the same commit. A card
    that was edited, here or on the Hub, is kept.

    Raises:
        CheckpointError: for a directory without config, recipe or report.
        ConfigurationError: for a ``repo_id`` that the Hub does not allow.
        PublishError: see :meth:`SIPruner.push_to_hub`.
    """
    directory = Path(directory)
    facts = read_facts(directory, repo_id, with_onnx)  # before anything is asked of the Hub
    api = HfApi(token=token)
    with _explained(repo_id), tempfile.TemporaryDirectory() as folder:
        _check_own_card(directory)
        repo_id = _retried(lambda: api.create_repo(repo_id, private=private, exist_ok=True)).repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        head = api.model_info(repo_id, revision=revision)
        there = {entry.rfilename for entry in head.siblings or []}
        _check_holds_no_other_model(repo_id, there, create_pr)
        files: dict[str, Path | bytes] = {**_files_in(directory)}
        files[SIConfig.CONFIG_NAME] = _public_recipe(directory)
        if not facts.pictures:
            files |= _drawn(facts.report, Path(folder) / PICTURES)
            facts = replace(facts, pictures=sorted(name for name in files if name.startswith(f"{PICTURES}/")))
        if with_onnx:
            files |= _exported(directory, Path(folder) / ONNX)
        card = _card_to_push(api, repo_id, revision, directory, CARD_NAME in there, lambda: build(facts))
        if card is None:
            files.pop(CARD_NAME, None)
        else:
            files[CARD_NAME] = card
        stale = sorted(name for name in there - set(files) if _is_ours(name, with_onnx))

        def commit() -> CommitInfo:
            # Made anew for each try: what has arrived is then seen on the Hub and not sent again.
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()),
                *(CommitOperationDelete(path_in_repo=name) for name in stale),
            ]
            return api.create_commit(
                repo_id,
                operations,
                commit_message=commit_message or f"Upload {facts.report.target} {facts.report.method} by optimum-si",
                revision=revision,
                create_pr=create_pr,
                parent_commit=head.sha,
            )

        return _retried(commit)


def _files_in(directory: Path) -> dict[str, Path]:
    """Files by their path in the repository; hidden ones are left out."""
    paths = {file.relative_to(directory): file for file in sorted(directory.rglob("*")) if file.is_file()}
    return {
        name.as_posix(): file for name, file in paths.items() if not any(part.startswith(".") for part in name.parts)
    }


def _public_recipe(directory: Path) -> bytes:
    """``si_config.json`` with a local dataset by its bare name: paths of a machine are nobody's business."""
    recipe = json.loads((directory / SIConfig.CONFIG_NAME).read_text(encoding="utf-8"))
    calibration = recipe.get("calibration") or {}
    if isinstance(calibration.get("dataset"), str):
        calibration["dataset"] = public_name(calibration["dataset"])
    return (json.dumps(recipe, indent=2, sort_keys=True) + "\n").encode()


def _exported(directory: Path, output: Path) -> dict[str, Path | bytes]:
    from ..onnx import export

    export(directory, output)
    return {f"{ONNX}/{name}": file for name, file in _files_in(output).items()}


def _drawn(report: Report, output: Path) -> dict[str, Path | bytes]:
    """Pictures for the card; none where there is nothing to draw them with."""
    try:
        return {f"{PICTURES}/{file.name}": file for file in draw(report, output)}
    except PictureError as error:
        logger.warning("the card has no pictures: %s", error)
        return {}


def _check_own_card(directory: Path) -> None:
    card = directory / CARD_NAME
    if card.is_file() and (reason := broken_metadata(card.read_text(encoding="utf-8"))):
        raise PublishError(f"the metadata of {str(card)!r} is broken: {reason} Mend it, or delete the file.")


def _card_to_push(
    api: HfApi, repo_id: str, revision: str | None, directory: Path, on_hub: bool, write: Callable[[], str]
) -> bytes | None:
    """The card to upload: an edited one of the directory, else ours; None keeps an edited one on the Hub."""
    own = directory / CARD_NAME
    if own.is_file() and is_edited(text := own.read_text(encoding="utf-8")):
        return text.encode()
    if on_hub:
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = api.hf_hub_download(repo_id, CARD_NAME, revision=revision, local_dir=folder)
                text = Path(path).read_text(encoding="utf-8")
        except EntryNotFoundError:
            text = ""
        if reason := broken_metadata(text):
            raise PublishError(
                f"the card of {repo_id} on the Hub has broken metadata: {reason} Mend it there; it was not replaced, "
                "and nothing was uploaded."
            )
        if text.strip() and is_edited(text) and _says_more_than_metadata(text):
            logger.warning("the card of %s was edited and is kept", repo_id)
            return None
    return write().encode()


def _says_more_than_metadata(card: str) -> bool:
    """A card of metadata alone, as the Hub's web page makes one for a new repository, is nobody's work."""
    from huggingface_hub import ModelCard

    return bool(ModelCard(card, ignore_metadata_errors=True).text.strip())


def _check_holds_no_other_model(repo_id: str, there: set[str], create_pr: bool) -> None:
    if create_pr or SIConfig.CONFIG_NAME in there:
        return
    if weights := sorted(name for name in there if name.endswith(_WEIGHTS)):
        raise PublishError(
            f"the name is taken: {repo_id} holds a model that optimum-si did not write ({weights[0]}), which would be "
            "replaced. Choose another name, or propose the change with create_pr=True (--create-pr)."
        )


def _is_ours(name: str, with_onnx: bool) -> bool:
    """Whether a file on the Hub was part of an earlier push, so that it is stale where it is missing now."""
    if name.startswith(f"{ONNX}/"):
        return with_onnx
    return name.startswith(("report/", "si_")) or name.endswith((".safetensors", ".safetensors.index.json"))


def _retried(send: Callable[[], _Result]) -> _Result:
    """Try again when the connection is lost or the Hub has a moment of weakness."""
    for wait in WAITS:
        try:
            return send()
        except HTTPError as error:
            if isinstance(error, HfHubHTTPError) and _status(error) < 500:
                raise
            logger.warning("the upload was interrupted (%s); trying again in %d s", type(error).__name__, wait)
            time.sleep(wait)
    return send()


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """The Hub's errors, in words that say what to do. None of them repeats the token."""
    login = "log in with `hf auth login`, set HF_TOKEN, or give token=, with the right to write"
    try:
        yield
    except HFValidationError as error:
        raise ConfigurationError(
            f"repo_id={repo_id!r} is no name that the Hub allows ({error}): give 'owner/name'."
        ) from error
    except LocalTokenNotFoundError:
        raise PublishError(f"pushing to {repo_id!r} needs a token: {login}.") from None
    except OfflineModeIsEnabled as error:
        raise PublishError("HF_HUB_OFFLINE is set, so nothing can be pushed: unset it.") from error
    except HfHubHTTPError as error:
        raise PublishError(_advice(repo_id, error, login)) from error
    except HTTPError as error:
        raise PublishError(
            f"the connection to the Hub was lost while pushing to {repo_id!r} ({type(error).__name__}). Run the same "
            "again: files that have arrived are not sent twice."
        ) from error


def _advice(repo_id: str, error: HfHubHTTPError, login: str) -> str:
    status = _status(error)
    said = (error.server_message or str(error)).strip().splitlines()[0][:300]
    if status == 401:
        return f"the Hub does not accept the token for {repo_id!r}, or there is none: {login}."
    if status == 403:
        return f"no right to write to {repo_id!r} ({said}): choose a name of your own, or use a token that may write."
    if status == 412:
        return (
            f"{repo_id!r} changed while this push was under way, and nothing was committed: look at what changed "
            "there, then push again."
        )
    if status >= 500:
        return f"the Hub cannot take {repo_id!r} now ({status}: {said}). Run the same again later: it resumes."
    return f"the Hub refused the push to {repo_id!r} ({status}: {said})."


def _status(error: HfHubHTTPError) -> int:
    response = getattr(error, "response", None)
    return 0 if response is None else int(response.status_code)
