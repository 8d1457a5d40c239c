"""Direct preference optimization: `method: dpo`. Letters: B rows, C pairs, N completion tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.completion_sums import log_ratios, row_sums
from reasoner.algorithm.loss import LossTerms
from reasoner.algorithm.objective import Objective, TokenScores
from reasoner.algorithm.pairwise import DPO_LOSSES, PairScores
from reasoner.config.by_name import check_options, named
from reasoner.config.errors import ConfigError
from reasoner.config.pair_losses import pair_traits
from reasoner.config.sections import DpoSection
from reasoner.config.stage import StageConfig
from reasoner.data.pairs import EncodedPair, pair_batch
from reasoner.evaluation.reward_report import pairwise_accuracy
from reasoner.policy.policy import Policy
from reasoner.records import Estimate
from reasoner.session.session import Session
from reasoner.stages.encoded_pairs import load_encoded
from reasoner.stages.reference_logprobs import Reference
from reasoner.stages.supervised import Lesson, Validation, supervise


def dpo(session: Session) -> None:
    """Train on pairs. Reference log-probabilities are computed once, by the start model before its first step.

    A loss without a reference computes and keeps none.
    """
    section, policy = session.config.dpo, session.policy
    train, validation = load_encoded(session)
    reference = Reference.of(session, train, validation) if section.has_reference else None

    def batch_of_pairs(pairs: Sequence[EncodedPair], side: str) -> Batch:
        batch = pair_batch(pairs)
        return replace(batch, ref_logprobs_N=reference.of_both(pairs, side=side)) if reference else batch

    def objective_of(batch: Batch) -> Objective:
        return dpo_objective(section, pairs=len(batch) // 2, chosen_tokens=int(chosen_tokens(batch)))

    lesson = Lesson(
        items=train,
        items_per_step=section.pairs_per_step,
        shuffle=session.config.preferences.shuffle,
        batch=lambda pairs: batch_of_pairs(pairs, "train"),
        objective=objective_of,
        evaluate=(lambda: evaluate_policy(policy, batch_of_pairs(validation, "test"), section)) if validation else None,
    )
    supervise(session, lesson)


def check_loss(config: StageConfig) -> None:
    """Compute the loss of one made-up pair at the start of training: policy and reference agree, both sides are equal.

    Raises:
        ConfigError: there is no such loss or option, or its gradient does not favour the better completion.
    """
    section = config.dpo
    loss_of = named(DPO_LOSSES, section.loss, "DPO loss")
    check_options(loss_of, {"beta": 0.0, **section.loss_options}, f"DPO loss {section.loss!r}")
    ones_C = torch.ones(1)
    start_C = torch.zeros(1) if section.has_reference else -ones_C
    first_C = start_C.clone().requires_grad_()
    try:
        pair = PairScores(first_C, start_C, ones_C, ones_C, ones_C)
        loss_C = loss_of(pair, beta=section.beta, **section.loss_options)
    except (ValueError, TypeError) as error:
        raise ConfigError("bad-value", f"dpo: {error}") from error
    slope = float(torch.autograd.grad(loss_C.sum(), first_C)[0]) if loss_C.requires_grad else 0.0
    if not slope < 0:
        raise ConfigError(
            "no-effect",
            f"dpo.loss {section.loss!r} must decrease as the better completion becomes likelier; with dpo.loss_options"
            f" {dict(section.loss_options)} its slope at the start is {slope:.3g}: the labels would teach"
            f" {'the opposite' if slope > 0 else 'nothing'} (label_smoothing must be below 0.5).",
        )


def chosen_tokens(batch: Batch) -> Tensor:
    """Count the trained tokens of the better completions."""
    return (batch.loss_mask_N & (batch.row_N % 2 == 0)).sum()


def pair_scores(logprobs_N: Tensor, micro: Batch, *, reference: bool = True) -> PairScores:
    """Compute log-ratios of whole completions; log-probabilities if there is to be no reference."""
    sums_B = log_ratios(logprobs_N, micro) if reference else row_sums(logprobs_N, micro)
    tokens_B = row_sums(torch.ones_like(logprobs_N), micro)
    return PairScores(sums_B[0::2], sums_B[1::2], tokens_B[0::2], tokens_B[1::2], micro.reward_B[0::2].to(sums_B.dtype))


def dpo_objective(section: DpoSection, *, pairs: int, chosen_tokens: int) -> Objective:
    """Build the mean loss over pairs plus sft_coef times the mean negative log-likelihood of chosen tokens.

    `pairs` and `chosen_tokens` are the counts of the whole optimizer step.
    """
    loss_of = named(DPO_LOSSES, section.loss, "DPO loss")

    def objective(scores: TokenScores, micro: Batch) -> LossTerms:
        seen = pair_scores(scores.logprobs_N, micro, reference=section.has_reference)
        loss_C = loss_of(seen, beta=section.beta, **section.loss_options)
        loss = loss_C.sum() / pairs
        chosen_N = micro.loss_mask_N & (micro.row_N % 2 == 0)
        likelihood = torch.where(chosen_N, scores.logprobs_N, 0.0).sum()
        if section.sft_coef > 0:
            loss = loss - section.sft_coef * likelihood / max(1, chosen_tokens)
        first_C, second_C = implicit_rewards(seen, section)
        return LossTerms(
            loss,
            {
                "dpo/reward_chosen": first_C.sum(),
                "dpo/reward_rejected": second_C.sum(),
                "dpo/margin": (first_C - second_C).sum(),
                "dpo/accuracy": (first_C > second_C).sum(),
                "dpo/loss": loss_C.detach().sum(),
                "tokens": torch.tensor(len(first_C)),
            },
        )

    return objective


def implicit_rewards(seen: PairScores, section: DpoSection) -> tuple[Tensor, Tensor]:
    """Return [C] rewards of both sides, without gradient: beta times what the loss compares."""
    compared = seen.per_token() if pair_traits(section.loss).per_token else seen
    return section.beta * compared.first_C.detach(), section.beta * compared.second_C.detach()


@torch.no_grad()
def evaluate_policy(policy: Policy, batch: Batch, section: DpoSection) -> Validation:
    """Compute the held-out loss, and the share of pairs whose better completion has the higher implicit reward."""
    scored = policy.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N
    assert scored is not None
    seen = pair_scores(scored.double(), batch, reference=section.has_reference)
    loss = float(named(DPO_LOSSES, section.loss, "DPO loss")(seen, beta=section.beta, **section.loss_options).mean())
    first_C, second_C = implicit_rewards(seen, section)
    differences = (first_C - second_C)[seen.target_C != 0.5].tolist()
    decided = any(differences)  # before the first step policy and reference are equal
    estimates = {"accuracy": Estimate(*pairwise_accuracy(differences))} if decided else {}
    return Validation(loss, estimates, {"loss": loss, "pairs": len(batch) // 2})
