r"""Sanitizing of untrusted text, so that it can be written as UTF-8 and shown on a terminal.

Completions, prompts, reasons, ids and file names can contain any character. Two kinds do harm: unpaired surrogates,
which no UTF-8 file can contain, and characters that a terminal interprets or hides instead of showing them.
"""

from __future__ import annotations

import re

SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 except tab and line break, DEL, C1: terminal controls
    "\xad\u200b\u2060-\u206f\ufeff\ufff9-\ufffb"  # zero width; the joiners of Persian, Hindi and emoji are kept
    "\u061c\u200e\u200f\u202a-\u202e\u180e"  # text direction: the displayed order is not the stored one
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\uf8ff"  # surrogates, private use
    "\ufffe\uffff\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff"  # noncharacters, tags, private use
)
_HIDDEN = re.compile(f"[{HIDDEN}]")
_BREAKING = re.compile(f"[{HIDDEN}\t\n]")


def whole(text: str) -> str:
    r"""Return text that UTF-8 can encode: surrogate pairs become their character, single surrogates U+FFFD.

    Example:
        >>> ascii(whole("a\ud800b")), ascii(whole("\ud83d\ude00"))
        ("'a\\ufffdb'", "'\\U0001f600'")
    """
    if text.isascii() or text.isprintable() or SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def visible(text: str) -> str:
    r"""Return text that is safe to print: characters that a terminal interprets or hides are written as escapes.

    Line breaks and tabs stay. Applying it twice gives the same as once.

    Example:
        >>> visible("a\x1b[2Jb\n\u202ec")
        'a\\x1b[2Jb\n\\u202ec'
    """
    return text if _harmless(text) else _HIDDEN.sub(_spelt, text)


def one_line(text: str) -> str:
    r"""Return text that is safe to print on one line (names, ids, reasons): `visible`, and tabs and breaks escaped.

    Example:
        >>> one_line("right\nerror: wrong")
        'right\\nerror: wrong'
    """
    return text if _harmless(text) else _BREAKING.sub(_spelt, text)


def _harmless(text: str) -> bool:
    """Return True if all characters are printable and in the basic plane: a quick test that nothing needs an escape."""
    return text.isprintable() and (text.isascii() or len(text.encode("utf-16-le")) == 2 * len(text))


def _spelt(found: re.Match[str]) -> str:
    char = found.group()
    number = ord(char)
    if char in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[char]
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def json_safe(text: str) -> str:
    r"""Escape the terminal's control and hidden characters in a JSON text; the JSON value stays the same.

    Example:
        >>> json_safe('{"a": "\x9b"}')
        '{"a": "\\u009b"}'
    """
    return text if _harmless(text) else _HIDDEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    units = found.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


__all__ = ["json_safe", "one_line", "visible", "whole"]
