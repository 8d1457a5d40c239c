"""Sudoku of 4 x 4, 6 x 6 and 9 x 9 with exactly one solution, checked by a search."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from tasks.base import Problem, Task, TaskError
from tasks.drawing import draw_distinct
from verifiers import JSON
from verifiers.answers.sudoku import Grid, TooHard, solutions

BOXES: Mapping[int, tuple[int, int]] = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Grid size -> rows and columns of a box."""
BLANK_SHARE = (0.25, 0.4, 0.5, 0.58, 0.66)
"""Share of blank cells, by difficulty."""


class Sudoku(Task):
    """Sudoku grids to fill; graded by `sudoku`, in any notation of the grid.

    Args:
        size: 4, 6 or 9.
        difficulty: 1 to 5, from a quarter to two thirds of the cells blank (fewer if more blanks would allow two
            solutions).
        train_size: problems of the training split.
        test_size: problems of the test split.
        seed: seed of the random draw.
    Raises:
        TaskError: an option out of range.
    """

    name = "sudoku"

    def __init__(
        self, *, size: int = 4, difficulty: int = 2, train_size: int = 1_000, test_size: int = 100, seed: int = 0
    ) -> None:
        if size not in BOXES:
            raise TaskError(f"size must be one of {', '.join(map(str, BOXES))}; got {size}.")
        if not 1 <= difficulty <= len(BLANK_SHARE):
            raise TaskError(f"difficulty must be between 1 and {len(BLANK_SHARE)}; got {difficulty}.")
        self._size, self._difficulty, self._seed = size, difficulty, seed
        self._sizes = {"train": train_size, "test": test_size}

    def problems(self, split: str) -> Sequence[Problem]:
        source = random.Random(f"{self._seed} {self._size} {self._difficulty} {split}")
        return draw_distinct(lambda: self._draw(source), split=split, sizes=self._sizes)

    def _draw(self, source: random.Random) -> Problem:
        size, box = self._size, BOXES[self._size]
        solution = filled(source, size)
        puzzle = with_blanks(source, solution, round(BLANK_SHARE[self._difficulty - 1] * size * size))
        rows = [" ".join(map(str, row)) for row in puzzle]
        listed: list[JSON] = [[*row] for row in puzzle]
        blanks = sum(row.count(0) for row in puzzle)
        return Problem(
            id=f"sudoku/{'/'.join(rows)}",
            prompt=(
                f"Fill in each 0 so that every row, every column and every box of {box[0]} rows and {box[1]} columns"
                f" has each number from 1 to {size} once.\n"
                + "\n".join(rows)
                + "\nEnd with #### and the rows with / between"
                " them.\n"
            ),
            reference={"puzzle": listed, "box": [*box]},
            verifier="sudoku",
            difficulty=blanks / (size * size),
            demonstration="#### " + " / ".join(" ".join(map(str, row)) for row in solution),
            task=self.name,
        )


def filled(source: random.Random, size: int) -> Grid:
    """Return a filled grid: a regular one with its numbers, rows, columns, bands and stacks permuted."""
    height, width = BOXES[size]
    numbers = source.sample(range(1, size + 1), size)

    def order(bands: int, lines: int) -> list[int]:
        return [
            band * lines + line
            for band in source.sample(range(bands), bands)
            for line in source.sample(range(lines), lines)
        ]

    rows, columns = order(width, height), order(height, width)
    return tuple(
        tuple(numbers[(row % height * width + row // height + column) % size] for column in columns) for row in rows
    )


def with_blanks(source: random.Random, solution: Grid, count: int) -> Grid:
    """Return a grid with up to `count` cells blanked in random order, as long as it keeps exactly one solution."""
    size = len(solution)
    cells = [list(row) for row in solution]
    blanks = 0
    for at in source.sample(range(size * size), size * size):
        if blanks == count:
            break
        row, column = divmod(at, size)
        cells[row][column] = 0
        if _is_unique(tuple(map(tuple, cells)), BOXES[size]):
            blanks += 1
        else:
            cells[row][column] = solution[row][column]
    return tuple(map(tuple, cells))


def _is_unique(grid: Grid, box: tuple[int, int]) -> bool:
    try:
        return len(solutions(grid, box)) == 1
    except TooHard:
        return False
