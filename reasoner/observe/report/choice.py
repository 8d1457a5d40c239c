"""Which rollouts a report keeps the text of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from reasoner.observe.report.records import Columns

FAILURES = ("incorrect", "no_answer", "limit_exceeded", "bad_reference", "verifier_error")


def chosen(columns: Columns, *, most: int, named: Sequence[int] = ()) -> list[int]:
    """Choose the rollouts whose text is kept, in file order: whole groups, as long as they fit.

    First the groups of the named rows (those of findings and alarms), then the last steps, then groups with a failed
    rollout spread evenly over the run, each until half of the places that are left are taken; then any groups, spread
    likewise.

    Args:
        columns: all rollouts.
        most: number of rollouts to keep; what is left over when no whole group fits stays unused.
        named: rows to keep first.
    """
    if len(columns) <= most:
        return [*range(len(columns))]
    groups: dict[tuple[int, int], list[int]] = {}
    for row in range(len(columns)):
        groups.setdefault(columns.place(row)[:2], []).append(row)
    failing = {place for name, place in columns.names["outcome"].items() if name in FAILURES}
    outcomes = columns.integers["outcome"]
    failed = [key for key, rows in groups.items() if any(outcomes[row] in failing for row in rows)]
    kept: set[int] = set()

    def take(keys: Iterable[tuple[int, int]], share: float) -> None:
        up_to = len(kept) + share * (most - len(kept))
        for key in keys:
            if groups[key][0] not in kept and len(kept) + len(groups[key]) <= up_to:
                kept.update(groups[key])

    take((columns.place(row)[:2] for row in named), 1 / 2)
    take(sorted(groups, reverse=True), 1 / 2)
    take(_spread(failed), 1 / 2)
    take(_spread([*groups]), 1)
    return sorted(kept)


def _spread(keys: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield all keys, each next one far from those before: every 2^k-th, then those in between."""
    stride = 1
    while stride < len(keys):
        stride *= 2
    seen: set[int] = set()
    while stride >= 1:
        for at in range(0, len(keys), stride):
            if at not in seen:
                seen.add(at)
                yield keys[at]
        stride //= 2
