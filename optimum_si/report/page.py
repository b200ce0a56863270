"""The page of a report: one HTML file that asks for no other."""

import json
from html import escape
from importlib.resources import files

from .catalog import Picture
from .report import BlockReport, LayerReport, Report
from .svg import inline_svg


_PAPER = "https://arxiv.org/abs/2602.21652"

#: The browser itself sees to it that the page asks for nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(report: Report, name: str, pictures: list[Picture]) -> str:
    """HTML for phones and screens, in the light and in the dark.

    Args:
        report: what a run did.
        name: of the model's folder.
        pictures: of the report.
    """
    title = escape(name)
    drawn = "\n".join(map(_figure, pictures))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{title}: pruning report</title>
<link rel="icon" href="data:,">
<style>
{_resource("page.css")}</style>
</head>
<body>
<header>
<p class="kind">Pruning report</p>
<h1>{title}</h1>
<p class="lead">{_lead(report)}</p>
{_key_figures(report)}
</header>
<main>
<section aria-labeledby="pictures">
<h2 id="pictures">In pictures</h2>
<div class="pictures">
{drawn}
</div>
</section>
<section aria-labeledby="loading">
<h2 id="loading">Load the model</h2>
<p class="note">It is an ordinary checkpoint of transformers: nothing else has to be installed.</p>
<pre tabindex="0"><code>{escape(_loading(report, name))}</code></pre>
</section>
<section aria-labeledby="layers">
<h2 id="layers">Layer by layer</h2>
{_table(report)}
</section>
</main>
<footer>
<p>Made by optimum-si {escape(report.version)}. The method: <a href="{_PAPER}">Sparsity Induction</a>.</p>
</footer>
<script>
{_resource("page.js")}</script>
</body>
</html>
"""


def _resource(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _lead(report: Report) -> str:
    """The run in a sentence or two."""
    method = f"{escape(report.method)} {escape(report.target)}"
    if report.task == "induce":
        return f"Scales for {method} were learned and absorbed; no weight was pruned."
    text = f"{report.sparsity:.1%} of the weights in {len(report.layers)} layers are zero, chosen by {method}"
    if not report.induction:
        return f"{text}, without induction."
    if report.closed is None:
        return f"{text} with Sparsity Induction."
    helped = sum(block.choice != "plain" for block in report.blocks)
    return (
        f"{text} with Sparsity Induction, which was kept in {helped} of {len(report.blocks)} blocks and lowers "
        f"the held-out loss at each block by {report.closed:.1%} on average."
    )


def _key_figures(report: Report) -> str:
    entries = [
        ("Method", escape(report.method), "with induction" if report.induction else "plain"),
        ("Target", escape(report.target), "non-zeros in each group" if ":" in report.target else "share of zeros"),
    ]
    if report.task == "prune":
        entries.append(("Sparsity", f"{report.sparsity:.2%}", "measured, pruned layers"))
    if report.closed is not None:
        entries.append(("Held-out loss", f"{report.closed:.1%} lower", "at each block, with induction"))
    entries += [
        ("Layers", f"{len(report.layers):,}", f"in {len(report.blocks):,} blocks"),
        ("Parameters", _short(report.parameters), "in the whole model"),
        ("Calibration", _short(report.calibration_tokens), f"tokens in {report.calibration_windows:,} windows"),
        ("Time", _duration(report.seconds), "loading and saving aside"),
    ]
    lines = [
        f'<div><dt>{what}</dt><dd class="value">{value}</dd><dd class="more">{more}</dd></div>'
        for what, value, more in entries
    ]
    return "\n".join(['<dl class="figures">', *lines, "</dl>"])


def _figure(picture: Picture) -> str:
    heading = f"about-{picture.name}"
    return f"""<figure aria-labeledby="{heading}">
<h3 id="{heading}">{escape(picture.title)}</h3>
<div role="img" aria-label="{escape(picture.alt)}">{inline_svg(picture.figure, picture.name)}</div>
<figcaption>{escape(picture.text)}</figcaption>
</figure>"""


def _loading(report: Report, name: str) -> str:
    model = report.architecture or "AutoModel"
    return (
        f"from transformers import {model}\n\nmodel = {model}.from_pretrained({json.dumps(name, ensure_ascii=False)})"
    )


def _table(report: Report) -> str:
    headings = ["Layer", "Shape", "Zeros", "Error, plain", "Error, now", "s", "Absorbed", "Chosen"]
    cells = "".join(f'<th scope="col"><button type="button">{heading}</button></th>' for heading in headings)
    entries = [(block, layer) for block in report.blocks for layer in block.layers]
    rows = "\n".join(_row(number, block, layer) for number, (block, layer) in enumerate(entries))
    return f"""<div class="scroll" tabindex="0" role="region" aria-labeledby="layers">
<table>
<thead><tr>{cells}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>"""


def _row(number: int, block: BlockReport, layer: LayerReport) -> str:
    rows, columns = layer.shape
    scaled = layer.scale_min is not None and layer.scale_max is not None
    cells = [
        (f"{rows} × {columns}", rows * columns),
        ("–" if layer.sparsity is None else f"{layer.sparsity:.2%}", layer.sparsity),
        ("–" if layer.error_before is None else f"{layer.error_before:.4f}", layer.error_before),
        (f"{layer.error_after:.4f}", layer.error_after),
        (f"{layer.scale_min:.2f} to {layer.scale_max:.2f}" if scaled else "–", layer.scale_max),
        ("yes" if layer.absorbed else "–", int(layer.absorbed)),
        (escape(block.choice), ["plain", "shift", "induced"].index(block.choice)),
    ]
    values = "".join(f'<td data-value="{-1 if value is None else value}">{text}</td>' for text, value in cells)
    return f'<tr><th scope="row" data-value="{number}">{escape(layer.name)}</th>{values}</tr>'


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
