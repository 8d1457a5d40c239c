"""Tasks of numbers and logic: reference answers right, solutions unique, splits apart; real data if available."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import defaultdict
from pathlib import Path

import pytest

from tasks import TaskError
from tasks.game24 import solvable, solve
from tasks.logic_puzzles import FAMILIES, solutions
from tasks.registry import get_task
from tasks.validate import validate_task
from verifiers import get_verifier
from verifiers.answers.countdown import evaluate_expression


def rows(path: Path) -> list[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("prontoqa", {"train_size": 100, "test_size": 40}),
        ("prontoqa", {"train_size": 50, "test_size": 20, "hops": 6, "distractors": 0}),
        *(("logic-puzzles", {"family": f, "people": 3, "train_size": 40, "test_size": 10}) for f in FAMILIES),
        ("logic-puzzles", {"family": "zebra", "difficulty": 3, "train_size": 20, "test_size": 6}),
        ("deductions", {"train_size": 40, "test_size": 10}),
        *(("sudoku", {"size": size, "difficulty": 3, "train_size": 20, "test_size": 6}) for size in (4, 6, 9)),
    ],
)
def test_golds_are_right_and_splits_do_not_meet(name: str, options: dict[str, object]) -> None:
    task = get_task(name, **options)  # pyright: ignore
    for split in ("train", "test"):
        found = validate_task(task, split)
        assert found.total >= 6
        assert not found.faults
    train, test = ({problem.prompt for problem in task.problems(split)} for split in ("train", "test"))
    assert not train & test
    with pytest.raises(TaskError, match="must be train or test"):
        task.problems("validation")


def test_labels_of_prontoqa_follow_by_z3() -> None:
    logic = get_verifier("logic")
    words = {"true": "entailed", "false": "contradicted"}
    seen = set()
    for problem in get_task("prontoqa", train_size=60).problems("train"):
        reference = {"kind": "entailment", "premises": problem.info["premises"], "claim": problem.info["claim"]}
        seen.add(problem.reference)
        said = f"The answer is {words[str(problem.reference)]}."
        assert logic.verify(completion=said, reference=reference).reward == 1, problem
    assert seen == {"true", "false"}


@pytest.mark.parametrize(("family", "people"), [("knights", 4), ("order", 4), ("zebra", 3), ("sat", 6)])
def test_puzzles_have_one_solution(family: str, people: int) -> None:
    """All assignments are tried here, with none of the generator's shortcuts."""
    task = get_task("logic-puzzles", family=family, people=people, train_size=12, test_size=0)
    for problem in task.problems("train"):
        assert isinstance(problem.reference, dict)
        formulas = problem.reference["formulas"]
        answer = (problem.demonstration or "").removeprefix("#### ")
        names = [pair.partition("=")[0] for pair in answer.split(", ")]
        values = (True, False) if family in ("knights", "sat") else range(1, people + 1)
        candidates = [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(values, repeat=len(names))]
        found = solutions(candidates, formulas)  # pyright: ignore
        assert len(found) == 1, problem.prompt
        assert answer not in problem.prompt


def test_no_clue_of_a_placing_puzzle_can_be_left_out() -> None:
    for problem in get_task("logic-puzzles", family="zebra", people=3, train_size=8, test_size=0).problems("train"):
        assert isinstance(problem.reference, dict)
        formulas: list[str] = [*problem.reference["formulas"]]  # pyright: ignore
        names = [pair.partition("=")[0] for pair in (problem.demonstration or "").removeprefix("#### ").split(", ")]
        candidates = [
            dict(zip(names, first + second, strict=True))
            for first in itertools.permutations(range(1, 4))
            for second in itertools.permutations(range(1, 4))
        ]
        clues = [formula for formula in formulas if " & " not in formula and formula not in _different(names)]
        assert len(solutions(candidates, clues)) == 1
        for clue in clues:
            assert len(solutions(candidates, [other for other in clues if other != clue])) > 1, (clue, problem.prompt)


def _different(names: list[str]) -> set[str]:
    return {f"{a} != {b}" for group in (names[:3], names[3:]) for a, b in itertools.combinations(group, 2)}


