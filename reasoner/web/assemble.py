"""A page as one HTML text: template, styles, libraries, programs and data."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARIES = ("katex.min.css", "katex.min.js", "highlight.min.js")
"""Libraries that are used when the first formula or program is shown, so that the page opens sooner."""
PROGRAMS = ("write", "render", "controls")
"""Files of `js/` that every page has, in the order in which they are read; a page's own files come after them."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; font-src data:"
"""Content security policy of a page from disk: it loads nothing and asks for nothing."""
LIVE_POLICY = POLICY + "; connect-src 'self'"
"""Content security policy of a page that a LocalServer sends: it asks that server alone."""


def assembled(
    folder: Path,
    title: str,
    *,
    programs: Sequence[str],
    parts: Mapping[str, str] | None = None,
    live: bool,
) -> str:
    """Return the page of `folder`: its page.html with page.css, its own programs, and what all pages share.

    Args:
        folder: place of page.html, page.css and js/.
        title: title of the window.
        programs: the page's own files of js/, in the order in which they are read.
        parts: further marks of page.html, such as "{{data}}", and what takes their places.
        live: True allows requests to the page's own server.
    """
    scripts = [*(HERE / "js" / f"{name}.js" for name in PROGRAMS), *(folder / "js" / f"{name}.js" for name in programs)]
    found = {
        "{{policy}}": LIVE_POLICY if live else POLICY,
        "{{title}}": html.escape(title),
        "{{css}}": _read(HERE / "base.css") + _read(folder / "page.css"),
        "{{libraries}}": "\n".join(
            f'<script type="text/plain" id="library-{name}">{_read(HERE / "vendor" / name)}</script>'
            for name in LIBRARIES
        ),
        "{{js}}": "\n".join(f"<script>{_read(script)}</script>" for script in scripts),
        **(parts or {}),
    }
    template = _read(folder / "page.html")
    marks = re.compile("|".join(map(re.escape, found)))
    named = marks.findall(template)
    assert sorted(named) == sorted(found), f"page.html must contain each mark once; it contains {named}"
    return marks.sub(lambda mark: found[mark[0]], template)  # in one pass, because inserted text may contain marks


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
