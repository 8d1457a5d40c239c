"""`reasoner data check` and the same checks in `--dry-run`: counts, proposals and exit statuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from reasoner.cli import app
from tests.unit.test_floors import run_blocked

PROBLEMS = [
    {"question": f"Ann has {n} figs and buys {n + 1}. How many?", "answer": f"#### {2 * n + 1}"} for n in range(60)
]
CHATS = [
    {"messages": [{"role": "user", "content": f"hi {n}"}, {"role": "assistant", "content": f"hello {n}"}]}
    for n in range(30)
]
SUMS = [{"prompt": f"{n}?", "reference": "1"} for n in range(20)]
PAIRS = [{"prompt": f"hi {n}", "chosen": f"hello {n}", "rejected": "no"} for n in range(60)]
LABELLED = [{"prompt": f"hi {n}", "completion": f"hello {n}", "label": n % 2 == 0} for n in range(60)]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


def check(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["data", "check", *arguments])
    assert done.exit_code == status, (done.output, done.exception)
    return done.stdout


def found(*arguments: str, status: int = 0) -> dict[str, Any]:
    return json.loads(check(*arguments, "--json", status=status))


def test_problems_are_counted_over_all_rows(tmp_path: Path) -> None:
    rows: list[Any] = [*PROBLEMS, PROBLEMS[3], {**PROBLEMS[4], "answer": "#### 99"}, "{damaged\n"]
    rows += [{"question": "Six?\nAnswer: 6", "answer": "#### 6"}, {"question": "Two?", "answer": None}]
    report = found(write(tmp_path / "rows.jsonl", rows))["data"][0]
    train, test = (report["splits"][name] for name in ("train", "test"))
    assert report["for"] == "problems"
    assert train["rows"] + test["rows"] == len(rows)
    assert (train["bad"] + test["bad"], report["usable"]) == (3, True)
    assert (train["duplicates"] + test["duplicates"], train["contradictions"] + test["contradictions"]) == (1, 1)
    assert train["references"]["parsed"] + test["references"]["parsed"] == 62
    assert report["shared"]["equal"] == 0
    assert any("held out" in note for note in report["notes"])


def test_overlap_of_the_splits_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", PROBLEMS)
    write(tmp_path / "test.jsonl", [PROBLEMS[5], {"question": "A new one?", "answer": "#### 1"}])
    shared = found(str(tmp_path))["data"][0]["shared"]
    assert (shared["equal"], shared["examples"]) == (1, ["test/0"])


@pytest.mark.parametrize(
    ("rows", "use"), [(PROBLEMS, "problems"), (CHATS, "demonstrations"), (PAIRS, "preferences"), (LABELLED, "unpaired")]
)
def test_the_printed_config_works_as_printed(tmp_path: Path, rows: list[Any], use: str) -> None:
    path = write(tmp_path / "rows.jsonl", rows)
    text = check(path)
    assert f"recognised as {use}" in text
    assert "can be used" in text
    (tmp_path / "own.yaml").write_text(text.partition("\n\n")[2])
    report = found(str(tmp_path / "own.yaml"))["data"][0]
    assert (report["for"], report["usable"]) == (use, True)
    assert report["splits"] == found(path)["data"][0]["splits"]
    code = "import sys\nfrom reasoner.config.load import load_config\nfrom reasoner.stages.names import check_names\n"
    code += "from reasoner.config.stage import StageConfig\n"
    code += "stage = load_config('own.yaml').stages[0]\ncheck_names(stage, coming=None)\n"
    done = run_blocked(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_settings_are_of_the_section_that_reads_the_data(tmp_path: Path) -> None:
    rows = [{"q": {"text": f"{n}?"}, "a": str(n)} for n in range(30)]
    text = check(write(tmp_path / "rows.jsonl", rows), "prompt_column=q.text", "reference_column=a", "task.limit=20")
    section = yaml.safe_load(text.partition("\n\n")[2])["task"]
    assert section["options"]["prompt_column"] == "q.text"
    assert section["options"]["verifier"] == "math"
    assert section["limit"] == 20
    renamed = [{"ask": f"{n}?", "good": "yes", "bad": "no"} for n in range(30)]
    columns = ("columns.prompt=ask", "columns.chosen=good", "columns.rejected=bad")
    report = found(write(tmp_path / "pairs.jsonl", renamed), "--for", "preferences", *columns)
    assert report["data"][0]["splits"]["train"]["bad"] == 0


@pytest.mark.parametrize(
    ("rows", "arguments", "says"),
    [
        ([{"text": "x"}] * 20, (), "None is left"),
        ([*SUMS, *[{"prompt": "x?", "reference": None}] * 30], (), "of the data"),
        ([{"prompt": f"{n}?\n{n}", "reference": str(n)} for n in range(30)], (), "None is left"),
        ([*CHATS, {"messages": [{"role": "user", "content": "hi"}]}], ("bad_rows=stop",), "is 'stop'"),
    ],
)
def test_data_that_cannot_be_used_ends_with_status_1(
    tmp_path: Path, rows: list[Any], arguments: tuple[str, ...], says: str
) -> None:
    text = check(write(tmp_path / "rows.jsonl", rows), *arguments, status=1)
    assert "cannot be used" in text
    assert says in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gone.jsonl",), "no file or folder"),
        (("gone.yaml",), "no config"),
        (("rows.jsonl", "--for", "problem"), "Did you mean 'problems'"),
        (("rows.jsonl", "verifier=mth"), "Did you mean 'math'"),
        (("rows.jsonl", "promt_column=x", "verifier=math"), "Did you mean 'prompt_column'"),
        (("rows.jsonl", "verifier"), "must be key=value"),
    ],
)
def test_what_cannot_be_read_ends_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", PROBLEMS)
    done = CliRunner().invoke(app, ["data", "check", *arguments])
    assert done.exit_code == 2, done.output
    assert says in done.stderr


def test_every_bad_row_can_be_written(tmp_path: Path) -> None:
    rows = [*PROBLEMS, *[{"question": f"x{n}?", "answer": None} for n in range(20)]]
    check(write(tmp_path / "rows.jsonl", rows), "--bad-rows", str(tmp_path / "bad.tsv"))
    lines = (tmp_path / "bad.tsv").read_text().splitlines()
    assert [line.partition("\t")[0].rpartition(" ")[2] for line in lines] == [str(n) for n in range(61, 81)]


def test_a_dry_run_makes_the_same_checks_without_torch(tmp_path: Path) -> None:
    rows = [*PROBLEMS, *[{"question": f"x{n}?", "answer": None} for n in range(100)]]
    path = write(tmp_path / "rows.jsonl", rows)
    stage = {"method": "grpo", "model": "org/name", "task": {"name": "dataset"}}
    stage["task"]["options"] = {"path": path, "format": "gsm8k", "verifier": "math"}  # pyright: ignore
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(stage))
    code = (
        "import sys\nsys.argv = ['reasoner', 'train', 'own.yaml', '--dry-run']\nfrom reasoner.cli import main; main()"
    )
    done = run_blocked(code, tmp_path)
    assert done.returncode == 2, done.stderr
    lines = check(path, "format=gsm8k", "verifier=math", status=1).splitlines()
    shared = [line for line in lines if "rows, 1" in line or "reference answers" in line]
    assert len(shared) >= 2
    assert [line for line in shared if f"# {line}" not in done.stdout] == [], done.stderr
    assert "set task.bad_rows: drop_most" in done.stderr


def test_tokens_are_counted_where_a_tokenizer_is_given(tmp_path: Path) -> None:
    from reasoner.config.sections import ModelSection, ScratchConfig
    from reasoner.model.load import load_model

    model = ModelSection(from_scratch=ScratchConfig(hidden_size=16, layers=1, heads=1))
    _, tokenizer = load_model(model, seed=0)
    tokenizer.save_pretrained(tmp_path / "model")
    report = found(write(tmp_path / "rows.jsonl", PAIRS), "--tokenizer", str(tmp_path / "model"))["data"][0]
    tokens = report["tokens"]
    assert tokens["counted"] == report["splits"]["train"]["rows"]
    assert tokens["prompts"]["max"] < tokens["whole"]["max"]
    assert len(report["examples"]) == 5
