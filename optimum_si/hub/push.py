"""One commit on the Hub with a pruned checkpoint, its card and pictures, and an ONNX export where it is asked for."""

import json
import logging
import tempfile
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError

from optimum_si.checkpoint.saved_scales import SCALES_NAME
from optimum_si.config.si_config import SIConfig
from optimum_si.config.small_files import read_small
from optimum_si.errors import PictureError, PublishError
from optimum_si.report import REPORT_NAME, Report, draw

from .card import CARD_NAME, broken_metadata, is_edited, read_card, render
from .errors import checked_token, explained, retried
from .facts import CAPTIONS, ONNX, PICTURES, Facts, SavedRun, is_picture, read_run
from .files import files_in
from .results import RESULTS_NAME


logger = logging.getLogger(__name__)

#: What an earlier push may have left, beside sharded weights and pictures.
_OURS = (SIConfig.CONFIG_NAME, REPORT_NAME, RESULTS_NAME, SCALES_NAME)
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".h5", ".msgpack", ".onnx")


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
    that was edited, here or on the Hub, is kept. Where an earlier push brought an ONNX export, it is made anew, so
    that it never belongs to other weights.

    Raises:
        CheckpointError: for a directory without config, recipe or report.
        ConfigurationError: for a ``repo_id`` that the Hub does not allow.
        PublishError: see :meth:`SIPruner.push_to_hub`.
    """
    directory = Path(directory)
    run = read_run(directory)  # before anything is asked of the Hub
    if not any(directory.glob("*.safetensors")):
        raise PublishError(f"{str(directory)!r} holds no weights (*.safetensors): give what `prune` wrote.")
    api = HfApi(token=checked_token(token))
    with explained(repo_id), tempfile.TemporaryDirectory() as folder:
        _check_own_card(directory)
        repo_id = retried(lambda: api.create_repo(repo_id, private=private, exist_ok=True)).repo_id
        if revision is not None and not create_pr:
            retried(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))
        head = retried(lambda: api.model_info(repo_id, revision=revision))
        if private is not None and bool(head.private) != private:
            logger.warning("%s was there already and stays %s", repo_id, "private" if head.private else "public")
        there = {entry.rfilename for entry in head.siblings or []}
        _check_holds_no_other_model(repo_id, there, create_pr)
        exported = with_onnx or f"{ONNX}/si_onnx.json" in there
        files = _files_to_push(directory, run, Path(folder), exported)
        facts = Facts.of(run, repo_id, files)
        card = _card_to_push(api, repo_id, head.sha, directory, CARD_NAME in there, facts)
        files.pop(CARD_NAME, None)
        if card is not None:
            files[CARD_NAME] = card
        stale = sorted(
            name for name in there - set(files) - {CARD_NAME} if _is_ours(name, exported=facts.onnx is not None)
        )
        if stale:
            logger.warning("removing what an earlier push left: %s", ", ".join(stale))

        def commit() -> CommitInfo:
            # Made anew for each try: what has arrived is then seen on the Hub and not sent again.
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()),
                *(CommitOperationDelete(path_in_repo=name) for name in stale),
            ]
            return api.create_commit(
                repo_id,
                operations,
                commit_message=commit_message or f"Upload {run.report.target} {run.report.method} by optimum-si",
                revision=revision,
                create_pr=create_pr,
                parent_commit=head.sha,
            )

        return retried(commit)


def _files_to_push(directory: Path, run: SavedRun, folder: Path, exported: bool) -> dict[str, Path | bytes]:
    """What a commit holds beside the card, by path in the repository.

    Args:
        directory: directory that ``prune`` or ``induce`` wrote.
        run: what was saved of the run.
        folder: empty folder for what is made here: pictures where the directory has none, and an export.
        exported: whether to export to ONNX, in place of an export in the directory.
    """
    files: dict[str, Path | bytes] = {**files_in(directory)}
    if not any(map(is_picture, files)):
        files |= _drawn(run.report, folder / PICTURES)
    if exported:
        files = {name: content for name, content in files.items() if not name.startswith(f"{ONNX}/")}
        files |= _exported(directory, folder / ONNX)
    return {name: _public(content, run.dataset) for name, content in files.items()}


def _public(content: Path | bytes, dataset: str | None) -> Path | bytes:
    """A file as it may be published: recipes name a local dataset without its path on this machine."""
    if not isinstance(content, Path) or content.name != SIConfig.CONFIG_NAME:
        return content
    recipe = json.loads(read_small(content))
    calibration = recipe.get("calibration") or {}
    if calibration.get("dataset") is not None:
        calibration["dataset"] = dataset
    return (json.dumps(recipe, indent=2, sort_keys=True) + "\n").encode()


def _exported(directory: Path, output: Path) -> dict[str, Path | bytes]:
    from optimum_si.onnx import export

    export(directory, output)
    return {f"{ONNX}/{name}": file for name, file in files_in(output).items()}


def _drawn(report: Report, output: Path) -> dict[str, Path | bytes]:
    """Pictures for the card; none where there is nothing to draw them with."""
    try:
        return {f"{PICTURES}/{file.name}": file for file in draw(report, output)}
    except PictureError as error:
        logger.warning("the card has no pictures: %s", error)
        return {}


def _check_own_card(directory: Path) -> None:
    card = directory / CARD_NAME
    if card.is_file():
        try:
            card.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise PublishError(f"{str(card)!r} is no UTF-8 text ({error}): save it as UTF-8, or delete it.") from error
    if card.is_file() and (reason := broken_metadata(read_card(card))):
        raise PublishError(f"the metadata of {str(card)!r} is broken: {reason} Mend it, or delete the file.")


def _card_to_push(
    api: HfApi, repo_id: str, commit: str | None, directory: Path, on_hub: bool, facts: Facts
) -> bytes | None:
    """The card to upload: an edited one of the directory, else ours; None keeps an edited one on the Hub."""
    own = directory / CARD_NAME
    if own.is_file() and is_edited(read_card(own)):
        return own.read_bytes()
    if on_hub:
        try:
            with tempfile.TemporaryDirectory() as folder:
                text = read_card(
                    Path(retried(lambda: api.hf_hub_download(repo_id, CARD_NAME, revision=commit, local_dir=folder)))
                )
        except EntryNotFoundError as error:  # it is there, so that this is a refusal or a fault of the Hub
            raise PublishError(
                f"the card of {repo_id} on the Hub cannot be read, and may not be replaced unseen: try again."
            ) from error
        if reason := broken_metadata(text):
            raise PublishError(
                f"the card of {repo_id} on the Hub has broken metadata: {reason} Mend it there; it was not replaced, "
                "and nothing was uploaded."
            )
        if text.strip() and is_edited(text) and _says_more_than_metadata(text):
            logger.warning("the card of %s was edited and is kept", repo_id)
            return None
    return render(facts).encode()


def _says_more_than_metadata(card: str) -> bool:
    """A card of metadata alone, as the Hub's web page makes one for a new repository, is nobody's work."""
    return bool(ModelCard(card, ignore_metadata_errors=True).text.strip())


def _check_holds_no_other_model(repo_id: str, there: set[str], create_pr: bool) -> None:
    if create_pr or SIConfig.CONFIG_NAME in there:
        return
    if weights := sorted(name for name in there if name.endswith(_WEIGHTS)):
        raise PublishError(
            f"the name is taken: {repo_id} holds a model that optimum-si did not write ({weights[0]}), which would be "
            "replaced. Choose another name, or propose the change with create_pr=True (--create-pr)."
        )


def _is_ours(name: str, exported: bool) -> bool:
    """Whether a file on the Hub was part of an earlier push, so that it is stale where it is missing now."""
    folder, _, file = name.rpartition("/")
    if folder == "":
        weights = file.startswith("model") and file.endswith((".safetensors", ".safetensors.index.json"))
        return weights or file in _OURS
    if folder == PICTURES:
        return file == "index.html" or file.removesuffix(".png") in CAPTIONS
    return folder == ONNX and exported
