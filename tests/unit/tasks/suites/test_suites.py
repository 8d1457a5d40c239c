"""Evaluation sets by name: rows as published and as copied, their prompts, and their verifiers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tasks import Problem, TaskError
from tasks.bbh import SUBTASKS
from tasks.code_sets.examples import EXAMPLES
from tasks.registry import get_task
from tasks.suites import readers, task
from tasks.suites.suite import QUESTION
from tasks.suites.table import SUITES, difference_table, suite_named, table
from tasks.validate import validate_task
from verifiers import get_verifier

ROOT = Path(__file__).parents[4]
MATH = {"problem": "What is 7 times 6?", "answer": "42"}
MMLU = {"question": "Which is even?", "choices": ["1", "3", "4", "5"], "answer": 2, "subject": "abstract_algebra"}
GPQA = {
    "Question": "Which is prime?",
    "Correct Answer": "7",
    "Incorrect Answer 1": "8",
    "Incorrect Answer 2": "9",
    "Incorrect Answer 3": "10",
}
IFEVAL = {
    "key": 1,
    "prompt": "Write without commas.",
    "instruction_id_list": ["punctuation:no_comma"],
    "kwargs": [{"num_words": None}],
}
ROWS = {
    "math500": MATH,
    "aime24": {**MATH, "answer": "042"},
    "aime25": MATH,
    "amc23": {"question": "What is 7 times 6?", "answer": 42.0},
    "gpqa": GPQA,
    "minerva": {"problem": "What is 7 times 6?", "solution": "It is $\\boxed{42}$."},
    "olympiadbench": {"question": "Solve x^2 = 4.", "final_answer": ["$-2$", "$2$"], "is_multiple_answer": True},
    "gsm8k": EXAMPLES["mbpp"] | {"question": "7 times 6?", "answer": "7 times 6 is <<7*6=42>>42.\n#### 42"},
    "mmlu-stem": MMLU,
    "humaneval+": EXAMPLES["humaneval_plus"],
    "mbpp+": EXAMPLES["mbpp_plus"],
    "livecodebench": EXAMPLES["livecodebench"],
    "ifeval": IFEVAL,
    "bbh": {"task": "navigate", "input": "Do you return to the start?", "target": "Yes"},
}
RIGHT = {
    "gpqa": "Answer: LETTER",
    "mmlu-stem": "Answer: $C$",
    "olympiadbench": "So \\boxed{2, -2}.",
    "bbh": "So the answer is yes.",
}


def written(folder: Path, *rows: object) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "rows.jsonl")


def problems(name: str, path: str, **options: object) -> list[Problem]:
    return [*get_task("suite", suite=name, path=path, **options).problems("test")]  # type: ignore[arg-type]


def test_every_suite_has_a_row_here_and_a_definition_that_holds_together() -> None:
    assert [one.name for one in SUITES] == [*ROWS]
    for one in SUITES:
        assert one.prompt.count(QUESTION) == 1, one.name
        assert one.samples == 1 or one.temperature > 0, f"{one.name}: greedy completions are copies of each other"
        assert one.sources
        assert one.differs, f"{one.name}: no definition here is its source's in all"
        assert f"avg@{one.samples}" == one.metric or "avg@" not in one.metric


@pytest.mark.parametrize(
    "name", [name for name in ROWS if name not in ("humaneval+", "mbpp+", "livecodebench", "ifeval")]
)
def test_a_row_is_asked_as_the_suite_says_and_its_answer_is_right(tmp_path: Path, name: str) -> None:
    (problem,) = problems(name, written(tmp_path, ROWS[name]))
    suite, row = suite_named(name), ROWS[name]
    before, _, after = suite.prompt.partition(QUESTION)
    asked = next(str(row[key]) for key in ("problem", "question", "Question", "input") if key in row)
    assert str(problem.prompt).startswith(before + asked)
    assert str(problem.prompt).endswith(after)
    assert (problem.id, problem.task) == (f"{name}/0", name)
    verifier = get_verifier(problem.verifier, **problem.verifier_options)
    said = RIGHT.get(name, "So it is \\boxed{42}.").replace("LETTER", str(problem.reference))
    assert verifier.verify(completion=said, reference=problem.reference).right, said
    for wrong in ("So it is \\boxed{43}.", "Answer: E", "So the answer is no.", "I cannot say."):
        assert not verifier.verify(completion=wrong, reference=problem.reference).right, wrong


@pytest.mark.parametrize("name", ["humaneval+", "mbpp+", "livecodebench"])
def test_programs_are_asked_for_in_the_words_of_their_harness(tmp_path: Path, name: str) -> None:
    (problem,) = problems(name, written(tmp_path, ROWS[name]))
    assert (problem.verifier, dict(problem.verifier_options)) == ("code", dict(suite_named(name).options))
    words = {
        "humaneval+": "in a markdown code block:\n```python\ndef add(",
        "mbpp+": 'markdown code block:\n```\n"""\nAdd two integers.\nassert add(1, 2) == 3\n"""\n```',
        "livecodebench": "### Question:\nRead n and print 2n.\n\n### Format: Read the inputs from stdin",
    }
    assert words[name] in problem.prompt
    assert isinstance(problem.reference, dict)
    assert ("cases" in problem.reference) == (name == "livecodebench")


def test_the_prompt_of_released_rows_of_mbpp_plus_is_theirs(tmp_path: Path) -> None:
    words = '"""\nAdd two integers.\nassert add(1, 2) == 3\n"""'
    released = EXAMPLES["mbpp_plus"] | {"prompt": words + "\n"}
    copied = {key: value for key, value in EXAMPLES["mbpp_plus"].items() if key != "assertion"}
    copied["test_list"] = ["assert add(1, 2) == 3", "assert add(3, 4) == 7"]
    (first, second) = problems("mbpp+", written(tmp_path, released, copied))
    assert first.prompt == second.prompt
    assert f"```\n{words}\n```" in first.prompt
    bare = get_task("suite", suite="mbpp+", path=written(tmp_path, copied | {"test_list": ["add(1, 2)"]}))
    with pytest.raises(TaskError, match="no line that begins with 'assert'"):
        bare.problems("test")


def test_a_method_is_asked_for_with_its_class_begun(tmp_path: Path) -> None:
    case = json.dumps([{"input": "1", "output": "2", "testtype": "functional"}])
    row = {
        **EXAMPLES["livecodebench"],
        "starter_code": "class Solution:\n    def double(self, n: int) -> int:\n        ",
        "public_test_cases": case,
        "private_test_cases": "[]",
        "metadata": '{"func_name": "double"}',
    }
    (problem,) = problems("livecodebench", written(tmp_path, row))
    assert "```python\nclass Solution:\n    def double(self, n: int) -> int:\n        \n```" in problem.prompt
    assert "stdin" not in problem.prompt
    assert isinstance(problem.reference, dict)
    assert problem.reference["entry_point"] == "double"


def test_choices_are_shuffled_by_the_seed_alone(tmp_path: Path) -> None:
    path = written(tmp_path, *[GPQA | {"Question": f"Question {number}?"} for number in range(200)])
    first, again, other = (problems("gpqa", path, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert sum(a.prompt != b.prompt for a, b in zip(first, other, strict=True)) > 100
    places = Counter(problem.reference for problem in first)
    assert set(places) == set("ABCD")
    assert min(places.values()) > 30
    for problem in first:
        assert f"\n{problem.reference}) 7" in problem.prompt


def test_mmlu_keeps_its_stem_subjects_and_reads_copies_of_it(tmp_path: Path) -> None:
    copied = {key: value for key, value in MMLU.items() if key != "subject"} | {"type": "astronomy", "answer": "B"}
    path = written(tmp_path, MMLU, MMLU | {"subject": "anatomy"}, copied)
    assert [(one.info["part"], one.reference) for one in problems("mmlu-stem", path)] == [
        ("abstract_algebra", "C"),
        ("astronomy", "B"),
    ]
    assert len({*readers.STEM}) == 18


def test_bbh_grades_letters_as_choices_and_words_as_they_are_written(tmp_path: Path) -> None:
    rows = [
        {"task": "snarks", "input": "Which is sarcastic?\nOptions:\n(A) a\n(B) b", "target": "(B)"},
        {"task": "ruin_names", "input": "Which?", "target": "dearth, wind, & fire"},
        {"task": "object_counting", "input": "How many?", "target": "12"},
        {"task": "dyck_languages", "input": "Close ( [", "target": "] )"},
        {"task": "some_other", "input": "?", "target": "1"},
    ]
    found = problems("bbh", written(tmp_path, *rows))
    assert [one.verifier for one in found] == ["choice", "exact", "exact", "exact"]
    for problem, right in zip(found, ["B", "Dearth, wind, & fire", "12", "] )"], strict=True):
        verifier = get_verifier(problem.verifier, **problem.verifier_options)
        assert verifier.verify(completion=f"So the answer is {right}.", reference=problem.reference).right, right
        assert not verifier.verify(completion="So the answer is (A).", reference=problem.reference).right
    assert not validate_task(get_task("suite", suite="bbh", path=written(tmp_path, *rows)), "test").faults


def test_the_configurations_of_the_hub_follow_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def read(path: str, *, split: str, config: str | None) -> object:
        asked.append((path, split, config))
        return reader(written(tmp_path, {"input": f"Of {config}?", "target": "1"}), split=split)

    reader = task.read
    monkeypatch.setattr(task, "read", read)
    found = get_task("suite", suite="bbh").problems("test")
    assert asked == [("lukaemon/bbh", "test", name) for name in SUBTASKS]
    assert [(one.id, one.info["part"]) for one in found] == [(f"bbh/{at}", name) for at, name in enumerate(SUBTASKS)]


def test_ifeval_hands_on_ids_and_the_arguments_that_are_not_null() -> None:
    import random

    asked = readers.ifeval(IFEVAL, random.Random(0))
    assert asked.question == "Write without commas."
    assert asked.reference == {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    packed = readers.ifeval(IFEVAL | {"kwargs": ['{"num_words": null}']}, random.Random(0))
    assert packed.reference == asked.reference
    grade = get_verifier("instructions").verify
    assert grade(completion="I do so.", reference=asked.reference).right
    assert not grade(completion="I do so, gladly.", reference=asked.reference).right
    with pytest.raises(ValueError, match="one object of arguments"):
        readers.ifeval(IFEVAL | {"kwargs": []}, random.Random(0))


def test_what_is_missing_is_said_with_what_to_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read(path: str, *, split: str, config: str | None) -> object:
        raise TaskError("There is no network.")

    with pytest.raises(TaskError, match=r"no suite named 'math50'\. Did you mean 'math500'"):
        get_task("suite", suite="math50")
    other = get_task("suite", suite="math500", path=written(tmp_path, {"input": "?", "target": "1"}))
    with pytest.raises(TaskError, match=r"MATH-500 \(problem, answer\): it has no value in column 'answer'"):
        other.problems("test")
    monkeypatch.setattr(task, "read", read)
    said = r"MATH-500 on the hub, which cannot be read here: pass --data math500=FILE .* There is no network"
    with pytest.raises(TaskError, match=said):
        get_task("suite", suite="math500").problems("test")
    without = replace(suite_named("math500"), name="other", verifier="nothing-of-the-kind")
    with pytest.raises(TaskError, match="suite other needs the verifier 'nothing-of-the-kind', which is not"):
        task.check_verifier(without)


def test_the_tables_of_the_page_are_these() -> None:
    page = (ROOT / "docs" / "suites.md").read_text()
    for one in (table(), difference_table()):
        assert one in page, "write what `python -m tasks.suites.table` prints into docs/suites.md"
