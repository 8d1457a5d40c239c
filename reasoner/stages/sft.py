"""Supervised fine-tuning on demonstrations, with the loss on completion tokens only. Letters: B rows, N tokens."""

from __future__ import annotations

import hashlib
import itertools
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.loss import LossTerms
from reasoner.algorithm.objective import Objective, TokenScores
from reasoner.config.errors import ConfigError
from reasoner.data.demonstrations import DEMONSTRATION_SHAPE, demonstrations_in, encode_problems, load_rows
from reasoner.data.encode import batch_of
from reasoner.data.problems import every_problem
from reasoner.data.rows import Encoded, RowPolicy, held_out_paths, report_bad_rows
from reasoner.evaluation.estimates import estimate
from reasoner.evaluation.evaluate import evaluate
from reasoner.policy.policy import Policy
from reasoner.records import Estimate, Problem
from reasoner.rollout.grading import solution_row
from reasoner.rollout.round import training_params
from reasoner.session.session import Session
from reasoner.stages.supervised import Lesson, Validation, supervise
from tasks import BadRow
from tasks.environments.asked import ASKED, Choice, asked_options, asked_row, reply_in
from tasks.environments.registry import get_environment
from tasks.inputs.spool import Joined, Picked
from tasks.validate import demonstration_fault, reply_fault, reply_places
from verifiers import Verdict, get_verifier
from verifiers.pool import GradingPool
from verifiers.text import one_line

GRADED = 64
"""Demonstrations that are graded at the start."""
LOOKED_AT = 16
"""Demonstrations whose replies are compared with the environment's before sft begins (our choice)."""


def sft(session: Session) -> None:
    """Train on demonstrations until all steps are done, the accuracy is reached, or the loss stops falling.

    Raises:
        ConfigError: as `learn_demonstrations`.
    """
    learn_demonstrations(
        session,
        load_demonstrations(session),
        batch=batch_of,
        objective=negative_log_likelihood,
        evaluate=lambda rows: evaluate_rows(session.policy, rows),
    )


class Demonstrations(NamedTuple):
    """The data of a stage that learns from demonstrations."""

    rows: Sequence[Encoded]
    validation: Sequence[Encoded]
    """Rows for the evaluation loss."""
    problems: Sequence[Problem]
    """Training problems held back for accuracy checks."""


def learn_demonstrations(
    session: Session,
    data: Demonstrations,
    *,
    batch: Callable[[Sequence[Encoded]], Batch],
    objective: Objective,
    evaluate: Callable[[Sequence[Encoded]], Validation],
    also: Callable[[int], Mapping[str, float]] = lambda step: {},
) -> None:
    """Run a stage on demonstrations with a loss of its own.

    Args:
        session: of the stage.
        data: from `load_demonstrations`.
        batch: builds the batch of a step.
        objective: the loss of a micro-batch.
        evaluate: measures the evaluation loss.
        also: further metrics of a step.
    Raises:
        ConfigError: sft.until_accuracy is not reached in these steps, or the data has changed.
    """
    section = session.config.sft
    rows, validation, problems = data
    session.same_data("rows", Joined([rows, validation]))

    def enough(step: int, metrics: dict[str, float]) -> bool:
        metrics |= also(step)
        if section.until_accuracy is None or step % section.check_every:
            return False
        metrics["check/accuracy"] = check_accuracy(session, problems)
        session.display.note(f"step {step}: {metrics['check/accuracy']:.1%} of {len(problems)} solved")
        return metrics["check/accuracy"] >= section.until_accuracy

    lesson = Lesson(
        items=rows,
        items_per_step=section.rows_per_step,
        shuffle=section.shuffle,
        batch=batch,
        objective=lambda batch: objective,
        evaluate=(lambda: evaluate(validation)) if validation else None,
        patience=section.patience,
        enough=enough,
    )
    if not supervise(session, lesson) and section.until_accuracy is not None:
        raise ConfigError(
            "not-reached",
            f"sft.until_accuracy={section.until_accuracy:.0%} was not reached in {session.config.steps} steps."
            " Raise steps or sft.demonstrations, or lower the accuracy; from a start below about 10 % it seldom rises.",
        )


