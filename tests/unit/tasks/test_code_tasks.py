"""The tasks that ask for programs: rows, splits, prompts, and reference answers that their own verifier accepts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tasks import TaskError
from tasks.code_sets.mbpp_types import rebuilt
from tasks.registry import get_task
from tasks.validate import validate_task

HOST = {"sandbox": "unsafe-host"}

ROWS: dict[str, list[dict[str, object]]] = {
    "humaneval": [
        {
            "task_id": "HumanEval/7",
            "prompt": "def half(x):\n    return x / 2\n\n\ndef third(x):\n    '''A third.'''\n",
            "canonical_solution": "    return x / 3\n",
            "test": "def check(candidate):\n    assert candidate(6) == half(4)\n",
            "entry_point": "third",
        }
    ],
    "mbpp": [
        {
            "task_id": number,
            "text": "Write a function to add.",
            "code": "def sum(a, b):\r\n\treturn a + b",
            "test_list": ["assert sum(1, 2) == 3", "assert sum(2, 2) == 4"],
            "test_setup_code": "",
        }
        for number in (5, 11, 510, 511, 601, 974)
    ],
    "mbpp_plus": [
        {
            "task_id": "Mbpp/750",
            "prompt": "'''\nWrite a function to append a tuple to a list.\n'''",
            "entry_point": "join",
            "canonical_solution": "def join(xs, t):\n    assert type(t) is tuple\n    return [*xs, *t]",
            "base_input": [[[1], [2, 3]]],
            "plus_input": [[[], []]],
            "atol": 0,
            "assertion": "assert join([1], (2, 3)) == [1, 2, 3]",
        },
        {
            "task_id": 3,
            "prompt": "Write a function to halve.",
            "code": "def half(x):\n    return x / 2",
            "test_list": ["assert half(4) == 2"],
            "test": "import numpy\ninputs = [[3], [1.5]]\nresults = [1.5, 0.75]\n"
            "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(half(*inp), exp, 0)\n",
        },
    ],
    "cruxeval": [
        {"id": "sample_0", "code": "def f(a, b):\n    return (a, b)", "input": "1, [2]", "output": "(1, [2])"}
    ],
    "code_contests": [
        {"problem": "Add.", "tests": {"inputs": ["1 2\n"], "outputs": ["3\n"]}},
        {
            "name": "B",
            "description": "Add.",
            "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
            "private_tests": {"input": ["2 2\n"], "output": ["4\n"]},
            "generated_tests": {"input": [], "output": []},
        },
        {"problem": "None.", "tests": {"inputs": [], "outputs": []}},
    ],
}


def file_of(folder: Path, name: str) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
    return str(path)


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("humaneval", {}, {"test": 1}),
        ("mbpp", {}, {"train": 2, "test": 2, "validation": 1, "prompt": 1}),
        ("mbpp_plus", {}, {"test": 2}),
        ("cruxeval", {}, {"test": 1}),
        ("cruxeval", {"predict": "input"}, {"test": 1}),
        ("code_contests", {}, {"test": 2}),
        ("functions", {"demonstrations": "mixed", "train_size": 20, "test_size": 10}, {"train": 20, "test": 10}),
    ],
)
def test_every_gold_is_accepted(tmp_path: Path, name: str, options: dict[str, object], sizes: dict[str, int]) -> None:
    where = {"path": file_of(tmp_path, name)} if name in ROWS else {}
    task = get_task(name, **where, **options, verifier_options=HOST)  # pyright: ignore[reportArgumentType]
    for split, size in sizes.items():
        found = validate_task(task, split)
        assert (found.total, found.faults) == (size, [])


def test_what_the_prompts_show(tmp_path: Path) -> None:
    mbpp = get_task("mbpp", path=file_of(tmp_path, "mbpp")).problems("train")[0]
    assert "assert sum(1, 2) == 3" in mbpp.prompt
    assert "assert sum(2, 2) == 4" not in mbpp.prompt
    assert mbpp.id == "mbpp/601"
    assert mbpp.reference == {
        "tests": ["assert sum(1, 2) == 3", "assert sum(2, 2) == 4"],
        "setup": "",
        "entry_point": "sum",
    }
    crux = get_task("cruxeval", path=file_of(tmp_path, "cruxeval")).problems("test")[0]
    assert "assert f(1, [2]) == ??" in crux.prompt
    assert "== (1, [2])" not in crux.prompt
    contest = get_task("code_contests", path=file_of(tmp_path, "code_contests"), max_cases=1).problems("test")[1]
    assert contest.reference == {
        "cases": [{"input": "1 2\n", "output": "3\n"}],
        "tolerance": {"absolute": math.nextafter(1e-5, 0), "integers": True},
    }
    assert contest.verifier_options == {"compare": "words", "any_case": True}


def test_splits_of_functions_do_not_meet_and_do_not_depend_on_the_seed() -> None:
    first, second = (get_task("functions", steps=2, largest=9, seed=seed, train_size=2000) for seed in (0, 1))
    assert not {p.id for p in first.problems("train")} & {p.id for p in second.problems("test")}


@pytest.mark.parametrize(
    ("task_id", "given", "made"),
    [
        (1, [[1], 2], [[1], 2]),
        (2, [[1, 2], [3]], [(1, 2), (3,)]),
        (63, [[[1, 2], [3, 4]]], [[(1, 2), (3, 4)]]),
        (75, [[[1, 2]], 3], [[(1, 2)], 3]),
        (106, [[1], [2]], [[1], (2,)]),
        (250, [[1, 2], 1], [(1, 2), 1]),
        (259, [[[1, 2]], [[3, 4]]], [((1, 2),), ((3, 4),)]),
        (278, [[1, [2, 3]]], [(1, (2, 3))]),
        (580, [[1, [2, [3]]]], [(1, (2, (3,)))]),
        (722, [{"a": [1, 2]}, 3], [{"a": (1, 2)}, 3]),
        (115, [[[], [1, 2], True]], [[{}, {1, 2}, {}]]),
        (124, ["0", "1j"], [0.0, 1j]),
        (252, ["1"], [1 + 0j]),
    ],
)
def test_mbpp_plus_arguments_have_the_types_that_json_lacks(
    task_id: int, given: list[object], made: list[object]
) -> None:
    found = rebuilt(task_id, given)
    assert found == made
    assert repr(found) == repr(made)


@pytest.mark.parametrize(
    ("name", "options", "split", "message"),
    [
        ("humaneval", {}, "train", "split of humaneval must be test; got 'train'"),
        ("mbpp", {"shown_tests": -1}, "test", "shown_tests must be at least 0"),
        ("cruxeval", {"predict": "code"}, "test", "predict must be output or input"),
        ("code_contests", {}, "train", "is one file, which is the test split"),
        ("mbpp", {"instruction": "Write."}, "test", "instruction must contain {problem}"),
        ("functions", {"steps": 1}, "test", "steps must be between 2 and 12"),
    ],
)
def test_bad_options_say_what_to_do(
    tmp_path: Path, name: str, options: dict[str, object], split: str, message: str
) -> None:
    where = {"path": file_of(tmp_path, name)} if name in ROWS else {}
    with pytest.raises(TaskError) as caught:
        get_task(name, **where, **options).problems(split)  # pyright: ignore[reportArgumentType]
    assert message in str(caught.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "x"}\n')
    with pytest.raises(TaskError, match=r"line 1: must have columns task_id, .* it lacks task_id and"):
        get_task("humaneval", path=str(tmp_path / "rows.jsonl")).problems("test")
