"""API keys: reading them, and masking them in every text that an endpoint sends back, in whatever form."""

from __future__ import annotations

import base64
import binascii
import html
import json
import os
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote_plus

from verifiers.judge.errors import JudgeFault

MASK = "[API key]"
WITHHELD = "[text withheld: it contains the API key in an encoded form]"
"""Replacement of a whole text from which the key cannot be cut out."""
PIECE = 8
"""Consecutive characters of a key that count as a part of it; for a shorter key, all of them."""
LEAST = 6
"""Minimum length of a secret key. Shorter ones (EMPTY, none) are placeholders and may occur in ordinary text."""
KEY = re.compile(r"[\x21-\x7e]+")
ENCODED = re.compile(r"[A-Za-z0-9+/_-]{8,}")
HEXADECIMAL = re.compile(r"(?:[0-9a-fA-F]{2}[\s:]?){6,}")
MOST = 20_000
"""Characters of a text that are searched for encoded forms of the key."""


def key_of(variable: str) -> str:
    """Return the key in an environment variable; empty if no variable is named.

    Raises:
        JudgeFault: the variable is not set, or its value cannot be sent in a header. The message does not show the key.
    """
    if not variable:
        return ""
    key = os.environ.get(variable, "")
    if not key:
        raise JudgeFault(f"environment variable {variable} must contain the API key; it is not set.")
    if not KEY.fullmatch(key):
        raise JudgeFault(
            f"environment variable {variable} must contain an API key of printable ASCII characters without spaces; it"
            " contains another character, such as a line break. Set it again."
        )
    return key


def without_key(text: str, key: str) -> str:
    """Return the text with the key, and parts of it, replaced by MASK.

    The whole text is replaced by WITHHELD if it contains the key in a form that cannot be cut out, such as base64 or
    reversed. A key shorter than LEAST is not masked.

    Example:
        >>> without_key("no such key: sk-0123456789", "sk-0123456789")
        'no such key: [API key]'
    """
    if len(key) < LEAST:
        return text
    for form in sorted({key, *_forms(key)}, key=len, reverse=True):
        text = text.replace(form, MASK)
    text = _pieces_masked(text, key)
    return WITHHELD if any(_holds(other, key) for other in _readings(text[:MOST])) else text


def _forms(key: str) -> Iterator[str]:
    """Yield the key as it is written in a URL, in JSON and in HTML."""
    yield from (quote(key, safe=""), quote(key), quote_plus(key), json.dumps(key)[1:-1], html.escape(key))


def _pieces_masked(text: str, key: str) -> str:
    """Mask parts of the key of at least PIECE characters."""
    size = min(PIECE, len(key))
    pieces = {key[at : at + size] for at in range(len(key) - size + 1)}
    if not any(piece in text for piece in pieces):
        return text
    covered = bytearray(len(text))
    for piece in pieces:
        at = text.find(piece)
        while at >= 0:
            covered[at : at + size] = b"\x01" * size
            at = text.find(piece, at + 1)
    return re.sub(
        "\x01+", MASK, "".join("\x01" if hidden else char for hidden, char in zip(covered, text, strict=True))
    )


def _holds(text: str, key: str) -> bool:
    size = min(PIECE, len(key))
    near, key = "".join(text.split()).casefold(), key.casefold()
    return any(key[at : at + size] in near for at in range(len(key) - size + 1))


def _readings(text: str) -> Iterator[str]:
    """Yield other readings of a text in which the key may hide.

    The text unescaped, reversed, with letters and digits only, and decoded from base64 and hexadecimal.
    """
    plain = text
    for _ in range(2):
        plain = re.sub(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})", _char, html.unescape(unquote_plus(plain)))
        yield plain.replace("\\", "")
    yield plain[::-1]
    yield re.sub(r"[^A-Za-z0-9]", "", plain) if len(plain) < MOST else ""
    for found in ENCODED.finditer(plain):
        run = found.group().replace("-", "+").replace("_", "/")
        for start in range(4):
            part = run[start : len(run) - (len(run) - start) % 4]
            yield base64.b64decode(part).decode("latin-1")
    for found in HEXADECIMAL.finditer(plain):
        digits = re.sub(r"[\s:]", "", found.group())
        for start in range(2):
            part = digits[start : len(digits) - (len(digits) - start) % 2]
            try:
                yield binascii.unhexlify(part).decode("latin-1")
            except binascii.Error:
                continue


def _char(found: re.Match[str]) -> str:
    return chr(int(found.group(1) or found.group(2), 16))


__all__ = ["key_of", "without_key"]
