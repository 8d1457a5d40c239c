"""Kahneman-Tversky optimization: `method: kto`. Letters: B rows, N completion tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch, listed
from reasoner.algorithm.completion_sums import log_ratios
from reasoner.algorithm.loss import LossTerms
from reasoner.algorithm.objective import Objective, TokenScores
from reasoner.algorithm.unpaired import kl_baseline
from reasoner.algorithm.unpaired import kto as kto_loss
from reasoner.config.sections import KtoSection
from reasoner.evaluation.reward_report import separation
from reasoner.policy.policy import Policy
from reasoner.records import Estimate
from reasoner.session.session import Session
from reasoner.stages.encoded_labels import EncodedLabel, labels_batch, load_labels, mismatched_batch
from reasoner.stages.reference_logprobs import Reference
from reasoner.stages.supervised import Lesson, Validation, supervise


def kto(session: Session) -> None:
    """Train on single completions with a label. Each step first estimates the KL from its mismatched completions."""
    section, policy = session.config.kto, session.policy
    train, validation = load_labels(session)
    reference = Reference.of(session, train, validation)

    def batch_of_rows(rows: Sequence[EncodedLabel], side: str) -> Batch:
        return replace(labels_batch(rows), ref_logprobs_N=reference.of_first(rows, side=side))

    def kl_of(rows: Sequence[EncodedLabel], side: str) -> float:
        other = replace(mismatched_batch(rows), ref_logprobs_N=reference.of_second(rows, side=side))
        return kl_baseline(scored_ratios(policy, other))

    def objective_of(batch: Batch) -> Objective:
        rows = [train[number] for number in listed(batch.group_B, int)]
        return kto_objective(section, batch, kl=kl_of(rows, "train"))

    def evaluate() -> Validation:
        batch = batch_of_rows(validation, "test")
        found = evaluate_labels(scored_ratios(policy, batch), batch, section, kl=kl_of(validation, "test"))
        # before the first step policy and reference are one model, and their rewards differ by rounding only
        return found if session.step else found._replace(estimates={})

    lesson = Lesson(
        items=train,
        items_per_step=section.rows_per_step,
        shuffle=session.config.preferences.shuffle,
        batch=lambda rows: batch_of_rows(rows, "train"),
        objective=objective_of,
        evaluate=evaluate if validation else None,
    )
    supervise(session, lesson)


@torch.no_grad()
def scored_ratios(policy: Policy, batch: Batch) -> Tensor:
    """Score a batch; return [B] float64 log-ratios of its completions to the reference."""
    scored = policy.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N
    assert scored is not None
    return log_ratios(scored.double(), batch)


def kto_objective(section: KtoSection, batch: Batch, *, kl: float) -> Objective:
    """Build the mean loss over the rows of `batch`, the whole optimizer step."""
    rows, desirable = len(batch), int(batch.reward_B.sum())
    per_desirable, per_undesirable = rows / max(1, desirable), rows / max(1, rows - desirable)

    def objective(scores: TokenScores, micro: Batch) -> LossTerms:
        ratio_B, desirable_B = log_ratios(scores.logprobs_N, micro), micro.reward_B > 0.5
        loss_B = row_losses(ratio_B, desirable_B, section, kl=kl)
        reward_B = section.beta * ratio_B.detach()
        good, bad = reward_B[desirable_B].sum() * per_desirable, reward_B[~desirable_B].sum() * per_undesirable
        return LossTerms(
            loss_B.sum() / rows,
            {
                "kto/reward_desirable": good,
                "kto/reward_undesirable": bad,
                "kto/margin": good - bad,
                "kto/kl": torch.tensor(kl * len(micro)),
                "kto/desirable": desirable_B.sum(),
                "tokens": torch.tensor(len(micro)),
            },
        )

    return objective


def row_losses(ratio_B: Tensor, desirable_B: Tensor, section: KtoSection, *, kl: float) -> Tensor:
    """Return [B] losses with the section's settings."""
    return kto_loss(
        ratio_B,
        desirable_B,
        kl=kl,
        beta=section.beta,
        desirable_weight=section.desirable_weight,
        undesirable_weight=section.undesirable_weight,
    )


def evaluate_labels(ratio_B: Tensor, batch: Batch, section: KtoSection, *, kl: float) -> Validation:
    """Compute the held-out loss, and how often a desirable completion has a higher reward than an undesirable one."""
    desirable_B = batch.reward_B > 0.5
    loss = float(row_losses(ratio_B, desirable_B, section, kl=kl).mean())
    good, bad = listed(ratio_B[desirable_B], float), listed(ratio_B[~desirable_B], float)
    estimates = {"accuracy": Estimate(*separation(good, bad))} if good and bad else {}
    return Validation(loss, estimates, {"loss": loss, "rows": len(batch), "desirable": len(good), "kl": kl})
