"""Arguments of MBPP+ functions in their own types, since JSON has no tuples, sets or complex numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tasks.base import TaskError
from verifiers import JSON
from verifiers.jsonl import is_list, is_object


def _tuples(value: JSON) -> object:
    return tuple(map(_tuples, value)) if is_list(value) else value


def _rows(value: JSON) -> list[object]:
    """Return a list of tuples."""
    return [_flat(item) for item in items(value)]


def _flat(value: JSON) -> object:
    """Return the items of a list as a tuple."""
    return tuple(value) if is_list(value) else value


def _tuple_of_tuples(value: JSON) -> object:
    return tuple(_rows(value))


def _sets(value: JSON) -> object:
    return [set(item) if is_list(item) and item else dict[str, JSON]() for item in items(value)]


def _tuple_values(value: JSON) -> object:
    if not is_object(value):
        raise TaskError(f"mbpp: expected an object; got {str(value)[:80]}.")
    return {key: _flat(item) for key, item in value.items()}


def items(value: object) -> list[JSON]:
    """Return a value that must be a list.

    Raises:
        TaskError: it is not a list.
    """
    if not is_list(value):
        raise TaskError(f"mbpp: expected a list; got {str(value)[:80]}.")
    return value


SHAPES: Mapping[Callable[[JSON], object], Sequence[tuple[int, ...]]] = {
    _flat: [(2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744,
             809), (250, 405, 446, 617, 720, 763, 808, 307), (106, 750)],
    _rows: [(63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780), (75, 413, 444, 753), ()],
    _tuple_of_tuples: [(259, 401, 445, 278), (), ()],
    _tuples: [(580, 615, 791), (), ()],
    _sets: [(115,), (), ()],
    _tuple_values: [(), (722,), ()],
}  # fmt: skip
"""Conversion -> ids of the functions whose arguments need it: for every argument, for the first only, for the second
only. Source: EvalPlus, evalplus/data/mbpp.py, 1bd5f4c.
"""


def rebuilt(task_id: int, arguments: Sequence[JSON]) -> list[object]:
    """Convert the arguments of an MBPP+ function to the types that it takes.

    Example:
        >>> rebuilt(106, [[5, 6], [9, 10]])
        [[5, 6], (9, 10)]
    """
    found = list(arguments)
    if task_id == 124:
        return [float(str(found[0])), complex(str(found[1]))]
    if task_id == 252:
        return [complex(str(found[0]))]
    for shape, (every, first, second) in SHAPES.items():
        if task_id in every:
            return [shape(argument) for argument in found]
        if task_id in first:
            return [shape(found[0]), *found[1:]]
        if task_id in second:
            return [found[0], shape(found[1]), *found[2:]]
    return [*found]
