"""Rows of one optimizer step as flat tensors. Letters: B rows, N completion tokens of all rows, T tokens of one row."""

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
"""Close a micro-batch when the next row is shorter than this fraction of its longest row (our choice). Measured:
completions that average a third of their limit train at half the cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows without padding: every `_N` tensor contains the completion tokens of row 0, then of row 1, ...

    A micro-batch is a Batch with some of the rows. Normalized tensors (`weights_N`, advantages) are set once, for the
    whole optimizer step, so that micro-batches only need to be summed: see `token_weights`.
    """

    input_ids: tuple[Tensor, ...]
    """B tensors [prompt + completion] of int64 token ids."""
    prompt_lengths_B: Tensor
    """[B] int64 number of prompt tokens."""
    row_N: Tensor
    """[N] int64 row of each completion token, 0 .. B-1, ascending."""
    loss_mask_N: Tensor
    """[N] bool: True if the token is trained on."""
    reward_B: Tensor
    """[B] float64. Ungraded rollouts are removed before a batch is built."""
    quality_B: Tensor | None = None
    """[B] float64 correctness of each answer (`Verdict.quality`) plus shaping; the reward may include other terms."""
    group_B: Tensor
    """[B] int64 group number; rows of one problem have the same number."""
    weights_N: Tensor
    """[N] float32 weight of each token in the loss of the whole optimizer step; 0 where masked."""
    rollout_logprobs_N: Tensor
    """[N] float32 log-probabilities of the engine at sampling."""
    advantages_N: Tensor | None = None
    """[N] float32, set by the advantage estimator."""
    old_logprobs_N: Tensor | None = None
    """[N] float32 log-probabilities at the start of the step; None if they equal the trainer's by construction."""
    ref_logprobs_N: Tensor | None = None
    teacher_logprobs_N: Tensor | None = None
    """[N] float32 log-probabilities of the teacher of distillation."""
    values_N: Tensor | None = None
    """[N] float32 predictions of the value head before the step."""
    returns_N: Tensor | None = None
    """[N] float32 targets of the value head."""
    margin_B: Tensor | None = None
    """[B] float32 margin of each row's preference pair. Rows 2c and 2c + 1 are a pair, the better one first."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @classmethod
    def of_rollouts(cls, rows: Sequence[tuple[int, Rollout]], *, config: StageConfig) -> Batch:
        """Build the rows of one optimizer step, with their token weights, from (group, graded rollout) pairs.

        With `algorithm.mask_truncated` no token of a truncated completion is trained on, but its reward still counts.
        With several portions (`grading.portions`) the rest of the step is not known yet. The weights are then
        provisional, computed as for a step of full length; see `whole_step_scale`.
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
        """Set `weights_N` as if these rows were a whole optimizer step, or a part of one of the given size.

        Args:
            config: its aggregation is used.
            rows: number of rows in the whole step; None: the number of these rows.
            tokens: number of trained tokens in the whole step; None: those of these rows.
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
        """Return the factor from the provisional weights of a step's portions to final ones; 1 for one portion."""
        provisional = self.weights_N.double().sum().item()
        if config.grading.portions == 1 or not provisional:
            return 1.0
        return self.reweighed(config).weights_N.double().sum().item() / provisional

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Concatenate at least one batch into one. All batches must have the same annotations."""
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
        """Return some of the rows, in the given order, as a new Batch with renumbered row_N."""
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
        """Return the B + 1 offsets of the rows in the _N tensors."""
        counts = torch.bincount(self.row_N, minlength=len(self))
        return [0, *listed(torch.cumsum(counts, 0), int)]

    def micro_rows(self, max_tokens: int, *, unit: int = 1) -> Iterator[list[int]]:
        """Yield the rows of each micro-batch: at most max_tokens tokens including padding, similar lengths together.

        `unit` consecutive rows (2: the two sides of a pair) always stay together. A unit longer than max_tokens becomes
        a micro-batch of its own. A micro-batch of at least max_tokens / 8 tokens is closed before a unit shorter than
        ENOUGH times its longest row: one more pass costs less than the padding.
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
        """Return the batch with its _N and _B tensors moved to a device."""
        moved = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


def row_rewards(rows: Sequence[tuple[int, Rollout]], *, normalized: bool) -> list[float]:
    """Return the rewards of (group, graded rollout) pairs for the advantage estimator.

    Args:
        rows: complete groups, without their ungraded rollouts.
        normalized: True normalizes the components within their group before adding them up (`normalized_sums`). The
            trainer's shaping (e.g. a length penalty) is added unchanged.
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
    """Return the [T] loss mask of a completion: all False if it is truncated and algorithm.mask_truncated is set."""
    if config.algorithm.mask_truncated and completion.finish_reason is FinishReason.LENGTH:
        return (False,) * len(completion.loss_mask)
    return completion.loss_mask


def listed(values: Tensor, kind: Callable[[float], Number]) -> list[Number]:
    """Convert a [B] or [N] tensor to a list of numbers."""
    numbers = cast("list[float]", values.tolist())  # pyright: ignore[reportUnknownMemberType]  (a bare list in torch)
    return list(map(kind, numbers))
