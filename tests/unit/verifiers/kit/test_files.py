"""`reasoner verify` on files: order, malformed rows, resume, parquet; exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasoner.cli import app
from verifiers.kit.files import FileError, graded_before

ROWS = [
    {"id": "a", "completion": "#### 1", "reference": "1"},
    {"id": "b", "completion": "#### 2", "reference": "1"},
    {"id": "c", "completion": "#### 3", "reference": ""},
    {"id": "d", "completion": "\ud800 #### 4", "reference": "4"},
    {"id": "e", "completion": "#### 5", "reference": "5", "verifier": "numeric"},
    {"id": "f", "completion": "#### 6", "reference": "6", "verifier": "no-such"},
]
OUTCOMES = ["correct", "incorrect", "bad_reference", "correct", "correct", "verifier_error"]


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["verify", *arguments])
    return done.exit_code, done.stdout, done.stderr


def write(path: Path, rows: list[object]) -> str:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def test_rows_are_graded_in_order_and_what_cannot_be_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [*ROWS[:2], "{broken\n", "\n", *ROWS[2:], '{"id": "g"}\n', "[1]\n"])
    output = tmp_path / "verdicts.jsonl"
    code, said, _ = run(file, "--verifier", "exact", "--output", str(output))
    assert code == 3
    rows = read(output)
    assert [row["id"] for row in rows] == ["a", "b", "3", "c", "d", "e", "f", "g", "10"]
    assert [row["outcome"] for row in rows if row["outcome"] != "malformed"] == OUTCOMES
    assert "4 of 9 rows graded, 75.0% correct [30.1%, 95.4%]" in said  # Wilson's interval of 3 of 4
    assert "line 3: must be JSON" in said
    assert "line 9: no column 'completion'; there are id (--column completion=NAME)" in said
    assert "line 10: must be a JSON object; got list" in said
    assert "not graded: 1 x verifier_error: no verifier named 'no-such'" in said
    assert "slowest: " in said


def test_a_column_of_another_name_is_said_once(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [{"output": {"text": "4"}, "gold": "4"}] * 3)
    code, said, _ = run(file, "--verifier", "exact", "--output", str(tmp_path / "out.jsonl"))
    assert code == 3
    fault = "no column 'completion'; there are output, gold (--column completion=NAME)"
    assert said == f"0 of 3 rows graded\nline 1: {fault} (and 2 lines more)\n"
    code, said, _ = run(
        file, "--verifier", "exact", "-c", "completion=output.text", "--output", str(tmp_path / "two.jsonl")
    )
    assert "line 1: no column 'reference'; there are output, gold (--column reference=NAME) (and 2 lines more)" in said


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [*ROWS, "broken\n"])
    whole, output = tmp_path / "whole.jsonl", tmp_path / "verdicts.jsonl"
    run(file, "--verifier", "exact", "--output", str(whole))
    lines = whole.read_bytes().split(b"\n")
    output.write_bytes(b"\n".join(lines[:3]) + b"\n" + lines[3][:20])  # killed in the middle of the fourth line
    code, _, error = run(file, "--verifier", "exact", "--output", str(output))
    assert code == 2
    assert "Pass --resume" in error
    code, said, _ = run(file, "--verifier", "exact", "--output", str(output), "--resume", "--json")
    assert code == 3
    strip = [{key: value for key, value in row.items() if key != "seconds"} for row in read(output)]
    assert strip == [{key: value for key, value in row.items() if key != "seconds"} for row in read(whole)]
    assert json.loads(said)["rows"] == 6
    other = write(tmp_path / "other.jsonl", ROWS[1:])
    code, _, error = run(other, "--verifier", "exact", "--output", str(output), "--resume")
    assert "must begin with the rows graded before; row 1 is 'b', was 'a'" in error
    (tmp_path / "notes.jsonl").write_text("not ours\n")
    with pytest.raises(FileError, match="must contain earlier verdicts"):
        graded_before(tmp_path / "notes.jsonl")


def test_standard_input_and_mapped_columns() -> None:
    text = json.dumps({"key": 7, "output": {"text": "#### 2"}, "gold": "2"}) + "\n"
    columns = ("-c", "id=key", "-c", "completion=output.text", "-c", "reference=gold")
    done = CliRunner().invoke(app, ["verify", "-", "--verifier", "exact", *columns], input=text)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["id"] == "7"
    assert "1 of 1 rows graded" in done.stderr


def test_parquet(tmp_path: Path) -> None:
    import datetime

    import pyarrow
    import pyarrow.parquet

    rows = [{"completion": f"#### {n}", "reference": str(n % 7), "day": datetime.date(2026, 1, 1)} for n in range(20)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    code, _, said = run(str(tmp_path / "rows.parquet"), "--verifier", "exact")
    assert (code, said.splitlines()[0].split(",")[0]) == (0, "20 of 20 rows graded")
    assert "35.0% correct" in said
    (tmp_path / "no.parquet").write_text("text")
    code, _, error = run(str(tmp_path / "no.parquet"), "--verifier", "exact")
    assert code == 2
    assert "cannot be read" in error


def test_one_answer_by_exit_status() -> None:
    given = ("--verifier", "exact", "--gold", "1", "--completion")
    assert run(*given, "#### 1")[0] == 0
    assert run(*given, "#### 2")[0] == 1
    assert run("--verifier", "numeric", "--gold", "one", "--completion", "#### 1")[0] == 3
    assert run("--verifier", "exat", "--gold", "1", "--completion", "1")[0] == 2
    model = '{"kind": "model", "formulas": ["p"]}'
    assert run("--verifier", "logic", "--gold", model, "--completion", "#### p=true")[0] == 0


def test_the_right_answer_counts_whatever_a_composed_reward_adds_up_to(tmp_path: Path) -> None:
    parts = ["exact", {"verifier": "format", "options": {"tags": ["think", "answer"]}}]
    chosen = ("--verifier", "weighted", "--option", f"parts={json.dumps(parts)}")
    right, wrong = "<answer>3</answer>", "<think>x</think><answer>4</answer>"
    file = write(tmp_path / "rows.jsonl", [{"completion": text, "reference": "3"} for text in (right, wrong)])
    _, said, _ = run(file, *chosen, "--output", str(tmp_path / "out.jsonl"))
    assert "2 of 2 rows graded, 50.0% correct" in said
    assert [row["reward"] for row in read(tmp_path / "out.jsonl")] == [1.0, 1.0]
    for text, status in ((right, 0), (wrong, 1)):
        code, said, _ = run(*chosen, "--gold", "3", "--completion", text)
        assert (code, "reward 1" in said) == (status, True)