def load_demonstrations(session: Session) -> Demonstrations:
    """Load the rows and the problems of a stage, and report what is left out.

    Raises:
        ConfigError: there are no usable demonstrations, or too few problems to hold any back.
    """
    config, policy = session.config, session.policy
    section = config.sft
    limit = min(section.max_tokens or policy.context, policy.context)
    problems: Sequence[Problem] = []
    if section.data:
        found = load_rows(
            demonstrations_in(section, "train", section.data), policy.tokenizer, config.prompt, limit=limit
        )
        _note(session, found.notes)
        bad, rows = list(found.bad), found.rows[: section.demonstrations]
    else:
        learned, problems = split_problems(session)
        _note(session, check_replies(learned, session.pool))
        _note(session, check_solutions(learned, session.pool))
        found = encode_problems(
            learned, policy.tokenizer, config.prompt, limit=limit, reply_tokens=config.rollout.reply_tokens
        )
        bad, rows = list(found.bad), found.rows
    total = len(rows) + len(bad)
    validation: Sequence[Encoded] = []
    paths, own = held_out_paths(section, section.data, use="demonstrations", share=section.held_out)
    if paths:
        _note(session, own)
        tested = load_rows(demonstrations_in(section, "test", paths), policy.tokenizer, config.prompt, limit=limit)
        _note(session, tested.notes)
        validation, bad, total = tested.rows[: section.held_out or None], bad + tested.bad, total + len(tested.rows)
    elif section.held_out and section.data:
        rows, validation = hold_back(rows, section.held_out)
    elif section.held_out:
        tested = encode_problems(
            validation_problems(session),
            policy.tokenizer,
            config.prompt,
            limit=limit,
            reply_tokens=config.rollout.reply_tokens,
        )
        validation, bad, total = tested.rows[: section.held_out], bad + tested.bad, total + len(tested.rows)
    _report_left_out(session, bad, total)
    if not rows:
        raise ConfigError(
            "bad-value", "sft must have at least one row to learn from; none is left. Lower sft.held_out."
        )
    return Demonstrations(rows, validation, problems)


def hold_back(rows: Sequence[Encoded], count: int) -> tuple[Sequence[Encoded], Sequence[Encoded]]:
    """Split rows into training rows and at least `count` rows for the evaluation loss, keeping each prompt on one side.

    Prompts are held back in the order of their digests, so the split does not depend on the order of the rows.
    """
    digests = array("Q", (_digest(row.prompt_ids) for row in rows))
    held, left = -1, count
    for digest in sorted(digests):  # rows of one prompt are adjacent
        if left <= 0 and digest != held:
            break
        held, left = digest, left - 1
    sides = (
        (place for place, digest in enumerate(digests) if digest > held),
        (place for place, digest in enumerate(digests) if digest <= held),
    )
    return Picked(rows, sides[0]), Picked(rows, sides[1])


def _digest(ids: tuple[int, ...]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(ids).encode(), digest_size=8).digest(), "big")


def _note(session: Session, notes: Sequence[str]) -> None:
    for note in notes if session.fresh else ():
        session.display.note(note)


def _report_left_out(session: Session, bad: Sequence[BadRow], total: int) -> None:
    said = report_bad_rows(
        bad,
        total=total,
        policy=RowPolicy(session.config.sft.bad_rows, "sft.bad_rows"),
        shape=DEMONSTRATION_SHAPE,
        folder=session.run.path,
    )
    if said and session.fresh:
        session.display.note(said)


def split_problems(session: Session) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """Split the training problems: those to learn from, and those held back for accuracy checks.

    Raises:
        ConfigError: the task has no demonstrations, or too few problems to hold any back.
    """
    section = session.config.sft
    problems = Joined(session.producer.problems.parts)
    with_demo = array("Q", (place for place, problem in enumerate(problems) if problem.demonstration))
    if not with_demo:
        names = ", ".join(task.name for task in session.config.task)
        faults = (f"problem {one.id}: {fault}" for one in problems if (fault := demonstration_fault(one)))
        why = next(faults, "its problems have none")
        raise ConfigError("bad-value", f"task {names}: sft needs demonstrations; {why}.")
    count = section.demonstrations or len(with_demo)
    learned = Picked(problems, with_demo[:count])
    if section.until_accuracy is None:
        return learned, []
    taught, last = {*with_demo[:count]}, range(len(problems))[-section.check_problems :]
    held_back = Picked(problems, (place for place in last if place not in taught))
    if not held_back:
        raise ConfigError(
            "bad-value",
            f"sft.demonstrations={count} leaves no training problem for the accuracy check. Lower it, or remove"
            " sft.until_accuracy.",
        )
    return learned, held_back


