"""The guides (docs/*.md): every program runs, and every command parses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.reasoner.test_advice import command_fault
from tests.unit.verifiers.scripted_judge import ScriptedJudge, level
from verifiers.code.languages import language_named

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WHOLE = {("code", 1), ("environments", 0), ("environments", 1), ("math", 0), ("verifiers", 0), ("verifiers", 1)}
"""(page, number) of the Python blocks that run as they are."""
JUDGED = ("judges", 0)
"""The one that asks a judge's server."""
IN_A_SANDBOX = {("code", 0), ("sandbox", 0)}
"""Those that tests/integration/test_guides_in_sandbox.py runs."""
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


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "block.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "block.py"], cwd=folder, env=environment, capture_output=True, text=True)


def printed(program: str) -> list[str]:
    """Return what the page says that a program prints: the comments behind its calls of print."""
    return re.findall(r"^ *print\(.*\)  # (.*)$", program, re.MULTILINE)


def test_every_program_is_run() -> None:
    assert {key for page in PAGES for key in programs(page)} == WHOLE | {JUDGED} | IN_A_SANDBOX


@pytest.mark.parametrize(("page", "number"), sorted(WHOLE))
def test_a_program_runs_and_prints_what_the_page_says(page: str, number: int, tmp_path: Path) -> None:
    program = programs(ROOT / "docs" / f"{page}.md")[page, number]
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line for line in printed(program) if line not in done.stdout.splitlines()] == []


def test_the_program_with_a_judge_runs(tmp_path: Path) -> None:
    program = programs(ROOT / "docs" / "judges.md")[JUDGED]
    with ScriptedJudge(lambda body, _: level(body, 1, evidence="air scatters short waves most")) as server:
        done = run(program.replace("http://127.0.0.1:8000/v1", server.url), tmp_path)
    assert done.stdout.splitlines() == ["1.0 1.0", "air scatters short waves most"], done.stderr


def test_languages_of_a_config_are_languages() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "code.md").read_text(), re.MULTILINE | re.DOTALL)
    given = [
        yaml.safe_load(block)["task"]["options"].get("verifier_options", {}) for block in blocks if "languages" in block
    ]
    assert [language_named(one["language"], one["languages"]).file for one in given] == ["main.zig"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_guide_parses(page: Path) -> None:
    assert [f"{call}: {fault}" for call in calls(page) if (fault := command_fault(call))] == []


def test_calls_are_found_in_both_kinds_of_blocks() -> None:
    assert any(call.startswith("reasoner verify --verifier math") for call in calls(ROOT / "docs" / "verifiers.md"))
    assert any(call.startswith("reasoner train ppo_tiny") for call in calls(ROOT / "docs" / "rlhf.md"))
