"""The pictures of a report, with their titles and what they show in plain words."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import pictures as drawing
from .records import RunReport
from .series import MAX_GROUPS, score_histogram


if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Names of all pictures, which are those of their files.
NAMES = frozenset({"importance", "layers", "blocks", "singular-values", "scales"})


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture.

    Args:
        name: name of its file, without the ending.
        title: what the picture is about.
        text: what the picture shows, in plain words.
        alt: what the picture shows, for those who do not see it.
        figure: the drawing, without a title.
    """

    name: str
    title: str
    text: str
    alt: str
    figure: "Figure"


def pictures(run: RunReport) -> list[Picture]:
    """Every picture that has something to show, in the order in which they are read."""
    made = [
        _picture("importance", "Importance of the weights", _importance_words(run), drawing.importance(run)),
        _picture("layers", "Error and zeros, layer by layer", _layer_words(run), drawing.layers(run)),
        _picture("blocks", "What each block costs the model", _block_words(run), drawing.blocks(run)),
        _picture(
            "singular-values",
            "Singular values of one layer",
            _spectrum_words(run),
            drawing.singular_values(run),
        ),
        _picture("scales", "Learned channel scales", _scale_words(run), drawing.scales(run)),
    ]
    return [picture for picture in made if picture is not None]


def _picture(name: str, title: str, words: tuple[str, str], figure: "Figure | None") -> Picture | None:
    text, alt = words
    return None if figure is None else Picture(name, title, text, alt, figure)


def _importance_words(run: RunReport) -> tuple[str, str]:
    what = "Every weight has a score, and those with the lowest go."
    values = score_histogram(run)
    if values is None or values.after is None:
        text = f"{what} The shape shows how the scores of this run are spread around the mean of their row."
        return text, "Histogram of the scores of all weights, relative to the mean of their row."
    text = (
        f"{what} The gray shape shows how scores are spread before induction, the green line how they are spread with "
        "the learned scales. Below is the difference: where it is above zero, more weights are found after induction."
    )
    return text, "Two histograms of the scores of all weights, before and after induction, and their difference."


def _layer_words(run: RunReport) -> tuple[str, str]:
    unit = "block: its layers are averaged" if len(run.layers) > MAX_GROUPS else "layer"
    text = (
        "How far a layer's answers on calibration text are from the dense layer's, as a share of their size, for "
        f"each {unit}."
    )
    if run.induction:
        text += (
            " A single layer may do a little worse than with the plain method: induction is judged by what the model "
            "loses, not by its parts."
        )
    if run.task == "prune":
        text += " The bars below show the share of zeros."
    return text, "Relative output error and share of zeros, from the first block to the last."


def _block_words(run: RunReport) -> tuple[str, str]:
    text = (
        "What is lost on windows of text that nothing was learned from, once a block and those before it are pruned. "
        "Lower is better. Where induction does not clearly help, the plain method is kept and both bars are as "
        "high."
    )
    return text, "Held-out loss of each block with the plain method and as chosen."


def _spectrum_words(run: RunReport) -> tuple[str, str]:
    layer = run.spectrum.layer if run.spectrum is not None else ""
    text = (
        f"Singular values say how strongly a layer acts in each of its directions. For {layer}, from the middle of "
        "the model: the closer both lines are, the more of the layer's shape is kept."
    )
    return text, f"Singular values of {layer}, dense and pruned, from the largest to the smallest."


def _scale_words(run: RunReport) -> tuple[str, str]:
    unit = "block" if len(run.layers) > MAX_GROUPS else "layer"
    text = (
        f"Induction learns a factor s for every input channel. For each {unit}: the whole range, the middle four "
        "fifths and the median. At 1 a channel stays as it is; above it, its weights count more when scores are "
        "compared."
    )
    return text, "Range and median of the learned factors, from the first block to the last."
