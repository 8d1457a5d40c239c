from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from tasks import BadRow, Problem, Task, TaskError
from tasks.arithmetic import FAMILIES
from tasks.registry import get_task
from tasks.validate import validate_task


def write(path: Path, rows: list[dict[str, object]]) -> str:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


ROWS: list[dict[str, object]] = [{"problem": f"{n}+1?\u2028go", "answer": str(n + 1), "kind": "sum"} for n in range(20)]


def columns(path: str, **options: object):
    chosen = {"verifier": "math", "prompt_column": "problem", "reference_column": "answer", **options}
    return get_task("dataset", path=path, **chosen)  # pyright: ignore


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_arithmetic_demonstration_is_graded_correct(family: str, split: str) -> None:
    task = get_task("arithmetic", family=family, digits=2, train_size=300, test_size=100)
    found = validate_task(task, split)
    assert found.total >= 100 if split == "train" else found.total >= 9
    assert not found.faults


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_countdown_problem_is_solvable_by_its_own_demonstration(split: str) -> None:
    found = validate_task(get_task("countdown", train_size=100, test_size=50), split)
    assert found.total
    assert not found.faults


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("two_steps", [0, 0.25, 1])
def test_every_word_problem_is_right_by_its_own_demonstration(two_steps: float, split: str) -> None:
    task = get_task("word_problems", two_steps=two_steps, train_size=300, test_size=100)
    problems = task.problems(split)
    assert not validate_task(task, split).faults
    assert len({problem.prompt for problem in problems}) == len(problems) == {"train": 300, "test": 100}[split]
    assert sum(problem.difficulty or 0 for problem in problems) / len(problems) == pytest.approx(two_steps, abs=0.1)
    for problem in problems:
        *_, answer = re.findall(r"= (\d+)\.", problem.demonstration or "")
        assert answer == problem.reference
        for left, sign, right, result in re.findall(r"(\d+) ([+*/-]) (\d+) = (\d+)", problem.demonstration or ""):
            a, b = int(left), int(right)
            assert int(result) == {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]


def test_word_problems_do_not_move_between_splits() -> None:
    first, second = (get_task("word_problems", seed=seed) for seed in (0, 1))
    assert not {p.prompt for p in first.problems("train")} & {p.prompt for p in second.problems("test")}
    with pytest.raises(TaskError, match="two_steps is a share"):
        get_task("word_problems", two_steps=3)


def test_splits_of_arithmetic_do_not_meet_and_do_not_depend_on_the_seed() -> None:
    first, second = (get_task("arithmetic", digits=2, seed=seed) for seed in (0, 1))
    train = {problem.prompt for problem in first.problems("train")}
    assert not train & {problem.prompt for problem in second.problems("test")}


def test_a_single_file_is_split_by_prompt(tmp_path: Path) -> None:
    task = columns(write(tmp_path / "rows.jsonl", ROWS))
    train, test = task.problems("train"), task.problems("test")
    assert (len(train), len(test)) == (17, 3)
    assert {problem.id.partition("/")[0] for problem in test} == {"test"}
    assert "\u2028" in train[0].prompt


def test_a_folder_has_a_file_per_split(tmp_path: Path) -> None:
    write(tmp_path / "mine_train.jsonl.gz", ROWS)
    write(tmp_path / "validation.jsonl", ROWS[:3])
    task = columns(str(tmp_path), split_names={"test": "validation"})
    assert (len(task.problems("train")), len(task.problems("test"))) == (20, 3)


def test_parquet_and_json(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "train.parquet")
    (tmp_path / "test.json").write_text(json.dumps(ROWS[:4]))
    task = columns(str(tmp_path))
    assert (len(task.problems("train")), len(task.problems("test"))) == (20, 4)


def test_further_columns_reach_the_verifier(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{**row, "unit": "cm", "weight": None} for row in ROWS])
    first = columns(path, info_columns=["unit", "weight"]).problems("train")[0]
    assert first.info == {"unit": "cm", "weight": None}
    with pytest.raises(TaskError, match=r"line 1: has no column 'units'.*Set task.options.info_columns"):
        columns(path, info_columns=["units"]).problems("train")


def test_the_verifier_of_a_row_is_known_before_anything_is_graded(tmp_path: Path) -> None:
    rows = [{**row, "by": "exact" if n % 2 else None} for n, row in enumerate(ROWS)]
    path = write(tmp_path / "rows.jsonl", rows)
    assert [p.verifier for p in columns(path, verifier_column="by").problems("train")[:2]] == ["math", "exact"]
    with pytest.raises(TaskError, match=r"no row has column 'source'.*Set task.options.verifier_column"):
        columns(path, verifier_column="source").problems("train")
    rows[3]["by"] = "maths"
    write(tmp_path / "rows.jsonl", rows)
    bad = [one for one in columns(path, verifier_column="by").each("train") if isinstance(one, BadRow)]
    assert [row.where.rpartition("/")[2] for row in bad] == ["rows.jsonl line 4"]
    assert "column 'by': no verifier named 'maths'. Did you mean 'math'" in bad[0].reason


