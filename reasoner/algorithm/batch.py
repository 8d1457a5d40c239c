"""One optimizer step's rows as flat tensors. Letters: B rows, N completion tokens of all rows, T of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar, cast

import torch
from torch import Tensor

from reasoner.algorithm.group_baselines import normalized_sums, terms_of
from reasoner.algorithm.token_weights import token_weights
from reasoner.config.stage import StageConfig
from reasoner.records import Completion, FinishReason, Rollout

Number = TypeVar("Number", int, float)
ENOUGH = 0.8
"""Of the longest row's length (ours): completions of a third of their limit on average train at half the cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows without padding: every `_N` tensor holds the completion tokens of row 0, then of row 1, ...

    A micro-batch is a Batch of some of the rows. Anything normalised (`weights_N`, advantages) is set
    once, for the whole optimizer step, so that micro-batches are only summed: see `token_weights`.
    """

    input_ids: tuple[Tensor, ...]
    """B tensors [prompt + completion] of int64."""
    prompt_lengths_B: Tensor
    """[B] int64."""
    row_N: Tensor
    """[N] int64: the row of each completion token, 0 .. B-1, ascending."""
    loss_mask_N: Tensor
    """[N] bool: True where the token is trained on."""
    reward_B: Tensor
    """[B] float64. Ungraded rollouts have left before a batch is made."""
    quality_B: Tensor | None = None
    """[B] float64: how right each answer is (`Verdict.quality`) plus shaping, where the reward counts other things."""
    group_B: Tensor
    """[B] int64: rows of one problem share a number."""
    weights_N: Tensor
    """[N] float32: each token's share in the loss of the whole optimizer step; 0 where masked."""
    rollout_logprobs_N: Tensor
    """[N] float32: the engine's, at sampling."""
    advantages_N: Tensor | None = None
    """[N] float32, set by the advantage estimator."""
    old_logprobs_N: Tensor | None = None
    """[N] float32: the trainer's weights at the start of the step; None where provably the trainer's own."""
    ref_logprobs_N: Tensor | None = None
    values_N: Tensor | None = None
    """[N] float32: value head, before the step."""
    returns_N: Tensor | None = None
    """[N] float32: targets of the value head."""
    margin_B: Tensor | None = None
    """[B] float32: of preference pairs (rows 2c and 2c + 1, the better one first), the margin of the row's pair."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @classmethod
    def of_rollouts(cls, rows: Sequence[tuple[int, Rollout]], *, config: StageConfig) -> Batch:
        """Make the rows of one optimizer step from (group, graded rollout) pairs, with their weights.

        With `algorithm.mask_truncated` no token of a truncated completion is trained on; its reward still counts.
        With several portions (`grading.portions`) the rest of the step is not known yet: the weights are those of a
        step of full length, and provisional (`whole_step_scale`).
        """
        completions = [rollout.completion for _, rollout in rows]
        rewards = row_rewards(rows, normalized=config.algorithm.normalize_components)
        qualities = [(rollout.verdict.quality or 0.0) + rollout.shaping for _, rollout in rows]
        lengths = torch.tensor([len(completion.token_ids) for completion in completions])
        row_N = torch.repeat_interleave(torch.arange(len(rows)), lengths)
        batch = cls(
            input_ids=tuple(torch.tensor(r.prompt_ids + r.completion.token_ids) for _, r in rows),
            prompt_lengths_B=torch.tensor([len(rollout.prompt_ids) for _, rollout in rows]),
            row_N=row_N,
            loss_mask_N=torch.tensor([kept for c in completions for kept in _trained(c, config)], dtype=torch.bool),
            reward_B=torch.tensor(rewards, dtype=torch.float64),
            quality_B=torch.tensor(qualities, dtype=torch.float64),
            group_B=torch.tensor([group for group, _ in rows]),
            weights_N=torch.zeros(len(row_N)),
            rollout_logprobs_N=torch.tensor([value for c in completions for value in c.rollout_logprobs]),
        )
        if config.grading.portions == 1:
            return batch.reweighed(config)
        most = config.rollout.problems_per_step * config.rollout.group_size
        return batch.reweighed(config, rows=most, tokens=most * config.rollout.max_tokens)

    def reweighed(self, config: StageConfig, *, rows: int | None = None, tokens: int | None = None) -> Batch:
        """The same rows with `weights_N` set for them as one whole optimizer step, or as some rows of one.

        Args:
            config: its aggregation.
            rows: of the whole step; None: these.
            tokens: trained ones of the whole step; None: those of these rows.
        """
        weights_N = token_weights(
            self.loss_mask_N,
            self.row_N,
            rows=len(self) if rows is None else rows,
            mode=config.algorithm.aggregation,
            max_tokens=config.rollout.max_tokens,
            tokens=tokens,
        )
        return replace(self, weights_N=weights_N)

    def whole_step_scale(self, config: StageConfig) -> float:
        """Factor from the provisional weights of a step's portions to those of the full step; 1 for one portion."""
        provisional = self.weights_N.double().sum().item()
        if config.grading.portions == 1 or not provisional:
            return 1.0
        return self.reweighed(config).weights_N.double().sum().item() / provisional

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """The rows of several batches as one; at least one batch, all annotated alike."""
        first, rows = batches[0], 0
        if len(batches) == 1:
            return first
        row_N: list[Tensor] = []
        for batch in batches:
            row_N.append(batch.row_N + rows)
            rows += len(batch)
        tensors = {
            field.name: torch.cat([getattr(batch, field.name) for batch in batches])
            for field in fields(first)
            if isinstance(getattr(first, field.name), Tensor)
        }
        tensors["row_N"] = torch.cat(row_N)
        return replace(first, input_ids=tuple(ids for batch in batches for ids in batch.input_ids), **tensors)

    def select(self, rows: Sequence[int]) -> Batch:
        """Some of the rows, in the given order, as a Batch of their own (row_N is renumbered)."""
        starts = self.row_starts()
        index_B = torch.as_tensor(rows, dtype=torch.long)
        spans = [torch.arange(starts[row], starts[row + 1]) for row in rows]
        index_N = torch.cat(spans) if spans else torch.zeros(0, dtype=torch.long)
        lengths = torch.tensor([len(span) for span in spans], dtype=torch.long)
        taken: dict[str, Tensor | None] = {}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                taken[name] = value[index_N if name.endswith("_N") else index_B]
        taken["row_N"] = torch.repeat_interleave(torch.arange(len(rows)), lengths)
        return replace(self, input_ids=tuple(self.input_ids[row] for row in rows), **taken)

    def row_starts(self) -> list[int]:
        """B + 1 offsets into the _N tensors."""
        counts = torch.bincount(self.row_N, minlength=len(self))
        return [0, *listed(torch.cumsum(counts, 0), int)]

    def micro_rows(self, max_tokens: int, *, unit: int = 1) -> Iterator[list[int]]:
        """Rows of each micro-batch: at most max_tokens tokens with padding, rows of like length together.

        `unit` consecutive rows (2: the two sides of a pair) are never parted. A unit longer than max_tokens is a
        micro-batch of its own. One that holds an eighth of max_tokens ends where a row is shorter than ENOUGH of its
        longest: a pass more costs less than the padding.
        """
        units = [list(range(start, start + unit)) for start in range(0, len(self), unit)]
        longest_of = [max(len(self.input_ids[row]) for row in rows) for rows in units]
        taken: list[int] = []
        longest = 0
        for place in sorted(range(len(units)), key=lambda place: -longest_of[place]):
            full = longest * (len(taken) + unit) > max_tokens
            short = longest_of[place] < ENOUGH * longest and longest * len(taken) >= max_tokens // 8
            if taken and (full or short):
                yield taken
                taken = []
            longest = longest if taken else longest_of[place]
            taken += units[place]
        if taken:
            yield taken

    def to(self, device: torch.device) -> Batch:
        """The same batch with its _N and _B tensors on a device."""
        moved = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


