"""Distillation: what a teacher reads and says of rows, and the divergence between its distribution and the student's.

Letters: N completion tokens, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch

NO_TOKEN_LOGPROB = -20.0
"""Teacher's log-probability of an id that no token of the tokenizer has (our choice). A model whose embedding is padded
can sample one; the teacher may have no row for it, and its text is empty."""


def generalized_jsd(student_NV: Tensor, teacher_NV: Tensor, *, beta: float) -> Tensor:
    """Return [N] generalized Jensen-Shannon divergences in nats, with gradient: arXiv:2306.13649, section 2.

    beta KL(P || M) + (1 - beta) KL(Q || M), with the teacher P, the student Q and M = beta P + (1 - beta) Q. At the
    ends, where this is 0, the KL stands to which it is proportional nearby, as in TRL: for beta 0 the forward
    KL(P || Q), for beta 1 the reverse KL(Q || P). So it is not continuous in beta: near 0 it is beta times the forward
    KL.

    Args:
        student_NV: [N, V] log-probabilities, normalized.
        teacher_NV: the same of the teacher.
        beta: in [0, 1].

    Example:
        >>> half, sure = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.8, 0.2]]).log()
        >>> [round(generalized_jsd(half, sure, beta=beta).item(), 3) for beta in (0.0, 0.5, 1.0)]
        [0.193, 0.051, 0.223]
    """
    if beta == 0:
        return _kl(teacher_NV, student_NV)
    if beta == 1:
        return _kl(student_NV, teacher_NV)
    mixture_NV = torch.logaddexp(student_NV + math.log1p(-beta), teacher_NV + math.log(beta))
    return beta * _kl(teacher_NV, mixture_NV) + (1 - beta) * _kl(student_NV, mixture_NV)


def _kl(left_NV: Tensor, right_NV: Tensor) -> Tensor:
    """Return [N] KL(left || right) of log-probabilities."""
    return (left_NV.exp() * (left_NV - right_NV)).sum(-1)


def readable(batch: Batch, *, tokens: int) -> Batch:
    """Return the batch as a teacher reads it: ids that no token has are replaced by 0.

    Args:
        batch: the rows.
        tokens: number of ids of the tokenizer, which teacher and student share.
    """
    if all(bool((ids < tokens).all()) for ids in batch.input_ids):
        return batch
    return replace(batch, input_ids=tuple(torch.where(ids < tokens, ids, 0) for ids in batch.input_ids))


def with_teacher(batch: Batch, logprobs_N: Tensor, *, tokens: int) -> Batch:
    """Set the teacher's log-probabilities of a batch, with NO_TOKEN_LOGPROB for ids that no token has.

    Args:
        batch: the rows as sampled.
        logprobs_N: [N] what the teacher said of them as `readable`.
        tokens: number of ids of the tokenizer.
    """
    completions = [ids[int(n) :] for ids, n in zip(batch.input_ids, batch.prompt_lengths_B, strict=True)]
    unknown_N = torch.cat(completions) >= tokens
    return replace(batch, teacher_logprobs_N=torch.where(unknown_N, NO_TOKEN_LOGPROB, logprobs_N))
