"""Generalized knowledge distillation: `method: gkd` (arXiv:2306.13649). Letters: B rows, N completion tokens.

The loss compares whole next-token distributions of policy and teacher, on given completions (`sft.data`, the tasks' own
solutions, texts of the teacher) and, in a share `gkd.lmbda` of the steps, on completions of the policy itself to the
same prompts. As in the paper no gradient goes through the sampling.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from reasoner import processes
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.loss import LossTerms
from reasoner.algorithm.objective import TokenScores
from reasoner.config.errors import ConfigError
from reasoner.data.encode import batch_of
from reasoner.data.rows import Encoded
from reasoner.policy.distillation import DistillationPolicy
from reasoner.records import Request
from reasoner.rollout.round import training_params
from reasoner.seeds import request_seed
from reasoner.session.session import Session
from reasoner.stages.sft import learn_demonstrations, load_demonstrations, row_losses
from reasoner.stages.supervised import Validation


def gkd(session: Session) -> None:
    """Train towards the teacher's distributions until all steps are done, or as `sft` ends.

    Raises:
        ConfigError: as `sft`, or a prompt leaves no room for the policy's own completion.
    """
    share, data = session.config.gkd.lmbda, load_demonstrations(session)
    policy = session.policy
    assert isinstance(policy, DistillationPolicy), policy
    if share > 0:
        check_room(data.rows, most=session.config.rollout.max_tokens, context=policy.context)

    def batch(rows: Sequence[Encoded]) -> Batch:
        step = session.step + 1
        return batch_of(sampled(session, rows, step=step) if on_policy(session, step) else rows)

    def evaluate(rows: Sequence[Encoded]) -> Validation:
        tested = batch_of(rows)
        return row_losses(tested, policy.divergences(tested))

    learn_demonstrations(
        session,
        data,
        batch=batch,
        objective=divergence,
        evaluate=evaluate,
        also=lambda step: {"gkd/on_policy": float(on_policy(session, step))} if share > 0 else {},
    )


def divergence(scores: TokenScores, micro: Batch) -> LossTerms:
    """Compute a micro-batch's share of the step's mean divergence per trained token, in nats."""
    assert scores.divergence_N is not None
    loss = (micro.weights_N * scores.divergence_N).sum()
    entropy = torch.where(micro.loss_mask_N, scores.entropy_N, 0.0).sum()
    return LossTerms(loss, {"policy/entropy": entropy, "tokens": micro.loss_mask_N.sum()})


def on_policy(session: Session, step: int) -> bool:
    """Return True if the policy completes the prompts of this step: a draw that depends on the run's seed alone."""
    config = session.config
    return random.Random(request_seed(config.seed, "gkd", step)).random() < config.gkd.lmbda


def check_room(rows: Sequence[Encoded], *, most: int, context: int) -> None:
    """Check that every prompt leaves room for a sampled completion.

    Raises:
        ConfigError: one does not.
    """
    longest = max(rows, key=lambda row: len(row.prompt_ids))
    if len(longest.prompt_ids) + most > context:
        raise ConfigError(
            "bad-value",
            f"rollout.max_tokens={most} must fit behind every prompt with gkd.lmbda above 0; that of row {longest.id}"
            f" has {len(longest.prompt_ids)} tokens, of a context of {context}. Lower it, or leave"
            " long rows out with sft.max_tokens.",
        )


def sampled(session: Session, rows: Sequence[Encoded], *, step: int) -> list[Encoded]:
    """Return the rows with completions of the policy's present weights in place of the given ones.

    With n processes, each one samples for every n-th row.
    """
    session.sync()
    places = range(processes.rank(), len(rows), processes.count())
    requests = [
        Request(prompt_ids=rows[place].prompt_ids, seed=request_seed(session.config.seed, "gkd", step, place))
        for place in places
    ]
    finished = session.producer.rounds.generate(requests, training_params(session.config))
    own = {places[index]: completion.token_ids for index, completion in finished}
    session.engine.sleep()
    written = {place: ids for part in processes.gather(own) for place, ids in part.items()}
    return [
        replace(row, completion_ids=written[place], loss_mask=(True,) * len(written[place]))
        for place, row in enumerate(rows)
    ]