def test_a_row_names_no_code(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def right(*, completion, reference):\n    return True\n")
    name = f"{tmp_path / 'own.py'}:right"
    path = write(tmp_path / "rows.jsonl", [{**row, "by": name} for row in ROWS])
    with pytest.raises(TaskError, match=r"line 1: column 'by': a row's own verifier must be .*allow_row_code: true"):
        columns(path, verifier_column="by").problems("train")
    assert columns(path, verifier_column="by", allow_row_code=True).problems("train")[0].verifier == name
    assert columns(path, verifier_column="by", verifier=name).problems("train")[0].verifier == name


def test_chat_messages_and_templates(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"chat": [{"role": "user", "content": "2+2?"}], "answer": "4"}] * 10
    path = write(tmp_path / "rows.jsonl", rows)
    assert columns(path, prompt_column="chat").problems("train")[0].prompt == ({"role": "user", "content": "2+2?"},)
    path = write(tmp_path / "other.jsonl", ROWS)
    assert columns(path, template="Q: {problem} A:").problems("train")[0].prompt == "Q: 0+1?\u2028go A:"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prompt_column": "question"},
            "has no column 'question'. It has: problem, answer, kind. Set task.options.prompt_column",
        ),
        ({"template": "{question}"}, "template '{question}' cannot be filled"),
        ({"template": "{problem.text}"}, "template '{problem.text}' cannot be filled"),
        ({"template": "{problem[text]}"}, "template '{problem[text]}' cannot be filled"),
        ({"template": 5}, "option 'template': Input should be a valid string; got '5'"),
        ({"path": 5}, "option 'path'"),
        ({"split_names": ["x"]}, "option 'split_names': Input should be an object"),
        ({"path": "./nothing.jsonl"}, "there is no file or folder"),
        (
            {"promt_column": "x"},
            "unknown option 'promt_column'. Did you mean 'prompt_column'? It takes: path, verifier",
        ),
    ],
)
def test_bad_options_say_what_to_do(tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(TaskError) as caught:
        columns(**{"path": path, **options}).problems("train")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b"{\n", "line 1: must be JSON"),
        ("rows.jsonl", b"3\n", "line 1: must be a JSON object; got int"),
        (
            "rows.jsonl",
            b'{"a": 1}\n{"problem": "\\ud800", "answer": "1"}\n',
            r"line 2: contains '\\ud800', half of a surrogate",
        ),
        ("rows.jsonl", b'{"a": 1}\n{"problem": "\xe9"}\n', "line 2: must be JSON in UTF-8: .*can't decode byte 0xe9"),
        ("rows.jsonl", b"[" * 100_000, "must be JSON: entry 1 is not .nests more than 200 deep"),
        ("rows.jsonl", b'{"a": 1}\n' + b"[" * 100_000, "line 2: must be JSON in UTF-8: maximum recursion"),
        ("rows.jsonl.gz", b'{"a": 1}\n', "is named .gz but is not compressed so"),
        ("rows.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:30], "cannot be read: .*ended before"),
        ("rows.parquet", b"PAR1 is not enough", "cannot be read: .*Parquet"),
        ("rows.parquet", b"", "cannot be read: .*Parquet"),
        ("rows.json", b'[{"problem": "\\ud800"}]', "row 1: contains"),
        ("rows.json", b"\xff", "must be JSON"),
        ("rows.json", b"{}", "line 1: has no column 'problem'. It has: none"),
        ("rows.jsonl", b"\n", "must have at least one row; it has none"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=message) as caught:
        columns(str(tmp_path / name)).problems("train")
    assert str(tmp_path / name) in str(caught.value)


def test_gsm8k_names_a_missing_column(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k_train.jsonl", [{"problem": "x", "answer": "#### 1"}])
    with pytest.raises(TaskError, match=r"must have columns question and answer; it lacks question \(it has: problem"):
        get_task("gsm8k", path=str(tmp_path)).problems("train")


def test_unknown_task_suggests_the_closest() -> None:
    with pytest.raises(TaskError, match="Did you mean 'gsm8k'"):
        get_task("gsm8")


@pytest.mark.parametrize(("split", "size"), [("train", 7473), ("test", 1319)])
def test_gsm8k_in_full(data_dir: Path, split: str, size: int) -> None:
    """Every reference answer is usable, and the worked solution of every problem is graded correct."""
    found = validate_task(get_task("gsm8k", path=str(data_dir / "math")), split)
    assert found.total == size
    assert not found.faults


class Careless(Task):
    """Two problems of one id, and one without a prompt."""

    def problems(self, split: str) -> list[Problem]:
        ids, prompts = ("a", "b", "a", "c"), ("1+1?", "2+2?", "3+3?", " ")
        return [Problem(id=i, prompt=p, reference="2", verifier="math") for i, p in zip(ids, prompts, strict=True)]


def test_validation_names_both_problems_of_an_id_and_an_empty_prompt() -> None:
    found = validate_task(Careless(), "train")
    assert found.faults == ["a: problems 0 and 2 have this id: give each row one of its own", "c: its prompt is empty"]
    assert found.accepted == 2


class Statements(Task):
    """References of which two are graded in a surprising way, and one has no value."""

    def problems(self, split: str) -> list[Problem]:
        golds = ("2", "\\log_2 8 = 3", "\\boxed{1} and \\boxed{2}", "\\frac{1}{0}")
        return [Problem(id=str(n), prompt=f"{n}?", reference=gold, verifier="math") for n, gold in enumerate(golds)]


def test_validation_says_what_golds_are_graded_as() -> None:
    found = validate_task(Statements(), "train")
    assert found.accepted == 3
    assert found.faults[0].startswith("3: reference must have a value")
    assert [note[:2] for note in found.notes] == ["1:", "2:"]
    assert "statement about numbers" in found.notes[0]
    assert "one list of 2 answers" in found.notes[1]
