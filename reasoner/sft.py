"""Supervised fine-tuning on demonstrations, with the loss on completion tokens only. Letters: B rows, N tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reasoner.batch import Batch
from reasoner.config import ConfigError
from reasoner.evaluate import evaluate
from reasoner.loss import LossTerms
from reasoner.metrics import peak_memory_mb
from reasoner.policy import Policy, TokenScores
from reasoner.prompt import render
from reasoner.records import Problem
from reasoner.sampler import ProblemSampler
from reasoner.session import Clock, Session
from reasoner.train import mean_stats


def sft(session: Session) -> None:
    """Train on demonstrations until the steps are done or, where asked for, the accuracy is reached."""
    config, policy = session.config, session.policy
    demonstrations, held_back = split_demonstrations(session)
    sampler = ProblemSampler(demonstrations, seed=config.seed)
    rows = config.sft.rows_per_step
    for _ in range(session.step):
        sampler.take(rows)
    if session.fresh:
        session.evaluate()
        session.checkpoint()
    for step in range(session.step + 1, config.steps + 1):
        clock = Clock()
        batch = demonstration_batch(sampler.take(rows), policy, session)
        stats = policy.update(batch, negative_log_likelihood)
        clock.lap("update")
        metrics = mean_stats([stats]) | clock.metrics()
        metrics |= {"memory/peak_mb": peak_memory_mb(), "data/epoch": sampler.epochs}
        reached = False
        if config.sft.until_accuracy is not None and step % config.sft.check_every == 0:
            metrics["check/accuracy"] = check_accuracy(session, held_back)
            session.display.note(f"step {step}: {metrics['check/accuracy']:.1%} of {len(held_back)} solved")
            reached = metrics["check/accuracy"] >= config.sft.until_accuracy
        elif step % 20 == 0:
            session.display.step(step, metrics)
        session.step = step
        session.run.log(step, metrics)
        if reached:
            return
        session.end_step()
    if config.sft.until_accuracy is not None:
        raise ConfigError(
            "not-reached",
            f"sft.until_accuracy={config.sft.until_accuracy:.0%} was not reached in {config.steps} steps."
            " Raise steps or sft.demonstrations, or lower the accuracy; a start below about 10 % seldom takes off.",
        )


def split_demonstrations(session: Session) -> tuple[list[Problem], list[Problem]]:
    """Problems to learn from, and problems of the training split held back for accuracy checks.

    Raises:
        ConfigError: the task has no demonstrations, or too few problems to hold any back.
    """
    section = session.config.sft
    problems = [problem for part in session.sampler.parts for problem in part]
    with_demo = [problem for problem in problems if problem.demonstration]
    if not with_demo:
        names = ", ".join(task.name for task in session.config.task)
        raise ConfigError("bad-value", f"task {names}: sft needs demonstrations; its problems have none.")
    count = section.demonstrations or len(with_demo)
    learned = with_demo[:count]
    if section.until_accuracy is None:
        return learned, []
    held_back = [p for p in problems[-section.check_problems :] if p not in learned]
    if not held_back:
        raise ConfigError(
            "bad-value",
            f"sft.demonstrations={count} leaves no training problem for the accuracy check. Lower it, or drop"
            " sft.until_accuracy.",
        )
    return learned, held_back


def demonstration_batch(problems: Sequence[Problem], policy: Policy, session: Session) -> Batch:
    """One optimizer step's rows: prompt, demonstration, end-of-sequence token."""
    tokenizer = policy.tokenizer
    prompts = render(problems, tokenizer, session.config.prompt)
    ids: list[torch.Tensor] = []
    lengths: list[int] = []
    for problem, prompt in zip(problems, prompts, strict=True):
        completion = tokenizer(problem.demonstration, add_special_tokens=False)["input_ids"]
        completion = [*completion, tokenizer.eos_token_id]
        total = len(prompt.ids) + len(completion)
        if total > policy.context:
            raise ConfigError(
                "bad-value",
                f"problem {problem.id}: prompt and demonstration of {total} tokens must fit the context of"
                f" {policy.context}. Drop the problem or use a longer-context model.",
            )
        ids.append(torch.tensor([*prompt.ids, *completion]))
        lengths.append(len(completion))
    row_N = torch.repeat_interleave(torch.arange(len(ids)), torch.tensor(lengths))
    tokens = len(row_N)
    return Batch(
        input_ids=tuple(ids),
        prompt_lengths_B=torch.tensor([len(prompt.ids) for prompt in prompts]),
        row_N=row_N,
        loss_mask_N=torch.ones(tokens, dtype=torch.bool),
        reward_B=torch.zeros(len(ids), dtype=torch.float64),
        group_B=torch.arange(len(ids)),
        weights_N=torch.full((tokens,), 1.0 / tokens),
        rollout_logprobs_N=torch.zeros(tokens),
    )


def negative_log_likelihood(scores: TokenScores, micro: Batch) -> LossTerms:
    """Mean negative log-likelihood of the step's completion tokens, in nats."""
    loss = -(micro.weights_N * scores.logprobs_N).sum()
    return LossTerms(loss, {"policy/entropy": scores.entropy_N.detach().sum(), "tokens": micro.loss_mask_N.sum()})


def check_accuracy(session: Session, problems: Sequence[Problem]) -> float:
    """Share of held-back training problems that a sampled completion solves."""
    session.sync()
    result = evaluate(
        problems,
        engine=session.engine,
        pool=session.pool,
        tokenizer=session.policy.tokenizer,
        prompt=session.config.prompt,
        params=session.params,
        samples=1,
        seed=session.config.seed,
    ).result
    return result.estimates["avg@1"].value
