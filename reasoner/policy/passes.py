"""Which rows go through the model together: as few tokens as can be, prompts that several rows share counted once.

Letters: B rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reasoner.algorithm.batch import Batch
from reasoner.policy.layout import distinct_prompts

GAIN = {"cpu": 0.95}
"""A pass without padding must run fewer tokens than this share of the padded ones (measured: 0.9 of them behind shared
prompts take 0.95 of the time, because of the mask; where nothing is shared a token takes as long)."""
GAIN_ELSEWHERE = 0.75
"""On other devices (not measured): attention behind shared prompts takes a mask, which the fastest kernels do not."""
KEPT = 8
"""A prompt's keys and values that attention holds for a row, in tokens' memory: about an eighth of a token's
activations (2 of some 17 hidden units' worth a layer; see memory.py)."""


class Sizes(NamedTuple):
    """What a batch's rows cost."""

    prompt_B: list[int]
    """Place of each row's prompt among the distinct ones."""
    before_B: list[int]
    """Tokens of the prompt: what rows can share."""
    after_B: list[int]
    """Tokens of the completion that are run without padding."""
    length_B: list[int]

    @classmethod
    def of(cls, batch: Batch, *, ends: bool = False) -> Sizes:
        """`ends`: of passes that run each row's last token too."""
        before_B, length_B = batch.prompt_lengths_B.tolist(), [len(ids) for ids in batch.input_ids]
        after_B = [max(0, n - before - (not ends)) for n, before in zip(length_B, before_B, strict=True)]
        return cls(distinct_prompts(batch)[0], before_B, after_B, length_B)

    def padded(self, rows: Sequence[int]) -> int:
        """Tokens of a pass with these rows side by side."""
        return len(rows) * max(self.length_B[row] for row in rows)

    def unpadded(self, rows: Sequence[int]) -> int:
        """Tokens of a pass with these rows in one line."""
        prompts = {self.prompt_B[row]: self.before_B[row] for row in rows}
        return sum(prompts.values()) + sum(self.after_B[row] for row in rows)

    def held(self, rows: Sequence[int]) -> int:
        """What such a pass holds in memory, in tokens."""
        shared = len({self.prompt_B[row] for row in rows}) < len(rows)
        copies = len(rows) * max(self.before_B[row] for row in rows) if shared else 0
        return self.unpadded(rows) + copies // KEPT


class Planner:
    """Divides rows into passes on one kind of device."""

    def __init__(self, *, max_tokens: int, unit: int = 1, gain: float | None = None, ends: bool = False) -> None:
        """`gain` None: every pass is padded; `ends`: one without padding runs each row's last token too."""
        self.max_tokens = max_tokens
        self.unit = unit
        self.gain = gain
        self.ends = ends

    def sizes(self, batch: Batch) -> Sizes:
        """What a batch's rows cost here."""
        return Sizes.of(batch, ends=self.ends)

    def unpads(self, sizes: Sizes, rows: Sequence[int]) -> bool:
        """Whether these rows run without padding."""
        return self.gain is not None and len(rows) > 1 and sizes.unpadded(rows) < self.gain * sizes.padded(rows)

    def held(self, sizes: Sizes, rows: Sequence[int]) -> int:
        """What a pass with these rows holds in memory, in tokens."""
        return sizes.held(rows) if self.unpads(sizes, rows) else sizes.padded(rows)

    def cost(self, sizes: Sizes, passes: Iterable[Sequence[int]]) -> float:
        """Tokens that passes run, in tokens of padded ones that take as long, and what each costs by itself (ours)."""
        return sum(
            self.max_tokens // 64
            + (sizes.unpadded(rows) / self.gain if self.gain and self.unpads(sizes, rows) else sizes.padded(rows))
            for rows in passes
        )

    def passes(self, batch: Batch) -> list[list[int]]:
        """Rows of each pass: rows of like length side by side, or rows of a prompt together, whichever costs less."""
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
            if together and self.held(sizes, together[-1] + unit) <= self.max_tokens:
                together[-1] += unit
            else:
                together.append(list(unit))
        return min(alike, together, key=lambda way: self.cost(sizes, way))

    def deal(self, batch: Batch, processes: int) -> list[list[list[int]]]:
        """The passes of each process, rows of a prompt in one process where that leaves less for the busiest."""
        units = self._units(batch)
        alone = self._dealt(batch, units, processes)
        if self.gain is None or processes == 1:
            return alone
        sizes = self.sizes(batch)
        together: dict[int, list[int]] = {}
        for unit in units:
            together.setdefault(sizes.prompt_B[unit[0]], []).extend(unit)
        dealt = (alone, self._dealt(batch, list(together.values()), processes))
        return min(dealt, key=lambda way: max(self.cost(sizes, passes) for passes in way))

    def _units(self, batch: Batch) -> list[list[int]]:
        """Rows that are never parted."""
        return [list(range(start, start + self.unit)) for start in range(0, len(batch), self.unit)]

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
