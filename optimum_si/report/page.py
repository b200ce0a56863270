"""The page of a report: one HTML file that asks for no other."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .catalog import Picture
from .records import CHOICES, BlockReport, LayerReport, RunReport
from .svg import inline_svg


#: Headings of the table, in the order of the cells of a :class:`_Row`.
_HEADINGS = ("Layer", "Shape", "Zeros", "Error, plain", "Error, now", "s", "Absorbed", "Chosen")


@dataclass(frozen=True)
class _KeyFigure:
    """One of the numbers at the top: what it is, its value, and what to know of it."""

    what: str
    value: str
    more: str


@dataclass(frozen=True)
class _Row:
    """A layer in the table: its name, and each cell's text with the value by which its column is sorted."""

    layer: str
    cells: list[tuple[str, float]]


def page(run: RunReport, name: str, pictures: list[Picture]) -> str:
    """HTML for phones and screens, in the light and in the dark.

    Args:
        run: what was measured in a run.
        name: name of the model's folder.
        pictures: the pictures of the run, drawn.
    """
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.jinja").render(
        name=name,
        version=run.version,
        lead=_lead(run),
        key_figures=list(_key_figures(run)),
        pictures=[(picture, Markup(inline_svg(picture.figure, picture.name))) for picture in pictures],
        loading=_loading(run, name),
        headings=_HEADINGS,
        rows=[_row(block, layer) for block in run.blocks for layer in block.layers],
        css=_inlined("page.css"),
        js=_inlined("page.js"),
    )


def _inlined(name: str) -> Markup:
    """A file of this package as it stands: inside <style> and <script> nothing may be escaped."""
    return Markup((files(__package__) / name).read_text(encoding="utf-8"))


def _lead(run: RunReport) -> str:
    """The run in a sentence or two."""
    method = f"{run.method} {run.target}"
    if run.task == "induce":
        return f"Scales for {method} were learned and absorbed; no weight was pruned."
    text = f"{run.sparsity:.1%} of the weights in {len(run.layers)} layers are zero, chosen by {method}"
    if not run.induction:
        return f"{text}, without induction."
    if run.loss_reduction is None:
        return f"{text} with Sparsity Induction."
    helped = sum(block.choice != "plain" for block in run.blocks)
    return (
        f"{text} with Sparsity Induction, which was kept in {helped} of {len(run.blocks)} blocks and lowers "
        f"the held-out loss at each block by {run.loss_reduction:.1%} on average."
    )


def _key_figures(run: RunReport) -> Iterator[_KeyFigure]:
    yield _KeyFigure("Method", run.method, "with induction" if run.induction else "plain")
    yield _KeyFigure("Target", run.target, "non-zeros in each group" if ":" in run.target else "share of zeros")
    if run.task == "prune":
        whole = "" if run.model_sparsity is None else f"; {run.model_sparsity:.2%} of the whole model"
        yield _KeyFigure("Sparsity", f"{run.sparsity:.2%}", f"measured, pruned layers{whole}")
    if run.loss_reduction is not None:
        yield _KeyFigure("Held-out loss", f"{run.loss_reduction:.1%} lower", "at each block, with induction")
    yield _KeyFigure("Layers", f"{len(run.layers):,}", f"in {len(run.blocks):,} blocks")
    yield _KeyFigure("Parameters", _short(run.parameters), "in the whole model")
    yield _KeyFigure("Calibration", _short(run.calibration_tokens), f"tokens in {run.calibration_windows:,} windows")
    yield _KeyFigure("Time", _duration(run.seconds), "loading and saving aside")


def _loading(run: RunReport, name: str) -> str:
    model = run.architecture or "AutoModel"
    return (
        f"from transformers import {model}\n\nmodel = {model}.from_pretrained({json.dumps(name, ensure_ascii=False)})"
    )


def _row(block: BlockReport, layer: LayerReport) -> _Row:
    d_out, d_in = layer.shape
    scaled = layer.scale_min is not None and layer.scale_max is not None
    cells = [
        (f"{d_out} × {d_in}", layer.num_weights),
        ("–" if layer.sparsity is None else f"{layer.sparsity:.2%}", layer.sparsity),
        ("–" if layer.error_before is None else f"{layer.error_before:.4f}", layer.error_before),
        (f"{layer.error_after:.4f}", layer.error_after),
        (f"{layer.scale_min:.2f} to {layer.scale_max:.2f}" if scaled else "–", layer.scale_max),
        ("yes" if layer.absorbed else "–", int(layer.absorbed)),
        (block.choice, CHOICES.index(block.choice)),
    ]
    # What is not known comes before everything that is.
    return _Row(layer.name, [(text, -1 if value is None else value) for text, value in cells])


def _short(count: int) -> str:
    """1234567 as 1.23 M."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
