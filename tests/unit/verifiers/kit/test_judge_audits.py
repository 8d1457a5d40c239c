"""Audits of judges from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reasoner.cli import app
from tests.unit.verifiers import scripted_judge as scripted
from tests.unit.verifiers.judge.test_pairwise import longer
from tests.unit.verifiers.scripted_judge import ScriptedJudge, Sent


def test_audits_from_the_command_line(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        if "<first-" in scripted.said_to(body):
            return longer(body, number)
        return scripted.level(body, int(len(scripted.data_of(body)) > 3))

    pairs = tmp_path / "pairs.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": "p", "first": "aa", "second": "a", "label": "first"},
        {"prompt": "p", "first": "aa", "second": "aaa", "label": 1},
        {"prompt": "p", "first": "aa", "second": "aaaa", "label": "A=B"},
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = tmp_path / "scores.jsonl"
    texts = [("long one", 1), ("no", 0), ("oh", 1), ("quite long", 1)]
    scores.write_text(
        "".join(json.dumps({"completion": t, "reference": {"question": "q"}, "human": s}) + "\n" for t, s in texts)
    )
    with ScriptedJudge(script) as server:
        options = [f"url={server.url}", "model=m", f"cache={tmp_path / 'cache'}"]
        given = [word for option in options for word in ("-o", option)]
        said = CliRunner().invoke(app, ["verifiers", "audit", "judge", str(pairs), "--json", *given])
        assert said.exit_code == 0, said.output
        found = json.loads(said.stdout)["judge"]
        assert found["against_labels"]["accuracy"][0] == pytest.approx(2 / 3)
        assert found["consistent"][0] == 1
        said = CliRunner().invoke(app, ["verifiers", "audit", "judge", str(scores), "-c", "score=human", *given])
        assert said.exit_code == 0, said.output
        assert "kappa_quadratic" in said.stdout
        assert "0.7500" in said.stdout
    judged = tmp_path / "judged.jsonl"
    judged.write_text(json.dumps({"pair_id": 1, "order": "BA", "label": "A>B", "judge_text": "[[B>A]]"}) + "\n")
    said = CliRunner().invoke(app, ["verifiers", "audit", "judgments", str(judged)])
    assert said.exit_code == 0, said.output
    assert "accuracy_swapped     1.0000" in said.stdout
    judged.write_text(json.dumps({"order": "AB", "label": "??", "judge_text": ""}) + "\n")
    said = CliRunner().invoke(app, ["verifiers", "audit", "judgments", str(judged)])
    assert said.exit_code != 0
    assert "row 1" in said.output
