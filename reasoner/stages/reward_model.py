"""Reward models from preferences: `method: reward_model`.

Letters: B rows, C pairs, K heads, N completion tokens. Trained are the trunk of a causal model and K linear heads on
each row's last token. The result is saved as a plain Hugging Face sequence-classification folder (its `score` layer
is the heads) with `reward.json` next to the weights: see graders/reward_model.py.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.loss import LossTerms
from reasoner.algorithm.objective import Objective, TokenScores
from reasoner.algorithm.pairwise import bradley_terry
from reasoner.config.stage import StageConfig
from reasoner.data.pairs import EncodedPair, pair_batch
from reasoner.evaluation.reward_report import pair_report, pairwise_accuracy
from reasoner.graders.reward_model import RewardModel
from reasoner.model.reward_head import RewardCard
from reasoner.policy.reward import RewardPolicy
from reasoner.records import Estimate
from reasoner.seeds import request_seed
from reasoner.session.session import Session
from reasoner.stages.encoded_pairs import load_encoded
from reasoner.stages.reward_probes import probe_pairs
from reasoner.stages.supervised import Lesson, Validation, supervise


def reward_model(session: Session) -> None:
    """Train on pairs; write held-out accuracy, calibration, length bias and, at the end, probes to evals.jsonl."""
    config, policy = session.config, cast("RewardPolicy", session.policy)
    train, validation = load_encoded(session)
    weights_CK = bootstrap(len(train), config.reward_model.heads, seed=config.seed)
    probed = config.reward_model.probe_pairs
    lesson = Lesson(
        items=train,
        items_per_step=config.reward_model.pairs_per_step,
        shuffle=config.preferences.shuffle,
        batch=pair_batch,
        objective=lambda batch: bradley_terry_objective(
            pairs=len(batch) // 2, weights_CK=weights_CK, centre_coef=config.reward_model.centre_coef
        ),
        evaluate=(lambda: evaluate_pairs(policy, validation)) if validation else None,
        patience=config.reward_model.patience,
        at_last=lambda kept: {"probes": probe_pairs(policy, validation, count=probed, kept=kept)} if probed else {},
    )
    supervise(session, lesson)
    sample = pair_batch(train[:CARD_PAIRS])
    if session.final_model is None:
        policy.card = card_of(policy.rewards(sample), config)
    else:  # an earlier model is the final one of this stage
        rows = [side for encoded in train[:CARD_PAIRS] for side in (encoded.first, encoded.second)]
        rewards_BK = torch.tensor(RewardModel(str(session.final_model)).score(rows), dtype=torch.float64)
        card_of(rewards_BK, config).write(session.final_model)


CARD_PAIRS = 1024
"""Number of training pairs used to measure the mean and std of rewards."""


def card_of(rewards_BK: Tensor, config: StageConfig) -> RewardCard:
    """Return the card of a model whose rewards on training completions are given."""
    mean_B = rewards_BK.mean(1)
    return RewardCard(prompt=config.prompt, mean=float(mean_B.mean()), std=max(1e-6, float(mean_B.std())))


def bootstrap(pairs: int, heads: int, *, seed: int) -> Tensor:
    """Draw [C, K] weights of the pairs for each head: Poisson(1) draws; all 1 for a single head.

    This is the online bootstrap (Oza and Russell 2001): each head is trained on its own resample of the pairs.
    """
    if heads == 1:
        return torch.ones(pairs, 1)
    source = random.Random(request_seed(seed, "bootstrap"))
    return torch.tensor([[_poisson(source) for _ in range(heads)] for _ in range(pairs)], dtype=torch.float32)


def _poisson(source: random.Random) -> int:
    """Draw from a Poisson distribution with mean 1, by Knuth's product of uniforms."""
    count, product, floor = 0, source.random(), math.exp(-1)
    while product > floor:
        count, product = count + 1, product * source.random()
    return count


def bradley_terry_objective(*, pairs: int, weights_CK: Tensor, centre_coef: float) -> Objective:
    """Build the mean Bradley-Terry loss over pairs and heads; `pairs` is their number in the whole optimizer step."""

    def objective(scores: TokenScores, micro: Batch) -> LossTerms:
        assert scores.rewards_BK is not None
        assert micro.margin_B is not None
        first_CK, second_CK = scores.rewards_BK[0::2], scores.rewards_BK[1::2]
        target_C1 = micro.reward_B[0::2, None].to(first_CK.dtype)
        loss_CK = bradley_terry(
            first_CK, second_CK, target_C1, margin_C=micro.margin_B[0::2, None], centre_coef=centre_coef
        )
        taken_CK = weights_CK.to(loss_CK.device)[micro.group_B[0::2]]
        loss = (taken_CK * loss_CK).sum() / (pairs * loss_CK.shape[1])
        difference_C = (first_CK - second_CK).detach().mean(1)
        return LossTerms(
            loss,
            {
                "reward_model/accuracy": (difference_C > 0).sum(),
                "reward_model/difference": difference_C.sum(),
                "reward_model/mean": scores.rewards_BK.detach().mean(1).sum() / 2,
                "tokens": torch.tensor(len(difference_C)),
            },
        )

    return objective


def evaluate_pairs(policy: RewardPolicy, pairs: Sequence[EncodedPair]) -> Validation:
    """Compute held-out loss, accuracy, calibration and length bias. Ties count only in the loss."""
    rewards_BK = policy.rewards(pair_batch(pairs))
    first_CK, second_CK = rewards_BK[0::2], rewards_BK[1::2]
    target_C = torch.tensor([encoded.pair.target for encoded in pairs], dtype=torch.float64)
    loss = float(bradley_terry(first_CK, second_CK, target_C[:, None]).mean())
    decided = [place for place, encoded in enumerate(pairs) if encoded.pair.target != 0.5]
    mean_C2 = torch.stack([first_CK.mean(1), second_CK.mean(1)], 1).tolist()
    rewards_C = [(mean_C2[place][0], mean_C2[place][1]) for place in decided]
    lengths_C = [(len(pairs[place].first.completion_ids), len(pairs[place].second.completion_ids)) for place in decided]
    report = pair_report(rewards_C, lengths_C, [pairs[place].pair.category for place in decided])
    accuracy = pairwise_accuracy([better - other for better, other in rewards_C])
    disagreement = float(rewards_BK.std(1, correction=0).mean())
    return Validation(loss, {"accuracy": Estimate(*accuracy)}, {"loss": loss, "disagreement": disagreement, **report})
