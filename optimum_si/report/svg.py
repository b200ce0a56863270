"""A figure as SVG inside a page: its text in the page's font, its colors from the page's style sheet."""

import io
import re
from typing import TYPE_CHECKING

from .style import ROLES, styled


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def inline_svg(figure: "Figure", name: str) -> str:
    """One ``<svg>`` element that refers to nothing outside itself.

    Args:
        figure: drawn in the colors of ``ROLES``; each becomes ``var(--role)``.
        name: unique in the page; its ids start with it.
    """
    buffer = io.StringIO()
    # The salt makes ids, and so the page, the same in every run.
    with styled(**{"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", facecolor="none", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    # Inside a page the names of namespaces are known, and `href` needs none.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = re.sub(r" font-family: [^;\"]*;?", "", text)
    for role, color in ROLES.items():
        text = text.replace(color, f"var(--{role})")
    return text.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1).strip()
