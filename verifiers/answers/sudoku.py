"""`sudoku`: a filled grid with each number once in every row, column and box."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from verifiers.answers.final import no_answer
from verifiers.answers.find import extract_answer, strip_thinking
from verifiers.answers.json_schema import last_between, last_fenced
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadReference
from verifiers.jsonl import is_list, is_object
from verifiers.verdict import JSON, Outcome, Verdict, fixed

MAX_SIZE = 9
MAX_LENGTH = 2_000
MAX_LINES = 2_000
"""Lines of a completion, counted from its end, that are searched for rows of a grid."""
MAX_STEPS = 200_000
"""Numbers tried before the search gives up on a puzzle."""
LABEL = re.compile(r"\brow\s*\d+\s*[:.)=]", re.IGNORECASE)
SEPARATOR = re.compile(r"[\s|+,;/\[\]()\"'─│┼-]+")
Grid = tuple[tuple[int, ...], ...]
"""Rows of numbers; 0 is blank."""


class TooHard(ValueError):
    """An error for a puzzle that the search cannot settle within its limit."""


def solutions(grid: Grid, box: tuple[int, int], *, most: int = 2) -> list[Grid]:
    """Return the ways to fill a grid, up to `most`.

    Args:
        grid: rows of numbers, with 0 for blanks.
        box: rows and columns of a box.
        most: number of solutions at which the search stops.
    Raises:
        TooHard: the search is not finished after MAX_STEPS numbers.

    Example:
        >>> solutions(((1, 2, 3, 4), (3, 4, 1, 2), (2, 1, 4, 3), (4, 3, 2, 0)), (2, 2))[0][3]
        (4, 3, 2, 1)
    """
    size = len(grid)
    cells = [list(row) for row in grid]
    rows, columns, boxes = ([0] * size for _ in range(3))
    blanks: list[tuple[int, int]] = []

    def place(row: int, column: int, bit: int) -> None:
        for used, at in ((rows, row), (columns, column), (boxes, _box(row, column, box, size))):
            used[at] ^= bit

    for row, column in ((r, c) for r in range(size) for c in range(size)):
        bit = 1 << cells[row][column] >> 1
        if bit & (rows[row] | columns[column] | boxes[_box(row, column, box, size)]):
            return []
        place(row, column, bit)
        if not bit:
            blanks.append((row, column))
    found: list[Grid] = []
    steps = 0

    def fill(left: list[tuple[int, int]]) -> None:
        nonlocal steps
        if not left:
            found.append(tuple(tuple(row) for row in cells))
            return
        full = (1 << size) - 1
        free = [full & ~(rows[r] | columns[c] | boxes[_box(r, c, box, size)]) for r, c in left]
        at = min(range(len(left)), key=lambda n: free[n].bit_count())
        row, column = left[at]
        others = left[:at] + left[at + 1 :]
        for number in range(size):
            bit = 1 << number
            if free[at] & bit and len(found) < most:
                steps += 1
                if steps > MAX_STEPS:
                    raise TooHard(f"a puzzle must be settled within {MAX_STEPS} steps")
                cells[row][column] = number + 1
                place(row, column, bit)
                fill(others)
                place(row, column, bit)

    fill(blanks)
    return found


def _box(row: int, column: int, box: tuple[int, int], size: int) -> int:
    return row // box[0] * (size // box[1]) + column // box[1]


def fault_in(grid: Grid, puzzle: Grid, box: tuple[int, int]) -> str:
    """Return in words the first fault of a grid that should solve the puzzle; "" if there is none."""
    size = len(puzzle)
    everything = set(range(1, size + 1))
    for row, column in ((r, c) for r in range(size) for c in range(size)):
        if puzzle[row][column] not in (0, grid[row][column]):
            return f"row {row + 1}, column {column + 1} was given as {puzzle[row][column]}; got {grid[row][column]}"
    groups = [(f"row {at + 1}", set(grid[at])) for at in range(size)]
    groups += [(f"column {at + 1}", {row[at] for row in grid}) for at in range(size)]
    for number in range(size):
        inside = {grid[r][c] for r in range(size) for c in range(size) if _box(r, c, box, size) == number}
        groups.append((f"box {number + 1}", inside))
    wrong = next((name for name, values in groups if values != everything), None)
    return f"{wrong} does not have each number once" if wrong else ""


class Sudoku(Verifier):
    """Checks a filled grid against the puzzle: the given numbers, and each number once in every row, column and box.

    The reference is `{"puzzle": [[1, 0, ...], ...], "box": [2, 2]}`, with 0 for blanks, at most 9 x 9. The answer's
    rows may be lines, parts between `/` or `,`, JSON, a single run of digits, or ruled with `|`. If no answer is
    declared, the last rows of the text that form a grid count.
    """

    name = "sudoku"
    reference_schema = {
        "type": "object",
        "properties": {"puzzle": {"type": "array"}, "box": {"type": "array"}},
        "required": ["puzzle", "box"],
    }
    examples = (
        Example(
            completion="#### 1234 / 3412 / 2143 / 4321",
            reference={"puzzle": [[1, 0, 3, 0], [0, 4, 0, 2], [2, 0, 4, 0], [0, 3, 0, 1]], "box": [2, 2]},
        ),
        Example(
            completion="```\n1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 1 2\n```",
            reference={"puzzle": [[1, 0, 3, 0], [0, 4, 0, 2], [2, 0, 4, 0], [0, 3, 0, 0]], "box": [2, 2]},
            outcome=Outcome.INCORRECT,
        ),
    )

    def check_reference(self, reference: JSON) -> None:
        puzzle, box = _read(reference)
        _require_solution(puzzle, box)

    def grade(self, row: GradingRow) -> Verdict:
        puzzle, box = _read(row.reference)
        found = extract_answer(row.completion)
        visible = strip_thinking(row.completion)
        tagged = last_between(visible, "<answer>", "</answer>")
        block = tagged if tagged is not None else last_fenced(visible)
        texts = [text for text in (block, found.answer if found else None) if text and text.strip()]
        grid = next((grid for text in texts if (grid := read_grid(text, len(puzzle)))), None)
        grid = grid or _last_lines(visible, len(puzzle))
        if grid is None:
            return (
                fixed(Outcome.INCORRECT, "the answer is not such a grid", answer=texts[0][:200])
                if texts
                else no_answer()
            )
        fault = fault_in(grid, puzzle, box)
        shown = " / ".join(" ".join(map(str, line)) for line in grid)
        return fixed(Outcome.INCORRECT if fault else Outcome.CORRECT, fault or "every rule holds", answer=shown)


def read_grid(text: str, size: int) -> Grid | None:
    """Parse a grid in any notation; None if the text is something else.

    Example:
        >>> read_grid("[[1, 2], [2, 1]]", 2) == read_grid("12/21", 2) == read_grid("1 | 2\\n2 | 1", 2)
        True
    """
    if len(text) > MAX_LENGTH:
        return None
    parts = [part for part in SEPARATOR.split(LABEL.sub(" ", text).rstrip(" .")) if part]
    if not all(part.isascii() and part.isdigit() and len(part) in (1, size, size * size) for part in parts):
        return None
    numbers = [int(digit) for digit in "".join(parts)]
    if len(numbers) != size * size:
        return None
    return tuple(tuple(numbers[at : at + size]) for at in range(0, size * size, size))


def _last_lines(text: str, size: int) -> Grid | None:
    """Return the grid in the last lines with one row each, ignoring ruled lines in between; None if there is none."""
    rows: list[str] = []
    for line in reversed(text.split("\n")[-MAX_LINES:]):
        numbers = "".join(SEPARATOR.split(LABEL.sub(" ", line))) if len(line) <= 200 else ""
        if numbers.isascii() and numbers.isdigit() and len(numbers) == size:
            rows.insert(0, numbers)
            if len(rows) == size:
                return read_grid("\n".join(rows), size)
        elif SEPARATOR.sub("", line):
            rows = []
    return None


def _read(reference: JSON) -> tuple[Grid, tuple[int, int]]:
    given = reference if is_object(reference) else {}
    listed, sides = given.get("puzzle"), given.get("box")
    rows = listed if is_list(listed) else []
    size = len(rows)
    grid = tuple(
        tuple(cell for cell in row if isinstance(cell, int) and 0 <= cell <= size) if is_list(row) else ()
        for row in rows
    )
    if not 1 <= size <= MAX_SIZE or any(len(row) != size for row in grid) or any(map(_is_longer, rows, grid)):
        raise BadReference(
            f"puzzle must be a square of at most {MAX_SIZE} rows, with numbers from 0 to its size; got {listed!r:.80}."
        )
    box = [side for side in sides if isinstance(side, int) and side > 0] if is_list(sides) else []
    if len(box) != 2 or box[0] * box[1] != size:
        raise BadReference(f"box must be two numbers whose product is {size}; got {sides!r:.80}.")
    return grid, (box[0], box[1])


def _is_longer(row: JSON, read: Sequence[int]) -> bool:
    return is_list(row) and len(row) > len(read)


@lru_cache(maxsize=4096)
def _require_solution(puzzle: Grid, box: tuple[int, int]) -> None:
    try:
        found = solutions(puzzle, box, most=1)
    except TooHard as error:
        raise BadReference(f"{error}.") from error
    if not found:
        raise BadReference("puzzle must have a solution; it has none.")


__all__ = ["Grid", "Sudoku", "read_grid", "solutions"]
