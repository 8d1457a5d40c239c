"""Division of rows into forward passes with few tokens. Prompts that several rows share are counted once.

Letters: B rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reasoner.algorithm.batch import Batch
from reasoner.policy.layout import distinct_prompts

GAIN = {"cpu": 0.95}
"""Run a pass without padding only if it has fewer tokens than this share of the padded pass. Measured: with shared
prompts 0.9 of the tokens take 0.95 of the time, because of the mask; without sharing the time per token is equal."""
GAIN_ELSEWHERE = 0.75
"""The same for other devices (not measured): attention after shared prompts needs a mask, which the fastest kernels
do not support."""
KEPT = 8
"""Memory of one row's copy of its prompt's keys and values: 1/8 of the activations of the same number of tokens
(2 of about 17 hidden-size vectors per layer; see memory.py)."""


class Sizes(NamedTuple):
    """Token counts of a batch's rows, from which the cost of a pass follows."""

    prompt_B: list[int]
    """Index of each row's prompt among the distinct prompts."""
    before_B: list[int]
    """Tokens of the prompt, which rows can share."""
    after_B: list[int]
    """Tokens of the completion that a pass without padding runs."""
    length_B: list[int]

    @classmethod
    def of(cls, batch: Batch, *, ends: bool = False) -> Sizes:
        """Count the tokens of a batch. `ends`: True if passes also run each row's last token."""
        before_B, length_B = batch.prompt_lengths_B.tolist(), [len(ids) for ids in batch.input_ids]
        after_B = [max(0, n - before - (not ends)) for n, before in zip(length_B, before_B, strict=True)]
        return cls(distinct_prompts(batch)[0], before_B, after_B, length_B)

    def padded(self, rows: Sequence[int]) -> int:
        """Return the tokens of a padded pass with these rows."""
        return len(rows) * max(self.length_B[row] for row in rows)

    def unpadded(self, rows: Sequence[int]) -> int:
        """Return the tokens of a pass without padding with these rows."""
        prompts = {self.prompt_B[row]: self.before_B[row] for row in rows}
        return sum(prompts.values()) + sum(self.after_B[row] for row in rows)

    def memory_tokens(self, rows: Sequence[int]) -> int:
        """Return the memory of a pass without padding, in tokens' activations, with copies of shared prompts."""
        shared = len({self.prompt_B[row] for row in rows}) < len(rows)
        copies = len(rows) * max(self.before_B[row] for row in rows) if shared else 0
        return self.unpadded(rows) + copies // KEPT


class Planner:
    """Planner that divides rows into passes for one kind of device."""

    def __init__(self, *, max_tokens: int, unit: int = 1, gain: float | None = None, ends: bool = False) -> None:
        """Set the limits of a pass.

        Args:
            max_tokens: most tokens of a pass.
            unit: consecutive rows that stay in the same pass.
            gain: token share below which a pass runs without padding (see GAIN); None: every pass is padded.
            ends: True if passes without padding also run each row's last token.
        """
        self.max_tokens = max_tokens
        self.unit = unit
        self.gain = gain
        self.ends = ends

    def sizes(self, batch: Batch) -> Sizes:
        """Count the tokens of a batch's rows."""
        return Sizes.of(batch, ends=self.ends)

    def unpads(self, sizes: Sizes, rows: Sequence[int]) -> bool:
        """Return True if a pass with these rows runs without padding."""
        return self.gain is not None and len(rows) > 1 and sizes.unpadded(rows) < self.gain * sizes.padded(rows)

    def memory_tokens(self, sizes: Sizes, rows: Sequence[int]) -> int:
        """Return the memory of a pass with these rows, in tokens' activations."""
        return sizes.memory_tokens(rows) if self.unpads(sizes, rows) else sizes.padded(rows)

    def cost(self, sizes: Sizes, passes: Iterable[Sequence[int]]) -> float:
        """Estimate the cost of passes in padded-token equivalents.

        Each pass costs max_tokens // 64 plus its tokens (our choice); unpadded tokens are divided by `gain`.
        """
        return sum(
            self.max_tokens // 64
            + (sizes.unpadded(rows) / self.gain if self.gain and self.unpads(sizes, rows) else sizes.padded(rows))
            for rows in passes
        )

    def passes(self, batch: Batch) -> list[list[int]]:
        """Divide rows into passes: similar lengths side by side, or rows with the same prompt, whichever is cheaper."""
        alike = list(batch.micro_rows(self.max_tokens, unit=self.unit))
        if self.gain is None:
            return alike
        sizes = self.sizes(batch)
        longest_P: dict[int, int] = {}
        for prompt, length in zip(sizes.prompt_B, sizes.length_B, strict=True):
            longest_P[prompt] = max(longest_P.get(prompt, 0), length)

        def by_prompt(unit: list[int]) -> tuple[int, int, int]:
            prompt = sizes.prompt_B[unit[0]]
            return (-longest_P[prompt], prompt, -max(sizes.length_B[row] for row in unit))

        together: list[list[int]] = []
        for unit in sorted(self._units(batch), key=by_prompt):
            if together and self.memory_tokens(sizes, together[-1] + unit) <= self.max_tokens:
                together[-1] += unit
            else:
                together.append(list(unit))
        return min(alike, together, key=lambda way: self.cost(sizes, way))

    def distribute(self, batch: Batch, processes: int) -> list[list[list[int]]]:
        """Divide rows over processes and into passes.

        Rows with the same prompt go to one process if that lowers the cost of the busiest process.
        """
        units = self._units(batch)
        alone = self._distributed(batch, units, processes)
        if self.gain is None or processes == 1:
            return alone
        sizes = self.sizes(batch)
        together: dict[int, list[int]] = {}
        for unit in units:
            together.setdefault(sizes.prompt_B[unit[0]], []).extend(unit)
        dealt = (alone, self._distributed(batch, list(together.values()), processes))
        return min(dealt, key=lambda way: max(self.cost(sizes, passes) for passes in way))

    def _units(self, batch: Batch) -> list[list[int]]:
        """Return the groups of consecutive rows that are never separated."""
        return [list(range(start, start + self.unit)) for start in range(0, len(batch), self.unit)]

    def _distributed(self, batch: Batch, units: Sequence[list[int]], processes: int) -> list[list[list[int]]]:
        lengths = [len(ids) for ids in batch.input_ids]
        found: list[list[list[int]]] = []
        for rows in distribute(units, lengths, processes=processes):
            within = self.passes(batch.select(rows))
            found.append([[rows[row] for row in part] for part in within])
        return found


def distribute(units: Sequence[Sequence[int]], lengths: Sequence[int], *, processes: int) -> list[list[int]]:
    """Distribute rows over processes with similar token counts; the rows of a unit stay together.

    Units are dealt from the largest to the smallest, in alternating directions.

    Example:
        >>> distribute([[0], [1], [2], [3], [4], [5]], [5, 1, 4, 2, 3, 6], processes=2)
        [[3, 4, 5], [0, 1, 2]]
    """
    order = sorted(units, key=lambda unit: (-len(unit) * max(lengths[row] for row in unit), unit[0]))
    shares: list[list[int]] = [[] for _ in range(processes)]
    for place, unit in enumerate(order):
        lap, seat = divmod(place, processes)
        shares[seat if lap % 2 == 0 else processes - 1 - seat] += unit
    return [sorted(rows) for rows in shares]
