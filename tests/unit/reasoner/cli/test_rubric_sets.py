"""Rubric sets through `reasoner data check` and `reasoner verify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasoner.cli import app
from tests.unit.tasks.inputs.test_rubric_formats import HEALTH, written
from tests.unit.verifiers import scripted_judge as scripted
from tests.unit.verifiers.scripted_judge import ScriptedJudge


def test_data_check_recognises_them_and_proposes_a_judge_to_fill_in(tmp_path: Path) -> None:
    path = written(tmp_path, "jsonl", HEALTH * 3)
    found = CliRunner().invoke(app, ["data", "check", str(path), "--json"])
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert "format healthbench" in said["recognised"]
    assert said["usable"] is True
    shown = CliRunner().invoke(app, ["data", "check", str(path)])
    assert "verifier: rubric" in shown.stdout
    assert "NAME_OF_THE_JUDGE" in shown.stdout


def test_verify_grades_completions_beside_them_with_the_whole_chat_shown(tmp_path: Path) -> None:
    rows = [
        {**HEALTH[0], "completion": text} for text in ("Cool it under water.", "Butter!", "Water, butter, how big?")
    ]
    true = {"Cool it under water.": (0,), "Butter!": (1,), "Water, butter, how big?": (0, 1, 2)}

    def script(body: scripted.Body, number: int) -> scripted.Sent:
        place = [one["criterion"] for one in HEALTH[0]["rubrics"]].index(scripted.statements(body)[0])
        return scripted.level(body, int(place in true[scripted.data_of(body)]))

    with ScriptedJudge(script) as server:
        options = {"url": server.url, "model": "m", "cache": str(tmp_path / "cache")}
        judge = json.dumps({"verifier": "judge", "options": options})
        output = tmp_path / "verdicts.jsonl"
        command = ["verify", str(written(tmp_path, "jsonl", rows)), "-v", "rubric", "-f", "healthbench"]
        done = CliRunner().invoke(app, [*command, "-o", f"judge={judge}", "--output", str(output), "-n", "1"])
        assert done.exit_code == 0, done.output
        shown = scripted.data_of(server.bodies[0], "prompt")
    found = [json.loads(line) for line in output.read_text().splitlines()]
    rewards = [(one.get("verdict") or one)["reward"] for one in found]
    assert rewards == [pytest.approx(0.7), 0.0, pytest.approx(0.4)]  # 7/10; -6/10 clipped; (7 - 6 + 3)/10
    assert shown == "user: I burnt my hand, 0.\n\nassistant: How badly?\n\nuser: There is a blister."
