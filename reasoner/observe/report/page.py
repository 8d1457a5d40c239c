"""The page as one HTML text: template, styles, libraries, programs and data."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARIES = ("katex.min.css", "katex.min.js", "highlight.min.js")
"""Libraries that are used when the first formula or program is shown, so that the page opens sooner."""
PROGRAMS = (
    *("write", "render", "difference", "source", "columns"),
    *("runs", "overview", "curves", "rollouts", "sample", "problems", "pair", "transcripts", "page"),
)
"""Files of `js/` in the order in which they are read; a later one uses the names of earlier ones."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; font-src data:"
"""Content security policy of the page: it loads nothing, and a page from disk asks for nothing."""


def page_of(title: str, scripts: Sequence[str], *, live: bool = False) -> str:
    """Return the page.

    Args:
        title: title of the window.
        scripts: elements with data, or one that says that the data comes from the server.
        live: True allows requests to the page's own server.
    """
    programs = "\n".join(f"<script>{_read(f'js/{name}.js')}</script>" for name in PROGRAMS)
    parts = {
        "{{policy}}": POLICY + ("; connect-src 'self'" if live else ""),
        "{{title}}": html.escape(title),
        "{{uplot_css}}": _read("vendor/uPlot.min.css"),
        "{{css}}": _read("page.css"),
        "{{uplot_js}}": _read("vendor/uPlot.iife.min.js"),
        "{{libraries}}": "\n".join(
            f'<script type="text/plain" id="library-{name}">{_read(f"vendor/{name}")}</script>' for name in LIBRARIES
        ),
        "{{data}}": "\n".join(scripts),
        "{{js}}": programs,
    }
    template = _read("page.html")
    marks = re.compile("|".join(map(re.escape, parts)))
    found = marks.findall(template)
    assert sorted(found) == sorted(parts), f"page.html must contain each mark once; it contains {found}"
    return marks.sub(lambda mark: parts[mark[0]], template)  # in one pass, because inserted text may contain marks


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
