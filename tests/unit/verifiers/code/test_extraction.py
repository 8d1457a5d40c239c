"""The program in a completion, as models write it: 130 completions, half of them near misses."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from verifiers.code.answers import extract_program, fenced_blocks
from verifiers.code.choice import look
from verifiers.code.fences import language_name

CASES = Path(__file__).parents[3] / "cases" / "code_completions.jsonl"
ROWS = [json.loads(line) for line in CASES.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['kind']}: {row['id']}" for row in ROWS])
def test_program(row: dict[str, object]) -> None:
    wanted = row.get("wanted", [])
    assert isinstance(wanted, list)
    found = extract_program(
        str(row["completion"]), str(row.get("block", "last")), {*wanted}, reads=row.get("reads") is True
    )
    assert found == row["program"]


def test_lines_that_end_as_on_windows() -> None:
    text = "Answer: ```python\r\nprint(input())\r\n```\r\n"
    assert extract_program(text, "last", reads=True) == "print(input())\r\n"


@pytest.mark.parametrize(
    ("info", "name"),
    [
        ("Python", "python"),
        ("c++20 title=x", "c++"),
        ("{.cpp}", "cpp"),
        ("python3.12", "python"),
        ("python2", "python2"),
    ],
)
def test_the_language_that_a_fence_names(info: str, name: str) -> None:
    assert language_name(info) == name


def test_names_that_a_block_lacks() -> None:
    piece = look(
        "import math\nK = 1\ndef f(x):\n    global G\n    G = 2\n    return [g(y) for y in x] + [K, math, len, G]\n"
    )
    assert piece.uses == {"g"}
    assert {"math", "K", "f", "G"} <= piece.defines
    assert not piece.runs


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = '''\n```\n" * 2_000,
        "```python\n'''\n" * 5_000,
        "Answer: ```python " * 10_000,
        "> ```python\n> x\n" * 5_000,
        "```python\ndef f(x):\n    return g(x)\n```\n" * 2_000,
        "```python\n" + "(" * 100_000 + "\n```\n<think>",
        "```python\n#" + "`" * 100_000,
        "a ``` b " * 50_000 + "\n",
        "<think>```python\n'<think>'\n```\n" * 2_000,
    ],
)
def test_extraction_takes_little_time_for_hostile_text(text: str) -> None:
    started = time.process_time()
    extract_program(text, "last", {"f"})
    extract_program(text, "last", reads=True)
    fenced_blocks(text)
    assert time.process_time() - started < 5