def row_rewards(rows: Sequence[tuple[int, Rollout]], *, normalized: bool) -> list[float]:
    """The rewards that the estimator is given, of (group, graded rollout) pairs.

    Args:
        rows: whole groups, without their ungraded rollouts.
        normalized: components are normalized within their group before they are added (`normalized_sums`); what the
            trainer adds to the verdict (a length penalty) is added as it is.
    """
    if not normalized:
        return [(rollout.verdict.reward or 0.0) + rollout.shaping for _, rollout in rows]
    places: dict[int, list[int]] = {}
    for place, (group, _) in enumerate(rows):
        places.setdefault(group, []).append(place)
    rewards = [rollout.shaping for _, rollout in rows]
    for members in places.values():
        verdicts = [rows[place][1].verdict for place in members]
        terms = [terms_of(v.reward or 0.0, components=v.components, weights=v.weights) for v in verdicts]
        for place, value in zip(members, normalized_sums(terms), strict=True):
            rewards[place] += value
    return rewards


def _trained(completion: Completion, config: StageConfig) -> tuple[bool, ...]:
    """[T] the completion's loss mask; nothing of a truncated one where algorithm.mask_truncated leaves it out."""
    if config.algorithm.mask_truncated and completion.finish_reason is FinishReason.LENGTH:
        return (False,) * len(completion.loss_mask)
    return completion.loss_mask


def listed(values: Tensor, kind: Callable[[float], Number]) -> list[Number]:
    """Return the numbers of a [B] or [N] tensor as a list."""
    numbers = cast("list[float]", values.tolist())  # pyright: ignore[reportUnknownMemberType]  (a bare list in torch)
    return list(map(kind, numbers))
