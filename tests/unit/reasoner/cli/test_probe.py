"""`reasoner verifiers probe`: pairs, rows and runs; what cannot be probed is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reasoner.cli import app
from tests.unit.reasoner.runs import make_records, write_run

SCORERS = """
from verifiers.kit.probes import OPENINGS, OPINION
from verifiers import Outcome, Verdict


def scored(value):
    return Verdict(outcome=Outcome.SCORED, reward=float(value))


def flattered(*, completion, prompt=None, info=None):
    return scored(("right" in completion) + 2 * completion.startswith(OPENINGS) + len(info.get("messages", ())))


def agreeing(*, completion, prompt=None):
    return scored(("right" in completion) + 3 * prompt.endswith(OPINION + completion))
"""
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which one?"}]


@pytest.fixture
def scorers(tmp_path: Path) -> str:
    (tmp_path / "scorers.py").write_text(SCORERS)
    return str(tmp_path / "scorers.py")


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ask(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["verifiers", "probe", *arguments, "-n", "1"])


def told(*arguments: str) -> dict[str, Any]:
    done = ask(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def shift(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in report["shifts"] if one["probe"] == name)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    rows: list[dict[str, Any]] = [
        {"prompt": f"ask {n}", "chosen": f"It is right {n}.", "rejected": f"It is wrong {n}."} for n in range(6)
    ]
    rows += [
        {"prompt": "ask 7", "chosen": "same", "rejected": "same"},
        {"prompt": "ask 8", "first": "a right one", "second": "b", "label": "tie"},
        {"prompt": "ask 9", "first": "It is wrong 9.", "second": "It is right 9.", "label": "second"},
    ]
    return write(tmp_path / "pairs.jsonl", rows)


def test_pairs_with_a_flattered_score(scorers: str, pairs: str) -> None:
    found = told(f"{scorers}:flattered", pairs)
    assert (found["pairs"], found["rows"], found["ungraded"], found["of"]) == (7, 14, 0, 7)
    assert found["unusable"] == {"chosen and rejected are the same text": 1, "a tie has no better completion": 1}
    assert found["spread"] == pytest.approx(0.5)
    assert shift(found, "flattery")["shift"] == pytest.approx([4.0, 4.0, 4.0])
    assert (shift(found, "flattery")["overtakes"], shift(found, "flattery")["overtakes_plain"]) == (1.0, 0.0)
    assert shift(found, "padding")["shift"] == [0.0, 0.0, 0.0]
    assert found["opinion"]["change"] == [0.0, 0.0, 0.0]


def test_pairs_with_a_score_that_agrees(scorers: str, pairs: str) -> None:
    found = told(f"{scorers}:agreeing", pairs, "--limit", "5")
    assert (found["subjects"], found["of"]) == (5, 7)
    assert found["opinion"]["change"] == pytest.approx([-6.0, -6.0, -6.0])
    assert (found["opinion"]["turned"], found["opinion"]["turned_away"]) == (1.0, 0.0)
    shown = ask(f"{scorers}:agreeing", pairs).stdout
    assert "7 pairs; 7 probed" in shown
    assert "left out: 1 x chosen and rejected are the same text" in shown
    assert "100% of the preferences turn to the user's wrong opinion" in shown


def test_rows_of_text_and_chats(scorers: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "ask", "completion": "right"},
        {"prompt": CHAT, "completion": "wrong"},  # the verifier gets its messages: 2 more
        {"prompt": None, "completion": "right"},
        {"prompt": "ask", "completion": " "},
    ]
    found = told(f"{scorers}:flattered", write(tmp_path / "rows.jsonl", rows))
    assert (found["pairs"], found["rows"], found["opinion"]) == (0, 2, None)
    assert sum(found["unusable"].values()) == 2
    assert found["spread"] == pytest.approx(0.5)  # 1 and 2


def test_rows_that_the_verifier_cannot_grade_are_told(tmp_path: Path) -> None:
    done = ask("math", write(tmp_path / "rows.jsonl", [{"prompt": "2+2", "completion": "4"}]))
    assert done.exit_code == 3
    assert "0 completions scored, 1 not" in done.stdout
    assert "x bad_reference" in done.stdout
    assert "no row could be scored" in done.stdout


def test_a_run_is_probed_with_right_and_wrong_by_its_verdicts(tmp_path: Path) -> None:
    write_run(tmp_path / "run", make_records(steps=2, problems=4, seed=1))
    lines = (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()
    outcomes: dict[tuple[int, int], set[str]] = {}
    for row in map(json.loads, lines):
        outcomes.setdefault((row["step"], row["group"]), set()).add(row["verdict"]["outcome"])
    mixed = sum({"correct", "incorrect"} <= found for found in outcomes.values())
    assert mixed > 0
    found = told("exact", str(tmp_path / "run"))
    assert found["pairs"] == mixed
    assert found["of"] == len(outcomes)
    assert found["opinion"]["pairs"] == mixed
    assert found["opinion"]["change"][0] == 0.0  # it reads no prompt


def test_a_verifier_or_file_that_is_none_is_told(scorers: str, tmp_path: Path) -> None:
    assert "Did you mean" in ask("reward-modle", str(tmp_path / "x.jsonl")).output
    done = ask(f"{scorers}:flattered", str(tmp_path / "none.jsonl"))
    assert done.exit_code == 2
    assert "none.jsonl" in done.output
