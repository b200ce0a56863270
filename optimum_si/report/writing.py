"""Pictures and the page in a folder of their own."""

from pathlib import Path

from optimum_si.checkpoint.save import replaced_directory
from optimum_si.errors import CheckpointError

from .catalog import NAMES, Picture, pictures
from .page import page
from .records import RunReport
from .style import require_matplotlib, styled


PAGE_NAME = "index.html"

#: Dots an inch: twice as many as a card has pixels, for screens that show them.
_DPI = 220


def write_report(report: RunReport, folder: str | Path, name: str) -> list[Path]:
    """Write the pictures and ``index.html``, one file that needs nothing else, and move the folder into place.

    Args:
        report: what was measured in a run.
        folder: folder of the report; an earlier report there is replaced.
        name: name of the model's folder, as the page calls it.

    Returns:
        The files, the page first.

    Raises:
        PictureError: when matplotlib is missing.
        CheckpointError: when the folder holds anything but an earlier report, or cannot be written.
    """
    require_matplotlib()
    target = Path(folder)
    if target.is_dir() and any(target.iterdir()) and not _is_a_report(target):
        raise CheckpointError(
            f"{str(folder)!r} holds files that are not a report's and would be lost: give a new or an empty folder "
            "(--output on the command line)."
        )
    with styled():
        drawn = pictures(report)
    with replaced_directory(target, overwrite=True, may_be_replaced=_is_a_report) as fresh:
        (fresh / PAGE_NAME).write_text(page(report, name, drawn), encoding="utf-8")
        files = [fresh / PAGE_NAME, *(_save(picture, fresh) for picture in drawn)]
    return [target / file.name for file in files]


def draw(report: RunReport, folder: str | Path) -> list[Path]:
    """Write the pictures alone, as PNG files, into a folder that may hold other files.

    Args:
        report: what was measured in a run.
        folder: folder of the pictures; it is made where it is missing.

    Returns:
        A file for each picture that has something to show: a run without induction has no scales.

    Raises:
        PictureError: when matplotlib is missing.
    """
    require_matplotlib()
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with styled():
        return [_save(picture, target) for picture in pictures(report)]


def _is_a_report(folder: Path) -> bool:
    """Whether a folder holds nothing but what an earlier report wrote."""
    page = folder / PAGE_NAME
    foreign = [path for path in folder.iterdir() if path.name != PAGE_NAME and path.stem not in NAMES]
    return (
        not foreign and page.is_file() and "Made by optimum-si" in page.read_text(encoding="utf-8", errors="replace")
    )


def _save(picture: Picture, folder: Path) -> Path:
    path = folder / f"{picture.name}.png"
    with styled():
        picture.figure.suptitle(picture.title, x=0.02, ha="left", fontsize=11, fontweight="bold")
        picture.figure.savefig(path, dpi=_DPI, facecolor="white")
    return path
