"""The page in a real browser: on a phone and on a screen, in the light and in the dark."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import matplotlib.image
import numpy
import pytest
from support.example_reports import example

from optimum_si.report import Report, write_report


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: chromium, chromium-browser, google-chrome")

WIDTHS = (360, 390, 768, 1280)
#: Puts what the browser finds in the page inside each frame into the text of the page around them.
PROBE = """
const found = [...document.querySelectorAll("iframe")].map((frame) => {
  const page = frame.contentWindow;
  const within = page.document;
  within.querySelectorAll("thead button")[3].click();
  return {
    width: page.innerWidth,
    scroll: within.documentElement.scrollWidth,
    requests: page.performance.getEntriesByType("resource").map((entry) => entry.name),
    boxes: [...within.querySelectorAll("pre, .scroll")].map((box) => getComputedStyle(box).overflowX),
    errors: [...within.querySelectorAll("tbody tr")].map((row) => Number(row.cells[3].dataset.value)),
  };
});
document.querySelector("output").textContent = JSON.stringify(found);
"""


def framed(tmp_path: Path, report: Report, widths: tuple[int, ...], height: int) -> Path:
    """A page around ours: no window of this browser is as narrow as a phone, but a frame is."""
    text = write_report(report, tmp_path / "report", "a-model-with-a-rather-long-name-2of4")[0].read_text()
    frames = "".join(
        f'<iframe srcdoc="{escape(text)}" style="border:0;display:block;width:{width}px;height:{height}px"></iframe>'
        for width in widths
    )
    around = tmp_path / "around.html"
    around.write_text(
        f'<!doctype html><meta charset="utf-8"><body style="margin:0">{frames}<output hidden></output>'
        f"<script>onload = () => {{{PROBE}}}</script>"
    )
    return around


def browse(tmp_path: Path, page: Path, *words: str) -> str:
    """What the browser writes; it knows no other machine."""
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=2000", *words, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("report", [
    example(), example(60, prefix="a.name.that.is.long" * 4), example(induction=False)
], ids=["induced", "420 layers", "plain"])  # fmt: skip
def test_the_page_fits_and_asks_for_nothing(tmp_path, report):
    dom = browse(tmp_path, framed(tmp_path, report, WIDTHS, 844), "--dump-dom")
    (text,) = re.findall(r"<output hidden=\"\">(\[.*\])</output>", dom)
    for width, found in zip(WIDTHS, json.loads(unescape(text)), strict=True):
        assert found["width"] == width
        assert found["scroll"] <= width
        assert found["requests"] == []
        assert set(found["boxes"]) == {"auto"}
        assert found["errors"] == sorted(found["errors"]), "a click on a heading sorts"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width, height", [(390, 844), (1280, 900)])
def test_the_page_is_seen(tmp_path, width, height, scheme):
    shot = tmp_path / "shot.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    page = framed(tmp_path, example(), (width,), height)
    browse(tmp_path, page, *dark, f"--window-size={max(width, 500)},{height}", f"--screenshot={shot}")
    pixels = matplotlib.image.imread(shot)[:, :width, :3]
    ground = pixels[4, 4].mean()
    assert (ground < 0.2) if scheme == "dark" else (ground > 0.9)
    assert len(numpy.unique((pixels * 255).astype(int) @ [65_536, 256, 1])) > 50
    assert (numpy.abs(pixels - pixels[4, 4]).max(axis=2) > 0.1).mean() > 0.05, "a twentieth of it is drawn on"
