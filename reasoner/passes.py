"""Which rows go through the model together: as few tokens as can be, prompts that several rows share counted once.

Letters: B rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reasoner.batch import ENOUGH, Batch
from reasoner.layout import distinct_prompts

GAIN = {"cpu": 0.95}
"""A pass behind shared prompts must run fewer tokens than this share of the padded ones (measured: with 16 + 128 tokens
and 8 rows a prompt it runs 0.9 of them in 0.94 of the time)."""
GAIN_ELSEWHERE = 0.75
"""On other devices (not measured): its attention takes a mask, which the fastest kernels there do not."""
KEPT = 8
"""A prompt's keys and values that a line holds for itself, in tokens' memory: about an eighth of a token's activations
(2 of some 17 hidden units' worth a layer; see memory.py)."""


class Sizes(NamedTuple):
    """What a batch's rows cost."""

    prompt_B: list[int]
    """Place of each row's prompt among the distinct ones."""
    before_B: list[int]
    """Tokens of the prompt but its last: what rows can share."""
    after_B: list[int]
    """Tokens of the completion: what a line behind a shared prompt runs."""

    @classmethod
    def of(cls, batch: Batch) -> Sizes:
        lengths = batch.prompt_lengths_B.tolist()
        return cls(
            distinct_prompts(batch)[0],
            [length - 1 for length in lengths],
            [len(ids) - length for ids, length in zip(batch.input_ids, lengths, strict=True)],
        )

    def padded(self, rows: Sequence[int]) -> int:
        """Tokens of a pass with these rows side by side."""
        return len(rows) * max(self.before_B[row] + 1 + self.after_B[row] for row in rows)

    def shared(self, rows: Sequence[int]) -> int:
        """Tokens of a pass with these rows behind their prompts."""
        prompts = len({self.prompt_B[row] for row in rows})
        return prompts * max(self.before_B[row] for row in rows) + len(rows) * max(self.after_B[row] for row in rows)

    def held(self, rows: Sequence[int]) -> int:
        """What such a pass holds in memory, in tokens."""
        return self.shared(rows) + len(rows) * max(self.before_B[row] for row in rows) // KEPT


class Planner:
    """Divides rows into passes on one kind of device; `gain` None: no prompt is shared."""

    def __init__(self, *, max_tokens: int, unit: int = 1, gain: float | None = None) -> None:
        self.max_tokens = max_tokens
        self.unit = unit
        self.gain = gain

    def shares(self, sizes: Sizes, rows: Sequence[int]) -> bool:
        """Whether these rows run behind shared prompts."""
        prompts = {sizes.prompt_B[row] for row in rows}
        some = any(sizes.before_B[row] for row in rows) and any(sizes.after_B[row] for row in rows)
        return len(prompts) < len(rows) and some and self._shared_cost(sizes, rows) < sizes.padded(rows)

    def _shared_cost(self, sizes: Sizes, rows: Sequence[int]) -> float:
        """Tokens of a shared pass, in tokens of a padded one that takes as long."""
        return float("inf") if self.gain is None else sizes.shared(rows) / self.gain + self._own_cost

    @property
    def _own_cost(self) -> int:
        """What a pass costs by itself, in tokens (ours)."""
        return self.max_tokens // 64

    def held(self, sizes: Sizes, rows: Sequence[int]) -> int:
        """What a pass with these rows holds in memory, in tokens."""
        return sizes.held(rows) if self.shares(sizes, rows) else sizes.padded(rows)

    def cost(self, sizes: Sizes, passes: Iterable[Sequence[int]]) -> float:
        """Tokens that passes run, and what each costs by itself."""
        return sum(
            self._own_cost + (self._shared_cost(sizes, rows) if self.shares(sizes, rows) else sizes.padded(rows))
            for rows in passes
        )

    def passes(self, batch: Batch) -> list[list[int]]:
        """Rows of each pass: rows of like length side by side, or rows of a prompt together, whichever runs less."""
        ways = [list(batch.micro_rows(self.max_tokens, unit=self.unit))]
        if self.gain is None or len(batch) <= self.unit:
            return ways[0]
        sizes = Sizes.of(batch)
        units = [list(range(start, start + self.unit)) for start in range(0, len(batch), self.unit)]
        longest_of = {unit[0]: max(sizes.after_B[row] for row in unit) for unit in units}
        longest_P: dict[int, int] = {}
        for unit in units:
            prompt = sizes.prompt_B[unit[0]]
            longest_P[prompt] = max(longest_P.get(prompt, 0), longest_of[unit[0]])

        def by_prompt(unit: list[int]) -> tuple[int, int, int]:
            prompt = sizes.prompt_B[unit[0]]
            return (-longest_P[prompt], prompt, -longest_of[unit[0]])

        ways.append(self._filled(sizes, sorted(units, key=by_prompt), within_prompts=False))
        ways.append(self._filled(sizes, sorted(units, key=lambda unit: -longest_of[unit[0]]), within_prompts=True))
        return min(ways, key=lambda way: self.cost(sizes, way))

    def _filled(self, sizes: Sizes, units: Sequence[list[int]], *, within_prompts: bool) -> list[list[int]]:
        """Units in order, each pass as full as the budget allows; it ends early as one of `Batch.micro_rows` does.

        `within_prompts`: also between rows of one prompt, which then runs twice.
        """
        passes: list[list[int]] = []
        for unit in units:
            if passes:
                rows = passes[-1]
                fits = self.held(sizes, rows + unit) <= self.max_tokens
                border = within_prompts or sizes.prompt_B[unit[0]] != sizes.prompt_B[rows[-1]]
                longest = max(sizes.after_B[row] for row in rows)
                short = max(sizes.after_B[row] for row in unit) < ENOUGH * longest
                if fits and not (border and short and sizes.shared(rows) >= self.max_tokens // 8):
                    rows += unit
                    continue
            passes.append(list(unit))
        return passes

    def deal(self, batch: Batch, processes: int) -> list[list[list[int]]]:
        """The passes of each process, rows of a prompt in one process where that leaves less for the busiest."""
        units = [list(range(start, start + self.unit)) for start in range(0, len(batch), self.unit)]
        ways = [units]
        if self.gain is not None and processes > 1:
            prompt_B = distinct_prompts(batch)[0]
            together: dict[int, list[int]] = {}
            for unit in units:
                together.setdefault(prompt_B[unit[0]], []).extend(unit)
            ways.append(list(together.values()))
        dealt = [self._dealt(batch, way, processes) for way in ways]
        if len(dealt) == 1:
            return dealt[0]
        sizes = Sizes.of(batch)
        return min(dealt, key=lambda way: max(self.cost(sizes, passes) for passes in way))

    def _dealt(self, batch: Batch, units: Sequence[list[int]], processes: int) -> list[list[list[int]]]:
        lengths = [len(ids) for ids in batch.input_ids]
        found: list[list[list[int]]] = []
        for rows in deal(units, lengths, processes=processes):
            within = self.passes(batch.select(rows))
            found.append([[rows[row] for row in part] for part in within])
        return found


def deal(units: Sequence[Sequence[int]], lengths: Sequence[int], *, processes: int) -> list[list[int]]:
    """Rows of each process: like token counts everywhere, the rows of a unit never parted.

    Units go out from the largest to the smallest, there and back.

    Example:
        >>> deal([[0], [1], [2], [3], [4], [5]], [5, 1, 4, 2, 3, 6], processes=2)
        [[3, 4, 5], [0, 1, 2]]
    """
    order = sorted(units, key=lambda unit: (-len(unit) * max(lengths[row] for row in unit), unit[0]))
    shares: list[list[int]] = [[] for _ in range(processes)]
    for place, unit in enumerate(order):
        lap, seat = divmod(place, processes)
        shares[seat if lap % 2 == 0 else processes - 1 - seat] += unit
    return [sorted(rows) for rows in shares]


__all__ = ["Planner", "Sizes", "deal"]
