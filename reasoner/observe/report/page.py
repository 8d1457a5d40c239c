"""The page of runs: its own files and its data, on top of what all pages share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reasoner.web.assemble import assembled

HERE = Path(__file__).resolve().parent
PROGRAMS = (
    *("difference", "source", "columns"),
    *("runs", "overview", "curves", "rollouts", "sample", "problems", "pair", "transcripts", "page"),
)
"""Files of `js/` in the order in which they are read; a later one uses the names of earlier ones."""


def page_of(title: str, scripts: Sequence[str], *, live: bool = False) -> str:
    """Return the page.

    Args:
        title: title of the window.
        scripts: elements with data, or one that says that the data comes from the server.
        live: True allows requests to the page's own server.
    """
    parts = {
        "{{uplot_css}}": (HERE / "vendor" / "uPlot.min.css").read_text(encoding="utf-8"),
        "{{uplot_js}}": (HERE / "vendor" / "uPlot.iife.min.js").read_text(encoding="utf-8"),
        "{{data}}": "\n".join(scripts),
    }
    return assembled(HERE, title, programs=PROGRAMS, parts=parts, live=live)
