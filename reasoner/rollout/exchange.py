"""Graded groups as they travel between processes: token ids as int32, log-probabilities as float32, the rest once.

A prompt travels once for each group, and its problem not at all: every process has the problems of a round, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reasoner.records import Completion, Problem, Rollout, RolloutGroup
from verifiers import Verdict


class Card(NamedTuple):
    """A rollout without its tokens."""

    completion: Completion
    """Without token ids, log-probabilities and loss mask."""
    tokens: int
    verdict: Verdict
    sample_index: int
    step: int


class Packed(NamedTuple):
    """Groups of one process."""

    places: list[int]
    """Index of each group's problem among the problems of the round."""
    prompts: list[tuple[str, int]]
    """Each group's prompt: its text and number of tokens."""
    cards: list[list[Card]]
    ids: npt.NDArray[np.int32]
    """Prompt tokens of each group, then the completions' tokens of its rollouts."""
    logprobs: npt.NDArray[np.float32]
    masks: npt.NDArray[np.uint8] | None
    """Loss masks in bits; None if the policy sampled every token."""


def pack(groups: Sequence[tuple[int, RolloutGroup]]) -> Packed:
    """Pack (index of the problem, group) pairs. All rollouts of a group have the same prompt."""
    ids: list[int] = []
    rollouts = [rollout for _, group in groups for rollout in group.rollouts]
    for _, group in groups:
        ids += group.rollouts[0].prompt_ids
        for rollout in group.rollouts:
            ids += rollout.completion.token_ids
    mask = [kept for rollout in rollouts for kept in rollout.completion.loss_mask]
    return Packed(
        places=[place for place, _ in groups],
        prompts=[(group.rollouts[0].prompt_text, len(group.rollouts[0].prompt_ids)) for _, group in groups],
        cards=[[_card(rollout) for rollout in group.rollouts] for _, group in groups],
        ids=np.array(ids, dtype=np.int32),
        logprobs=np.array([x for rollout in rollouts for x in rollout.completion.rollout_logprobs], dtype=np.float32),
        masks=None if all(mask) else np.packbits(np.array(mask, dtype=bool)),
    )


def _card(rollout: Rollout) -> Card:
    bare = replace(rollout.completion, token_ids=(), rollout_logprobs=(), loss_mask=())
    return Card(bare, len(rollout.completion.token_ids), rollout.verdict, rollout.sample_index, rollout.step)


def unpack(packed: Packed, problems_P: Sequence[Problem]) -> list[RolloutGroup]:
    """Return the groups that `pack` was given; a log-probability is rounded to float32."""
    total = len(packed.logprobs)
    mask = np.ones(total, dtype=bool) if packed.masks is None else np.unpackbits(packed.masks, count=total).astype(bool)
    groups: list[RolloutGroup] = []
    at = token = 0
    for place, (text, length), cards in zip(packed.places, packed.prompts, packed.cards, strict=True):
        prompt_ids = tuple(packed.ids[at : at + length].tolist())
        at += length
        rollouts: list[Rollout] = []
        for card in cards:
            here = slice(token, token + card.tokens)
            completion = replace(
                card.completion,
                token_ids=tuple(packed.ids[at : at + card.tokens].tolist()),
                rollout_logprobs=tuple(packed.logprobs[here].tolist()),
                loss_mask=tuple(mask[here].tolist()),
            )
            at, token = at + card.tokens, token + card.tokens
            rollouts.append(
                Rollout(
                    problem=problems_P[place],
                    prompt_text=text,
                    prompt_ids=prompt_ids,
                    completion=completion,
                    verdict=card.verdict,
                    sample_index=card.sample_index,
                    step=card.step,
                )
            )
        groups.append(RolloutGroup(problem=problems_P[place], rollouts=tuple(rollouts)))
    return groups
