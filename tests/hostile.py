"""Texts that a terminal would obey or hide, for use as completions, prompts, reasons, ids and file names."""

from __future__ import annotations

import re

HOSTILE = {
    "clipboard": "\x1b]52;c;QUJD\x07",
    "title": "\x1b]0;owned\x1b\\",
    "clear": "\x1b[2J\x1b[H",
    "colour": "\x1b[38;5;123m",
    "link": "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "device": "\x1bP+q544e\x1b\\\x1b[6n\x1b[c",
    "two bytes": "\x1bc\x1b7\x1b(0",
    "C1": "\x9b31m\x9d0;owned\x9c\x85\x90",
    "bells and backs": "\x07\x08\x08\x0b\x0c\x0e\x0f\x7f\x00",
    "return": "right\rwrong",
    "overrides": "\u202eevil\u202c\u2066x\u2069\u200e\u200f\u061c",
    "separators": "a\u2028b\u2029c",
    "no width": "a\u200bb\ufeffc\xadd\u2060e",
    "tags": "".join(chr(0xE0000 + ord(char)) for char in "obey") + "\U000e0100",
    "private": "\ue0b0\U000f0000",
    "half": "\ud800 and \udfff",
    "markup": "[bold red]x[/] [link=http://evil.example]y[/link] :warning:",
}
"""Name -> text."""
ALL = " ".join(HOSTILE.values())
WRITABLE = ALL.encode("utf-8", "replace").decode()
"""The same without lone halves of surrogate pairs, which no file of rows can contain."""
NAMED = ("clipboard", "title", "clear", "colour", "C1", "return", "overrides", "separators", "tags")
NAMEABLE = " ".join(HOSTILE[name] for name in NAMED) + " [bold red]x[link=http:y]:warning:"
"""Texts that can be file names."""
FINE = [
    "plain text, 2 < 3, x\ty\nnext line",
    "naïve café – “quotes” … €",
    "中文，答案是：四十二。日本語 한국어",
    "می\u200cخواهم",  # Persian needs the joiner
    "क्\u200dष हिन्दी",
    "👨\u200d👩\u200d👧 ❤\ufe0f 🏳\ufe0f\u200d🌈",
    "עברית العربية",
    r"\frac{1}{2} \x1b C:\new\table",
    "[bold] is no markup here, :warning: no emoji",
    "e\u0301 ﷽ 𝔸 ∀x∈ℝ",
]
"""Texts that are shown as they are."""
OURS = re.compile(
    r"\x1b\[(?:\d{1,2}(?:;\d{1,2})*)?m|\x1b\[\?25[lh]|\x1b\[\d*A|\x1b\[2K|\r(?=\x1b\[(?:2K|\d*A)|[\r\n]|$)"
)
"""Sequences sent by our own consoles: 16 colours, hiding and showing the cursor, up, erasing a line, its start."""


def obeyed(shown: str) -> list[str]:
    """Return everything in a terminal's input that it would obey or hide, except our own sequences."""
    rest = OURS.sub("", shown)
    return re.findall(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
        "\ud800-\uf8ff\U000e0000-\U000e0fff\U000f0000-\U0010ffff]",
        rest,
    )
