"""Grids in many notations, right and almost right, and invalid references."""

from __future__ import annotations

import pytest

from verifiers import BadReference, Outcome, get_verifier
from verifiers.answers.sudoku import read_grid, solutions

SUDOKU = get_verifier("sudoku")
PUZZLE = [[1, 0, 3, 0], [0, 4, 0, 2], [2, 0, 4, 0], [0, 3, 0, 1]]
REFERENCE = {"puzzle": PUZZLE, "box": [2, 2]}
RIGHT = "1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1"


def outcome(completion: str, reference: object = REFERENCE) -> Outcome:
    return SUDOKU.verify(completion=completion, reference=reference).outcome  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "spelt",
    [
        "#### 1 2 3 4 / 3 4 1 2 / 2 1 4 3 / 4 3 2 1",
        "#### 1234341221434321",
        f"```\n{RIGHT}\n```",
        f"<answer>{RIGHT}</answer>",
        f"So the grid is\n\n{RIGHT}\n\nwhich meets all rules.",
        "```json\n[[1,2,3,4],[3,4,1,2],[2,1,4,3],[4,3,2,1]]\n```",
        "The answer is 1234, 3412, 2143, 4321.",
        "| 1 2 | 3 4 |\n| 3 4 | 1 2 |\n+-----+-----+\n| 2 1 | 4 3 |\n| 4 3 | 2 1 |",
        "Row 1: 1 2 3 4\nRow 2: 3 4 1 2\nRow 3: 2 1 4 3\nRow 4: 4 3 2 1",
        f"Given:\n1 0 3 0\n0 4 0 2\n2 0 4 0\n0 3 0 1\nFilled in:\n{RIGHT}",
    ],
)
def test_spellings(spelt: str) -> None:
    assert outcome(spelt) is Outcome.CORRECT
    assert outcome(spelt[::-1].replace("1", "2", 1)[::-1]) is not Outcome.CORRECT


@pytest.mark.parametrize(
    ("spelt", "said"),
    [
        ("#### 1 2 3 4 / 3 4 1 2 / 2 1 4 3 / 4 3 2 0", "row 4, column 4 was given as 1; got 0"),
        ("#### 2 1 3 4 / 3 4 1 2 / 1 2 4 3 / 4 3 2 1", "row 1, column 1 was given"),
        ("#### 1 2 3 4 / 3 4 1 2 / 2 1 4 3", "is not such a grid"),
        ("#### 1 2 3 4 / 3 4 1 2 / 2 1 4 3 / 4 3 2 1 or another", "is not such a grid"),
        ("1 0 3 0\n0 4 0 2\n2 0 4 0\n0 3 0 1", "does not have each number once"),
        ("#### see above", "is not such a grid"),
    ],
)
def test_what_is_wrong_is_said(spelt: str, said: str) -> None:
    verdict = SUDOKU.verify(completion=spelt, reference=REFERENCE)  # pyright: ignore[reportArgumentType]
    assert verdict.outcome is Outcome.INCORRECT
    assert said in verdict.reason


def test_no_grid_is_no_answer() -> None:
    assert outcome("I cannot solve it.") is Outcome.NO_ANSWER
    assert outcome("") is Outcome.NO_ANSWER
    assert outcome("1 " * 100_000) is Outcome.NO_ANSWER


@pytest.mark.parametrize(
    "reference",
    [
        {"puzzle": [[1, 2], [1, 2]], "box": [1, 2]},
        {"puzzle": [[1, 2, 3, 4]] * 3, "box": [2, 2]},
        {"puzzle": [[5, 0, 0, 0]] + [[0] * 4] * 3, "box": [2, 2]},
        {"puzzle": [[0] * 4] * 4, "box": [2, 3]},
        {"puzzle": [[0] * 16] * 16, "box": [4, 4]},
        {"puzzle": "1234", "box": [2, 2]},
        {"puzzle": [[1, 1, 0, 0], *([[0] * 4] * 3)], "box": [2, 2]},
        3,
    ],
)
def test_golds_that_are_no_puzzle(reference: object) -> None:
    with pytest.raises(BadReference):
        SUDOKU.check_reference(reference)  # pyright: ignore[reportArgumentType]


def test_the_search_counts() -> None:
    empty = tuple(tuple([0] * 4) for _ in range(4))
    assert len(solutions(empty, (2, 2), most=1000)) == 288  # the known count of 4 x 4 grids
    assert solutions(((1, 1, 0, 0), *([(0,) * 4] * 3)), (2, 2)) == []
    assert read_grid("12/2a", 2) is None
