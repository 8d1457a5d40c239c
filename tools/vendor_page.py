"""Fetch the libraries of our pages from npm, unchanged but for their notices: `python tools/vendor_page.py`.

KaTeX's style sheet gets its fonts as data, so that the page is one file: those of FONTS only; further ones (Fraktur,
sans serif, bold italics) are shown in the browser's own fonts.
"""

from __future__ import annotations

import base64
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[1] / "reasoner" / "web" / "vendor"
KATEX, HIGHLIGHT = "katex@0.19.1", "@highlightjs/cdn-assets@11.12.0"
FONTS = {
    *("AMS-Regular", "Caligraphic-Regular", "Main-Bold", "Main-Italic", "Main-Regular", "Math-Italic"),
    *("Script-Regular", "Size1-Regular", "Size2-Regular", "Size3-Regular", "Size4-Regular", "Typewriter-Regular"),
}


def unpacked(package: str, folder: Path) -> Path:
    """Download a package with npm; return the folder of its files."""
    done = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True)
    target = folder / package.replace("/", "-").replace("@", "_")
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        archive.extractall(target, filter="data")
    return target / "package"


def notice(name: str, package: str, file: str, changed: str, licence: Path) -> str:
    """Return the comment above a library: where it is from, and its licence."""
    text = licence.read_text(encoding="utf-8").strip().replace("*/", "* /")
    return f"/* {name}, npm package {package}, {file}, {changed} below this notice\n\n{text}\n*/\n"


def with_fonts(css: str, folder: Path) -> str:
    """Return the style sheet with the fonts of FONTS as data, and without the others."""

    def face(found: re.Match[str]) -> str:
        name = re.search(r"url\(fonts/KaTeX_([^)]*)\.woff2\)", found[0])
        if name is None or name[1] not in FONTS:
            return ""
        data = base64.b64encode((folder / f"KaTeX_{name[1]}.woff2").read_bytes()).decode()
        return re.sub(r"src:[^;}]*", f"src:url(data:font/woff2;base64,{data}) format('woff2')", found[0])

    return re.sub(r"@font-face\{[^}]*\}", face, css)


def main() -> None:
    """Write the files."""
    with tempfile.TemporaryDirectory() as place:
        katex, highlight = unpacked(KATEX, Path(place)), unpacked(HIGHLIGHT, Path(place))
        licence = katex / "LICENSE"
        head = notice("KaTeX", KATEX, "dist/katex.min.js", "unchanged", licence)
        (VENDOR / "katex.min.js").write_text(head + (katex / "dist" / "katex.min.js").read_text(encoding="utf-8"))
        head = notice("KaTeX", KATEX, "dist/katex.min.css", "some fonts as data, the others left out,", licence)
        css = (katex / "dist" / "katex.min.css").read_text(encoding="utf-8")
        (VENDOR / "katex.min.css").write_text(head + with_fonts(css, katex / "dist" / "fonts"))
        head = notice("highlight.js", HIGHLIGHT, "highlight.min.js", "unchanged", highlight / "LICENSE")
        (VENDOR / "highlight.min.js").write_text(head + (highlight / "highlight.min.js").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
