r"""Foreign text: what makes it writable as UTF-8, and what makes it harmless on a terminal.

Completions, prompts, reasons, ids and file names hold any character at all. Two of their kinds do harm: half a
surrogate pair, which no UTF-8 file can hold, and what a terminal obeys or hides instead of showing it.
"""

from __future__ import annotations

import re

SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line break, DEL, C1: what terminals obey
    "\xad\u200b\u2060-\u206f\ufeff\ufff9-\ufffb"  # without width; the joiners of Persian, Hindi and emoji stay
    "\u061c\u200e\u200f\u202a-\u202e\u180e"  # directions: what is read is not what is there
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\uf8ff"  # surrogates, private use
    "\ufffe\uffff\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff"  # no characters, tags, private use
)
_HIDDEN = re.compile(f"[{HIDDEN}]")
_BREAKING = re.compile(f"[{HIDDEN}\t\n]")


def whole(text: str) -> str:
    r"""Text that UTF-8 can hold: two halves of a pair become its character, a half alone becomes U+FFFD.

    Example:
        >>> ascii(whole("a\ud800b")), ascii(whole("\ud83d\ude00"))
        ("'a\\ufffdb'", "'\\U0001f600'")
    """
    if text.isascii() or text.isprintable() or SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def visible(text: str) -> str:
    r"""Text of several lines as a terminal may be given it: whatever it would obey or hide is spelt out.

    Line breaks and tabs stay. What is visible already stays as it is, so that twice is as good as once.

    Example:
        >>> visible("a\x1b[2Jb\n\u202ec")
        'a\\x1b[2Jb\n\\u202ec'
    """
    return text if _harmless(text) else _HIDDEN.sub(_spelt, text)


def one_line(text: str) -> str:
    r"""Like `visible`, for what has to stay within its line: names, ids, reasons.

    Example:
        >>> one_line("right\nerror: wrong")
        'right\\nerror: wrong'
    """
    return text if _harmless(text) else _BREAKING.sub(_spelt, text)


def _harmless(text: str) -> bool:
    """Return True for a line of printable characters of the basic plane: nothing of it is hidden, and that is quick."""
    return text.isprintable() and (text.isascii() or len(text.encode("utf-16-le")) == 2 * len(text))


def _spelt(found: re.Match[str]) -> str:
    char = found.group()
    number = ord(char)
    if char in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[char]
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def json_safe(text: str) -> str:
    r"""A JSON text with everything hidden as an escape of JSON: the same value, and harmless on a terminal.

    Example:
        >>> json_safe('{"a": "\x9b"}')
        '{"a": "\\u009b"}'
    """
    return text if _harmless(text) else _HIDDEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    units = found.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


__all__ = ["json_safe", "one_line", "visible", "whole"]
