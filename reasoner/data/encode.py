"""Given (not sampled) texts as rows of a batch: demonstrations and the two sides of a preference.

Letters: B rows, N completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.algorithm.batch import Batch
from reasoner.config.sections import PromptSection
from reasoner.data.prompt import Prompt, render_each
from reasoner.data.rows import Encoded
from reasoner.data.turns import turns_of
from tasks import Message, Problem


def completion_ids(
    text: str, tokenizer: PreTrainedTokenizerBase, section: PromptSection | None = None
) -> tuple[int, ...]:
    """Encode a given completion as the policy would have sampled it: its tokens and the end token."""
    return turns_of(tokenizer, section or PromptSection()).completion_ids(text)


def batch_of(
    rows: Sequence[Encoded],
    *,
    rewards: Sequence[float] | None = None,
    groups: Sequence[int] | None = None,
    margins: Sequence[float] | None = None,
) -> Batch:
    """Build the batch of one optimizer step; each trained token has weight 1 / (number of trained tokens).

    Args:
        rows: B encoded rows.
        rewards: [B]; zeros by default.
        groups: [B] group numbers; by default each row is its own group.
        margins: [B] margins of preference pairs; None for other data.
    """
    lengths = torch.tensor([len(row.completion_ids) for row in rows])
    row_N = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    mask_N = torch.tensor([kept for row in rows for kept in row.loss_mask], dtype=torch.bool)
    return Batch(
        input_ids=tuple(torch.tensor([*row.prompt_ids, *row.completion_ids]) for row in rows),
        prompt_lengths_B=torch.tensor([len(row.prompt_ids) for row in rows]),
        row_N=row_N,
        loss_mask_N=mask_N,
        reward_B=torch.tensor(list(rewards or [0.0] * len(rows)), dtype=torch.float64),
        group_B=torch.tensor(list(groups or range(len(rows)))),
        weights_N=mask_N.float() / max(1, int(mask_N.sum())),
        rollout_logprobs_N=torch.zeros(len(row_N)),
        margin_B=None if margins is None else torch.tensor(list(margins)),
    )


def encode(
    prompt: str | tuple[Message, ...],
    completion: str,
    tokenizer: PreTrainedTokenizerBase,
    section: PromptSection,
    *,
    name: str,
) -> Encoded:
    """Render and encode a prompt and its completion for a reward model, ended as the policy ends a completion.

    Raises:
        UnusableRow: the chat template rejects the prompt.
    """
    problem = Problem(id=name, prompt=prompt, reference=None, verifier="reward-model")
    (rendered,) = render_each([problem], tokenizer, section)
    if not isinstance(rendered, Prompt):
        raise rendered
    ids = completion_ids(completion, tokenizer, section)
    return Encoded(id=name, prompt_ids=rendered.ids, completion_ids=ids, loss_mask=(True,) * len(ids))