def check_replies(problems: Sequence[Problem], pool: GradingPool) -> list[str]:
    """Ask the environments, in the grading pool, for the replies of the first LOOKED_AT demonstrations with turns.

    Environments that use a seed are not asked: another seed gives another reply.

    Returns:
        A sentence for a person; none if nothing was asked.
    Raises:
        ConfigError: a reply differs from the demonstration's.
    """
    with_turns = (problem for problem in problems if problem.demonstration_turns and problem.environment)
    asked: list[tuple[Problem, int, str, Future[Verdict]]] = []
    for problem in itertools.islice(with_turns, LOOKED_AT):
        choice = Choice(str(problem.environment), problem.environment_options)
        if demonstration_fault(problem) or get_environment(choice.name, **choice.options).uses_seed:
            continue
        for episode, shown in reply_places(problem):
            row = asked_row(episode, uses_seed=False)
            future = pool.submit(ASKED, asked_options(choice), row)
            asked.append((problem, len(episode.turns), shown, future))
    for problem, place, shown, future in asked:
        verdict = future.result()
        if not verdict.graded:  # a tool without its sandbox here: learning from the demonstrations needs none
            return [f"the demonstrations were not checked, as their environment cannot reply: {verdict.reason}"]
        reply = reply_in(verdict)
        if fault := reply_fault(None if reply is None else reply.text, shown, place):
            raise ConfigError(
                "bad-value",
                f"problem {problem.id}: {fault}. A demonstration must show what the environment replies;"
                " `reasoner tasks validate TASK` checks all of them.",
            )
    count = len({problem.id for problem, *_ in asked})
    return [f"{len(asked)} replies in {count} demonstrations are those that the environment gives"] if asked else []


def check_solutions(problems: Sequence[Problem], pool: GradingPool) -> list[str]:
    """Grade demonstrations without an environment, evenly spaced, by their own verifiers, where a rule decides.

    Returns:
        A sentence for a person if more than one in twenty is wrong; none otherwise.
    """
    places = range(0, len(problems), -(-len(problems) // GRADED))
    some = [problems[place] for place in places]
    plain = [problem for problem in some if problem.environment is None]
    ruled = [problem for problem in plain if get_verifier(problem.verifier, **problem.verifier_options).grades]
    waiting = [(one, pool.submit(one.verifier, one.verifier_options, solution_row(one))) for one in ruled]
    wrong = [(one, verdict) for one, future in waiting if (verdict := future.result()).graded and not verdict.right]
    if len(wrong) < 3 or len(wrong) <= len(waiting) / 20:
        return []
    problem, verdict = wrong[0]
    return [
        f"{len(wrong)} of {len(waiting)} demonstrations are wrong by their own verifier, such as {problem.id}:"
        f" {one_line(problem.demonstration or '')[-60:]!r} ({verdict.outcome}, {verdict.reason}): the policy would"
        " learn to be wrong; `reasoner tasks validate TASK` lists all of them"
    ]


def validation_problems(session: Session) -> Sequence[Problem]:
    """Return the tasks' evaluation problems that have demonstrations.

    Raises:
        ConfigError: there are none.
    """
    problems = Joined([every_problem(section, section.eval_split) for section in session.config.task])
    found = Picked(problems, (place for place, problem in enumerate(problems) if problem.demonstration))
    if not found:
        raise ConfigError("bad-value", "sft.held_out needs demonstrations in the evaluation split; there are none.")
    return found


def negative_log_likelihood(scores: TokenScores, micro: Batch) -> LossTerms:
    """Compute a micro-batch's share of the step's mean negative log-likelihood per trained token, in nats."""
    loss = -(micro.weights_N * scores.logprobs_N).sum()
    entropy = torch.where(micro.loss_mask_N, scores.entropy_N.detach(), 0.0).sum()
    return LossTerms(loss, {"policy/entropy": entropy, "tokens": micro.loss_mask_N.sum()})


def evaluate_rows(policy: Policy, rows: Sequence[Encoded]) -> Validation:
    """Compute the mean negative log-likelihood per token of held-out rows, and that per row with its interval."""
    batch = batch_of(rows)
    scored = policy.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N
    assert scored is not None
    found = row_losses(batch, -scored)
    return found._replace(details={**found.details, "perplexity": math.exp(min(found.loss, 700.0))})


def row_losses(batch: Batch, losses_N: Tensor) -> Validation:
    """Average the losses of the trained tokens: over all of them, and in each row, with the interval over rows."""
    losses_N = torch.where(batch.loss_mask_N, losses_N, 0.0).double()
    starts = batch.row_starts()
    per_row = [
        float(losses_N[start:end].sum() / batch.loss_mask_N[start:end].sum())
        for start, end in itertools.pairwise(starts)
    ]
    loss = float(losses_N.sum() / batch.loss_mask_N.sum())
    figure: Estimate = estimate(per_row)
    return Validation(loss, {"row_loss": figure}, {"loss": loss, "rows": len(batch)})


def check_accuracy(session: Session, problems: Sequence[Problem]) -> float:
    """Return the share of held-back training problems that one sampled completion solves."""
    session.sync()
    result = evaluate(
        problems,
        rounds=session.producer.rounds,
        params=training_params(session.config),
        samples=1,
    ).result
    solved = result.figure("avg@1")
    return solved.value if solved else 0.0
