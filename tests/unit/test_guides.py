"""The guides (docs/*.md): programs that stand alone run, others import what is there, and every command parses."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.reasoner.test_advice import command_fault

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WHOLE = {("environments", 0), ("math", 0), ("verifiers", 0)}
"""(page, number) of the Python blocks that run as they are. The others are fragments, or need Docker or a model."""
FRAGMENTS = {
    ("code", 0),
    ("code", 1),
    ("code", 2),
    ("environments", 1),
    ("judges", 0),
    ("sandbox", 0),
    ("verifiers", 1),
}
PROGRAM = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"(?:^```(?:|bash|sh)\n(.*?)^```)|((?:^ {4}\S.*\n(?: {6}.*\n)*)+)", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"^ *(reasoner .*)$", re.MULTILINE)
OVERVIEW = " | "
"""In a line that lists commands instead of being one."""


def programs(page: Path) -> dict[tuple[str, int], str]:
    return {(page.stem, number): text for number, text in enumerate(PROGRAM.findall(page.read_text()))}


def calls(page: Path) -> list[str]:
    """Return the calls of `reasoner` in a page's blocks, without what is piped or explained behind them."""
    found = "\n".join("".join(pair) for pair in COMMANDS.findall(page.read_text()))
    lines = CALL.findall(re.sub(r"\s*\\\n\s*", " ", found))
    return [re.split(r"\s{2,}| [|>] | \.\.\.$", line)[0] for line in lines if OVERVIEW not in line]


def test_every_program_is_known_as_whole_or_as_a_fragment() -> None:
    assert {key for page in PAGES for key in programs(page)} == WHOLE | FRAGMENTS


@pytest.mark.parametrize(("page", "number"), sorted(WHOLE))
def test_a_whole_program_runs(page: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(programs(ROOT / "docs" / f"{page}.md")[page, number])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "block.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("page", "number"), sorted(FRAGMENTS))
def test_a_fragment_imports_what_is_there(page: str, number: int) -> None:
    tree = ast.parse(programs(ROOT / "docs" / f"{page}.md")[page, number])
    ours: list[ast.stmt] = [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module not in ("trl", "datasets")
    ]
    exec(compile(ast.Module(ours, []), page, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_guide_parses(page: Path) -> None:
    assert [f"{call}: {fault}" for call in calls(page) if (fault := command_fault(call))] == []


def test_calls_are_found_in_both_kinds_of_blocks() -> None:
    assert any(call.startswith("reasoner verify --verifier math") for call in calls(ROOT / "docs" / "verifiers.md"))
    assert any(call.startswith("reasoner train ppo_tiny") for call in calls(ROOT / "docs" / "rlhf.md"))