def test_a_zebra_puzzle_by_z3() -> None:
    """Four houses with three attributes each: no second solution, asked of z3."""
    from verifiers.logic.question import Question, ask
    from verifiers.logic.reading import parse

    task = get_task("logic-puzzles", family="zebra", difficulty=4, train_size=3, test_size=0)
    for problem in task.problems("train"):
        assert isinstance(problem.reference, dict)
        formulas = tuple(parse(str(text)) for text in problem.reference["formulas"])  # pyright: ignore
        answer = parse((problem.demonstration or "").removeprefix("#### ").replace(", ", " & "))
        assert ask(Question((*formulas, answer))).holds is True
        assert ask(Question(formulas, answer)).holds is False


@pytest.mark.parametrize("name", ["logic-puzzles", "sudoku"])
def test_difficulty_has_bounds_and_the_draw_a_seed(name: str) -> None:
    with pytest.raises(TaskError, match="difficulty must be between 1 and 5"):
        get_task(name, difficulty=6)
    drawn = [
        [p.prompt for p in get_task(name, difficulty=2, train_size=5, seed=seed).problems("train")]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_sudoku_has_one_solution_by_z3() -> None:
    from verifiers.logic.question import Question, ask
    from verifiers.logic.reading import parse

    for problem in get_task("sudoku", size=4, difficulty=5, train_size=4, test_size=0).problems("train"):
        assert isinstance(problem.reference, dict)
        puzzle = problem.reference["puzzle"]
        cells = [(r, c) for r in range(4) for c in range(4)]
        rules = [f"c{r}{c} >= 1 & c{r}{c} <= 4" for r, c in cells]
        for (r, c), (s, d) in itertools.combinations(cells, 2):
            if r == s or c == d or (r // 2, c // 2) == (s // 2, d // 2):
                rules.append(f"c{r}{c} != c{s}{d}")
        rules += [f"c{r}{c} = {puzzle[r][c]}" for r, c in cells if puzzle[r][c]]  # pyright: ignore
        rows = [row.split() for row in (problem.demonstration or "").removeprefix("#### ").split(" / ")]
        answer = parse(" & ".join(f"c{r}{c} = {rows[r][c]}" for r, c in cells))
        formulas = tuple(map(parse, rules))
        assert ask(Question((*formulas, answer))).holds is True
        assert ask(Question(formulas, answer)).holds is False


@pytest.mark.parametrize(
    "spelt",
    [
        "#### bob=knave, ANN=Knight",
        "Answer: Ann is a knight and Bob is a knave.",
        '```json\n{"Bob": "knave", "Ann": "knight"}\n```',
        "<answer>\n- Ann: knight\n- Bob: knave\n</answer>",
        "\\boxed{Ann = knight, Bob = knave}",
    ],
)
def test_an_answer_may_be_spelt_in_many_ways(spelt: str) -> None:
    reference = {"kind": "model", "formulas": ["Ann <-> ~Bob", "Ann"], "values": {"knight": True, "knave": False}}
    logic = get_verifier("logic")
    assert logic.verify(completion=spelt, reference=reference).right  # pyright: ignore[reportArgumentType]
    wrong = spelt.replace("knave", "knight")
    assert not logic.verify(completion=wrong, reference=reference).right  # pyright: ignore[reportArgumentType]


def test_a_deduction_needs_each_of_its_lines() -> None:
    logic = get_verifier("logic")
    for problem in get_task("deductions", train_size=30).problems("train"):
        lines = (problem.demonstration or "").split("\n")
        for at in range(len(lines)):
            shorter = "\n".join(lines[:at] + lines[at + 1 :])
            assert not logic.verify(completion=shorter, reference=problem.reference).right, (problem.prompt, shorter)
        assert isinstance(problem.reference, dict)
        alone = f"1.{problem.reference['goal']};pr"
        assert not logic.verify(completion=alone, reference=problem.reference).right


def test_a_careless_prover_leaves_out_rules_and_what_it_leaves_out_makes_it_wrong() -> None:
    logic = get_verifier("logic")
    right = 0
    problems = get_task("deductions", steps=2, demonstrations="careless", train_size=400, test_size=0).problems("train")
    for problem in problems:
        proof = problem.demonstration or ""
        follows = all("," in line for line in proof.split("\n") if ";mp" in line)
        assert logic.verify(completion=proof, reference=problem.reference).right is follows, problem
        right += follows
    assert 0.3 < right / len(problems) < 0.45  # one step: 1/2, two steps: 1/4
    with pytest.raises(TaskError, match="demonstrations must be perfect or careless"):
        get_task("deductions", demonstrations="mixed")


def test_game24_knows_what_can_be_solved() -> None:
    hands = solvable(13)
    assert len(hands) == 1362  # of 1,820: the known count for hands of playing cards
    for hand in hands[::40]:
        assert evaluate_expression(solve(hand) or "").value == 24
    assert solve((1, 1, 1, 1)) is None
    assert solve((3, 3, 8, 8)) == "8/(3-(8/3))"


def test_every_gold_of_game24(data_dir: Path) -> None:
    task = get_task("game24", path=str(data_dir / "logic"))
    assert validate_task(task, "test")[:2] == (362, 362)
    verifier = get_verifier("countdown")
    answers = 0
    for problem, row in zip(task.problems("test"), rows(data_dir / "logic" / "game24_test.jsonl.gz"), strict=True):
        for answer in row["answer"]:  # pyright: ignore
            assert verifier.verify(completion=answer["text"], reference=problem.reference).reward == 1, answer
            answers += 1
    assert answers == 4258


@pytest.mark.parametrize(("split", "size"), [("train", 1000), ("test", 500)])
def test_every_gold_of_prontoqa(data_dir: Path, split: str, size: int) -> None:
    found = validate_task(get_task("prontoqa", path=str(data_dir / "logic")), split)
    assert (found.total, found.accepted) == (size, size)
    verifier = get_verifier("choice", choices=["true", "false"])
    for problem in get_task("prontoqa", path=str(data_dir / "logic")).problems(split):
        other = "false" if problem.reference == "true" else "true"
        assert verifier.verify(completion=f"The answer is {other}.", reference=problem.reference).reward == 0


def test_bbh_outputs_reach_the_published_accuracy(data_dir: Path) -> None:
    """Published: code-davinci-002 with chain of thought, 27 tasks (arXiv:2210.09261)."""
    task = get_task("bbh", path=str(data_dir / "logic" / "bbh.jsonl.gz"))
    assert validate_task(task, "test")[:2] == (6511, 6511)
    published = json.loads((data_dir / "logic" / "bbh_codex_cot_accuracy.json").read_text())
    verifier = get_verifier("exact")
    right: dict[str, list[float]] = defaultdict(list)
    outputs = rows(data_dir / "logic" / "bbh_codex_cot_outputs.jsonl.gz")
    for problem, row in zip(task.problems("test"), outputs, strict=True):
        verdict = verifier.verify(completion=str(row["prediction"]), reference=problem.reference)
        right[str(problem.info["subtask"])].append(verdict.reward or 0.0)
    assert len(right) == len(published) == 27
    for name, rewards in right.items():
        assert abs(100 * sum(rewards) / len(rewards) - published[name]) < 1, name


def test_bbh_is_for_evaluation_alone(data_dir: Path) -> None:
    task = get_task("bbh", path=str(data_dir / "logic" / "bbh.jsonl.gz"), subtasks=["navigate"])
    assert len(task.problems("test")) == 250
    with pytest.raises(TaskError, match="only the split test, for evaluation"):
        task.problems("train")
    with pytest.raises(TaskError, match="subtasks must be some of"):
        get_task("bbh", subtasks=["navigation"])


def test_rows_without_a_column_are_named(tmp_path: Path) -> None:
    (tmp_path / "game24_test.jsonl").write_text('{"numbers": "1 2 3 4"}\n')
    with pytest.raises(TaskError, match="line 1: must have column 'question'; it has: numbers"):
        get_task("game24", path=str(tmp_path)).problems("test")


def test_reasoning_gym_says_what_to_install() -> None:
    import importlib.util

    if importlib.util.find_spec("reasoning_gym") is None:
        with pytest.raises(TaskError, match="pip install reasoning-gym"):
            get_task("reasoning-gym", dataset="leg_counting").problems("train")


def test_rows_choose_their_verifier(tmp_path: Path) -> None:
    given = [
        {"prompt": "a", "reference": "1", "grader": "numeric"},
        {"prompt": "b", "reference": "x", "grader": None},
        {"prompt": "c", "reference": "y"},
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    options = {"verifier": "exact", "verifier_options": {"ignore_case": True}, "verifier_column": "grader"}
    options["held_out_share"] = 0
    problems = get_task("dataset", path=str(tmp_path), **options).problems("train")  # pyright: ignore
    assert [problem.verifier for problem in problems] == ["numeric", "exact", "exact"]
    assert [dict(problem.verifier_options) for problem in problems] == [
        {},
        {"ignore_case": True},
        {"ignore_case": True},
    ]
