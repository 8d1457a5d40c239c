"""A run over somebody else's data, watched on a real terminal: planned, measured, trained, evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.hostile import HOSTILE, NAMEABLE, WRITABLE, obeyed
from tests.unit.reasoner.cli.test_hostile_text import shown_on_terminal
from verifiers.jsonl import read_jsonl

pytestmark = pytest.mark.integration
SMALL = {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 1, "max_positions": 2048}}
GRADER = f"""
from verifiers import Outcome, Verifier
from verifiers.verdict import fixed
class hostile(Verifier):
    name = "hostile"
    def grade(self, row):
        bad = {WRITABLE!r} + "\\ud800"
        return fixed(Outcome.CORRECT if len(row.completion) % 2 else Outcome.NO_ANSWER, bad, answer=bad, **{{bad: bad}})
"""


def test_a_run_shows_what_it_reads_and_obeys_none_of_it(tmp_path: Path) -> None:
    rows = [{"id": f"{WRITABLE} {n}", "prompt": f"{WRITABLE} {n}?", "reference": WRITABLE} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "grader.py").write_text(GRADER)
    grader = f"{tmp_path}/grader.py:hostile"
    config = {
        "name": "hostile",
        "label": "hostile",
        "output": str(tmp_path / NAMEABLE),
        "steps": 2,
        "task": {"name": "dataset", "options": {"path": str(tmp_path / "rows.jsonl"), "verifier": grader}},
        "prompt": {"chat": "never"},
        "model": SMALL,
        "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 8},
        "engine": {"name": "hf"},
        "eval": {"problems": 2},
        "checkpoint": {"every": 2},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    commands = [
        ["train", "config.yaml", "--dry-run"],
        ["train", "config.yaml"],
        ["train", "config.yaml"],  # there already
        ["explain", NAMEABLE],
        ["rescore", NAMEABLE],
        ["compare", f"{NAMEABLE}@0", NAMEABLE],
        ["report", NAMEABLE],
    ]
    said = [shown_on_terminal(tmp_path, [one], keys=b"b", when=b"best rollout")[0] for one in commands]
    for command, shown in zip(commands, said, strict=True):
        assert not obeyed(shown), (command, ascii(shown))
        assert HOSTILE["colour"] not in shown
        assert "Traceback" not in shown, (command, shown)
    assert "exists already" in said[2]
    found = [row for _, row in read_jsonl(tmp_path / NAMEABLE / "rollouts.jsonl")]
    assert len(found) == 8
    assert {json.dumps(row["reference"]) for row in found} == {json.dumps(WRITABLE)}
