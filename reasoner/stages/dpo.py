"""Direct preference optimization: `method: dpo`. Letters: B rows, C pairs, N completion tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.loss import LossTerms
from reasoner.algorithm.objective import Objective, TokenScores
from reasoner.algorithm.pairwise import DPO_LOSSES, PairScores
from reasoner.config.by_name import check_options, named
from reasoner.config.errors import ConfigError
from reasoner.config.sections import DpoSection
from reasoner.config.stage import StageConfig
from reasoner.data.pairs import EncodedPair, pair_batch
from reasoner.evaluation.reward_report import pairwise_accuracy
from reasoner.policy.policy import Policy
from reasoner.records import Estimate
from reasoner.session.session import Session
from reasoner.stages.encoded_pairs import load_encoded
from reasoner.stages.supervised import Lesson, Validation, supervise
from reasoner.storage.files import write_atomic

REFERENCE_FILE = "ref_logprobs.safetensors"


def dpo(session: Session) -> None:
    """Train on pairs. Reference log-probabilities are computed once, by the start model before its first step."""
    section, policy = session.config.dpo, session.policy
    train, validation = load_encoded(session)
    reference = Reference.of(session, train, validation)

    def objective_of(batch: Batch) -> Objective:
        return dpo_objective(section, pairs=len(batch) // 2, chosen_tokens=int(chosen_tokens(batch)))

    lesson = Lesson(
        items=train,
        items_per_step=section.pairs_per_step,
        shuffle=session.config.preferences.shuffle,
        batch=lambda pairs: reference.annotate(pairs, side="train"),
        objective=objective_of,
        evaluate=(lambda: evaluate_policy(policy, reference.annotate(validation, side="test"), section))
        if validation
        else None,
    )
    supervise(session, lesson)


def check_loss(config: StageConfig) -> None:
    """Compute the loss of one made-up pair at the start of training, where policy and reference agree.

    Raises:
        ConfigError: there is no such loss or option, or its gradient does not favour the better completion.
    """
    section = config.dpo
    loss_of = named(DPO_LOSSES, section.loss, "DPO loss")
    check_options(loss_of, {"beta": 0.0, **section.loss_options}, f"DPO loss {section.loss!r}")
    first_C, zeros_C, ones_C = torch.zeros(1, requires_grad=True), torch.zeros(1), torch.ones(1)
    try:
        pair = PairScores(first_C, zeros_C, ones_C, ones_C, ones_C)
        loss_C = loss_of(pair, beta=section.beta, **section.loss_options)
    except (ValueError, TypeError) as error:
        raise ConfigError("bad-value", f"dpo: {error}") from error
    slope = float(torch.autograd.grad(loss_C.sum(), first_C)[0]) if loss_C.requires_grad else 0.0
    if not slope < 0:
        raise ConfigError(
            "no-effect",
            f"dpo.loss {section.loss!r} must decrease as the better completion becomes likelier; with dpo.loss_options"
            f" {dict(section.loss_options)} its slope at the reference is {slope:.3g}: the labels would teach"
            f" {'the opposite' if slope > 0 else 'nothing'} (label_smoothing must be below 0.5).",
        )


class Reference:
    """[N] token log-probabilities of all pairs under the stage's start model."""

    def __init__(self, logprobs: dict[str, dict[int, Tensor]]) -> None:
        self._logprobs = logprobs

    @classmethod
    def of(cls, session: Session, train: Sequence[EncodedPair], validation: Sequence[EncodedPair]) -> Reference:
        """Load from the run folder; a new stage first computes and writes them."""
        file = session.run.path / REFERENCE_FILE
        sides = {"train": train, "test": validation}
        if session.fresh:
            flat = {side: _score(session.policy, pairs) for side, pairs in sides.items() if pairs}
            write_atomic(file, save(flat))
        return cls({side: _split(load_file(file)[side], pairs) for side, pairs in sides.items() if pairs})

    def annotate(self, pairs: Sequence[EncodedPair], *, side: str) -> Batch:
        """Build the batch of some pairs with its reference log-probabilities."""
        held = self._logprobs[side]
        return replace(pair_batch(pairs), ref_logprobs_N=torch.cat([held[encoded.number] for encoded in pairs]))


def _score(policy: Policy, pairs: Sequence[EncodedPair]) -> Tensor:
    scored = policy.annotate(pair_batch(pairs), frozenset({"old_logprobs"})).old_logprobs_N
    assert scored is not None
    return scored


def _split(flat_N: Tensor, pairs: Sequence[EncodedPair]) -> dict[int, Tensor]:
    lengths = [len(encoded.first.completion_ids) + len(encoded.second.completion_ids) for encoded in pairs]
    return {encoded.number: part for encoded, part in zip(pairs, flat_N.split(lengths), strict=True)}


def chosen_tokens(batch: Batch) -> Tensor:
    """Count the trained tokens of the better completions."""
    return (batch.loss_mask_N & (batch.row_N % 2 == 0)).sum()


def pair_scores(logprobs_N: Tensor, micro: Batch) -> PairScores:
    """Compute log-ratios of whole completions from token log-probabilities and the batch's reference."""
    assert micro.ref_logprobs_N is not None
    mask_N = micro.loss_mask_N
    ratio_N = torch.where(mask_N, logprobs_N - micro.ref_logprobs_N.to(logprobs_N.dtype), 0.0)
    sums_B = torch.zeros(len(micro), dtype=ratio_N.dtype, device=ratio_N.device).index_add(0, micro.row_N, ratio_N)
    tokens_B = torch.zeros_like(sums_B).index_add(0, micro.row_N, mask_N.to(sums_B.dtype))
    return PairScores(sums_B[0::2], sums_B[1::2], tokens_B[0::2], tokens_B[1::2], micro.reward_B[0::2].to(sums_B.dtype))


def dpo_objective(section: DpoSection, *, pairs: int, chosen_tokens: int) -> Objective:
    """Build the mean loss over pairs plus sft_coef times the mean negative log-likelihood of chosen tokens.

    `pairs` and `chosen_tokens` are the counts of the whole optimizer step.
    """
    loss_of = named(DPO_LOSSES, section.loss, "DPO loss")

    def objective(scores: TokenScores, micro: Batch) -> LossTerms:
        seen = pair_scores(scores.logprobs_N, micro)
        loss_C = loss_of(seen, beta=section.beta, **section.loss_options)
        loss = loss_C.sum() / pairs
        chosen_N = micro.loss_mask_N & (micro.row_N % 2 == 0)
        likelihood = torch.where(chosen_N, scores.logprobs_N, 0.0).sum()
        if section.sft_coef > 0:
            loss = loss - section.sft_coef * likelihood / max(1, chosen_tokens)
        first_C, second_C = section.beta * seen.first_C.detach(), section.beta * seen.second_C.detach()
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


@torch.no_grad()
def evaluate_policy(policy: Policy, batch: Batch, section: DpoSection) -> Validation:
    """Compute the held-out loss, and the share of pairs whose better completion has the higher implicit reward."""
    scored = policy.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N
    assert scored is not None
    seen = pair_scores(scored.double(), batch)
    loss = float(named(DPO_LOSSES, section.loss, "DPO loss")(seen, beta=section.beta, **section.loss_options).mean())
    differences = (seen.first_C - seen.second_C)[seen.target_C != 0.5].tolist()
    decided = any(differences)  # before the first step policy and reference are equal
    estimates = {"accuracy": Estimate(*pairwise_accuracy(differences))} if decided else {}
    return Validation(loss, estimates, {"loss": loss, "pairs": len(batch) // 2})
