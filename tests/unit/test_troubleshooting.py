"""docs/troubleshooting.md: every text that it quotes is a text of the source."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
QUOTED = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
FILLED = "\0"
"""Stands for what a message fills in."""


@cache
def messages() -> tuple[str, ...]:
    """Return all texts of the packages that can raise, with FILLED for what is filled in."""
    found: list[str] = []
    for package in ("reasoner", "verifiers", "tasks", "sandbox"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (str(one.value) if isinstance(one, ast.Constant) else FILLED for one in node.values)
                    found.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return tuple(found)


def is_of_the_source(quoted: str) -> bool:
    """Return True if one message has all pieces of a quoted text, in order, with something filled in between."""
    pattern = f"{FILLED}.*".join(re.escape(piece) for piece in quoted.strip("…").split("…"))
    return any(re.search(pattern, message, re.DOTALL) for message in messages())


def test_every_quoted_text_is_one_of_the_source() -> None:
    quoted = QUOTED.findall(PAGE.read_text())
    assert len(quoted) >= 40
    assert [text for text in quoted if not is_of_the_source(text)] == []


def test_a_text_that_no_message_has_is_found() -> None:
    assert is_of_the_source("no config …")
    assert not is_of_the_source("no such config …")
    assert not is_of_the_source("group_size must be … to centre rewards")
