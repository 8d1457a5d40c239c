"""Rules on the training signal: groups whose rewards differ, and completions that are not truncated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reasoner.config.estimators import accepted_from, traits_of
from reasoner.config.methods import METHODS
from reasoner.observe.explain.finding import Finding, Level, places
from reasoner.observe.explain.pass_rates import two_kinds
from reasoner.observe.explain.policy_rules import progress
from reasoner.observe.explain.significance import change, percent
from reasoner.storage.history import History, Row
from verifiers import all_right, all_wrong
from verifiers.stats import wilson_interval

MOSTLY = 0.8
"""At this share, four of five sampled groups teach nothing: the same compute on other problems gives five times the
gradient (our choice)."""
TRUNCATED = 0.1
"""At this share, one completion in ten ends at the limit; published runs keep it at a few percent once they learn (our
choice)."""


def signal_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules; those on signal only for a stage that trains on rewards."""
    if METHODS[history.config.method].learns_from == "rewards":
        if traits_of(history.config.algorithm.advantage).baseline != "teacher":  # its signal needs no rewards
            yield from _no_signal(history)
        yield from _none_accepted(history)
        yield from _dead_task(history)
        yield from _unsolvable(history)
    yield from _cut_answers(history)
    yield from _truncated(history)
    yield from _no_answer(history)
    yield from _same_completions(history)


def _no_signal(history: History) -> Iterator[Finding]:
    """Yield findings on groups that are all wrong, and on groups that are all right with equal rewards.

    They look at the whole run, its start and its end. Groups whose answers are all right but whose rewards differ by
    something else (such as a length) still give a gradient; only groups without signal leave nothing to learn.
    """
    wrong, right, idle = _shares(history)
    if len(wrong) < 2:
        return
    third = max(1, len(right) // 3)
    start = max(3, len(right) // 10) if len(history.metrics) else len(right)
    idle_right = np.minimum(right, idle)
    early_right, late_right = float(idle_right[:start].mean()), float(right[-third:].mean())
    late_wrong, whole = float(wrong[-third:].mean()), float(wrong.mean())
    idle_wrong = float(np.minimum(wrong, idle).mean())
    rises = (progress(history) or 0.0) > 3
    empty = _empty_steps(history)
    if whole > MOSTLY or (whole > 0.5 and empty > 1 / 3):
        yield _all_wrong(history, whole, late_wrong, idle_wrong, empty, rises=rises)
    elif whole > 0.3:
        yield Finding(
            code="all-wrong",
            level=Level.NOTE,
            cost=whole,
            title=f"{percent(whole)} of the groups are all wrong ({percent(late_wrong)} in the last third)",
            evidence=(_of_the_wrong(whole, idle_wrong),),
            change="`reasoner preflight CONFIG --write-problems FILE` drops the problems that the model never solves;"
            " a larger rollout.group_size finds rarer solutions.",
        )
    if early_right > MOSTLY:
        yield Finding(
            code="all-right",
            level=Level.WARNING,
            cost=float(idle_right.mean()),
            title=f"{percent(early_right)} of the groups are all right from the start: there is little left to learn",
            evidence=(
                f"over the whole run {percent(float(idle_right.mean()))} of the groups have every rollout right and"
                f" equal rewards: no gradient",
            ),
            change="use harder problems, or a larger rollout.group_size.",
            explains=frozenset({"no-progress", "no-diversity"}),
        )
    elif early_right > 0.5 and not rises:
        yield Finding(
            code="all-right",
            level=Level.WARNING,
            cost=float(idle_right.mean()) / 2,
            title=f"{percent(early_right)} of the groups are all right from the start: more than half of the sampling"
            " teaches nothing",
            evidence=(f"of the whole run {percent(float(idle_right.mean()))}; the reward does not rise on the others",),
            change="`reasoner preflight CONFIG --write-problems FILE` drops the problems that the model always solves;"
            " use harder problems, or a larger rollout.group_size.",
            explains=frozenset({"no-progress"}),
        )
    elif late_right > MOSTLY:
        yield Finding(
            code="all-right",
            level=Level.NOTE,
            cost=late_right,
            title=f"The task is nearly solved: {percent(late_right)} of the last groups are all right",
            evidence=(f"at the start it was {percent(float(right[:start].mean()))}",),
            change="stop here, or continue with harder problems.",
        )


def _none_accepted(history: History) -> Iterator[Finding]:
    """Yield a finding on rejection sampling whose threshold no reward reaches, or every reward does."""
    algorithm = history.config.algorithm
    rows = [row for row in history.graded if row.advantage is not None]
    if traits_of(algorithm.advantage).baseline is not None or len(rows) < 16:
        return
    threshold = accepted_from(algorithm.advantage_options)
    accepted = [row for row in rows if row.advantage]
    rewards = np.sort([row.reward or 0.0 for row in rows])
    share, upper = len(accepted) / len(rows), float(rewards[(3 * len(rewards)) // 4])
    if 0.01 <= share <= 0.99 or (share > 0.99 and rewards[0] == rewards[-1]):
        return
    spread = f"the rewards are between {rewards[0]:.3g} and {rewards[-1]:.3g}, a quarter at {upper:.3g} or above"
    lower = f"set algorithm.advantage_options.threshold={upper:.3g}, or " if upper > rewards[0] else ""
    yield Finding(
        code="none-accepted" if share < 0.01 else "all-accepted",
        level=Level.WARNING,
        cost=1 - share if share < 0.01 else 0.8,
        title=f"{percent(share)} of the rollouts reach algorithm.advantage_options.threshold={threshold:g}: "
        + ("the others have no gradient" if share < 0.01 else "rejection sampling rejects nothing"),
        evidence=(
            f"algorithm.advantage={algorithm.advantage} learns only from rewards at or above the threshold; {spread}",
        ),
        change=lower + "compare rewards with each other (algorithm.advantage=grpo).",
        rollouts=places(rows),
        explains=frozenset({"no-progress", "no-movement", "all-wrong", "loss-near-zero"}),
    )


def _dead_task(history: History) -> Iterator[Finding]:
    """Yield a finding on a task that is never solved while other tasks are."""
    rights: dict[str, list[bool]] = {}
    for group in history.groups:
        marks = [row.mark for row in group if row.mark is not None]
        if marks:
            rights.setdefault(group[0].task, []).append(max(marks) > 0)
    dead = {task: found for task, found in rights.items() if len(found) >= 8 and sum(found) < (1 - MOSTLY) * len(found)}
    if not dead or len(dead) == len(rights):
        return
    task, found = max(dead.items(), key=lambda item: len(item[1]))
    rows = [row for row in history.rows if row.task == task and row.mark is not None and row.mark <= 0]
    share = len(found) / len(history.groups)
    others = [solved for name, listed in rights.items() if name not in dead for solved in listed]
    yield Finding(
        code="task-all-wrong",
        level=Level.WARNING if share > 0.1 else Level.NOTE,
        cost=0.9 * share,
        title=f"{percent(1 - sum(found) / len(found))} of the groups of {task!r} are all wrong, while"
        f" {percent(sum(others) / len(others))} of the other tasks' have a right one",
        evidence=(
            f"it takes {percent(share)} of the sampling; outcomes: {_reasons(rows)}",
            f"one verdict: {rows[0].reason[:120]!r} (answer {str(rows[0].answer)[:40]!r}, reference"
            f" {str(rows[0].reference)[:40]!r})",
        ),
        change=f"read some of its rollouts (`reasoner report RUN`): either {task!r} is too hard for this model, or its"
        " verifier or prompt is wrong (`reasoner tasks validate NAME`).",
        rollouts=places(rows),
        explains=frozenset({"all-wrong"}),
    )


class Shares(NamedTuple):
    """Shares of groups, one value per step; without logged steps, 0 or 1 for each group."""

    wrong: NDArray[np.float64]
    """Groups whose answers are all wrong."""
    right: NDArray[np.float64]
    """Groups whose answers are all right."""
    idle: NDArray[np.float64]
    """Groups without signal: their rewards are equal."""


def _unsolvable(history: History) -> Iterator[Finding]:
    """Yield a finding on problems that are never solved, if they are a kind of their own beside others that are."""
    marks: dict[str, list[bool]] = {}
    for step in history.steps[len(history.steps) // 2 :]:
        for row in history.by_step[step]:
            if row.mark is not None:
                marks.setdefault(row.problem, []).append(row.right)
    counts = [(sum(found), len(found)) for found in marks.values()]
    kinds = two_kinds(counts) if len(counts) >= FEW_PROBLEMS else None
    if kinds is None or kinds.means[0] > UNSOLVED or kinds.means[1] < SOLVED or kinds.shares[0] < UNSOLVABLE_SHARE:
        return
    never = {
        problem
        for (problem, found), kind in zip(marks.items(), kinds.of_problems, strict=True)
        if kind == 0 and not any(found)
    }
    shown = {row.problem: row for row in history.graded if row.problem in never}
    yield Finding(
        code="problems-never-solved",
        level=Level.WARNING,
        cost=kinds.shares[0] / 2,
        title=f"{percent(kinds.shares[0])} of the problems are never solved, and the others in"
        f" {percent(kinds.means[1])} of the attempts: two kinds of problems, not one difficulty",
        evidence=(
            f"{len(never)} of {len(counts)} problems of the second half of the run, none right: "
            + ", ".join(sorted(never)[:5]),
            "one distribution of difficulty would leave more problems that are solved now and then",
        ),
        change="read some of them: a wrong reference, a text that lacks what the answer needs, or another task."
        " `reasoner preflight CONFIG --write-problems FILE` drops them.",
        rollouts=places(list(shown.values())),
        explains=frozenset({"all-wrong", "no-progress"}),
    )


FEW_PROBLEMS = 16
"""Fewer problems do not tell two kinds from one (our choice)."""
UNSOLVED = 0.02
"""Largest mean pass rate of problems that are called never solved (our choice)."""
SOLVED = 0.25
"""Smallest mean pass rate of the others (our choice)."""
UNSOLVABLE_SHARE = 0.05
"""Share of the problems from which on it is said (our choice)."""


def _shares(history: History) -> Shares:
    wrong, right = history.series("groups/all_wrong"), history.series("groups/all_right")
    if len(wrong):
        signal = history.series("groups/signal")
        return Shares(wrong, right, 1 - signal if len(signal) == len(wrong) else np.ones(len(wrong)))
    graded = [rows for group in history.groups if (rows := [row for row in group if row.reward is not None])]
    marks = [[row.mark for row in rows] for rows in graded]
    rewards = [[row.reward for row in rows if row.reward is not None] for rows in graded]
    return Shares(
        np.asarray([*map(all_wrong, marks)], dtype=np.float64),
        np.asarray([*map(all_right, marks)], dtype=np.float64),
        np.asarray([max(group) - min(group) < 1e-6 for group in rewards], dtype=np.float64),
    )


def _of_the_wrong(share: float, idle: float) -> str:
    """Describe what groups without a right answer still teach."""
    if idle > 0.5 * share:
        return "without differing rewards they give no gradient"
    return "their rewards still differ, by something else that is rewarded: that is all they teach"


def _empty_steps(history: History) -> float:
    """Return the share of steps in which no group had differing rewards, so that there was no gradient."""
    signal = history.series("groups/signal")
    if len(signal):
        return float((signal == 0).mean())
    return 0.0


def _all_wrong(history: History, share: float, late: float, idle: float, empty: float, *, rises: bool) -> Finding:
    unsolved = _never_solved(history)
    wrong = [row for row in history.rows if row.mark is not None and row.mark <= 0]
    evidence = [f"in the last third of the run it is {percent(late)}; {_of_the_wrong(share, idle)}"]
    if empty > 0:
        evidence.append(f"{percent(empty)} of the steps had no group with signal")
    evidence.append(
        f"{unsolved[0]} of {unsolved[1]} problems were never solved in any of their samples; most frequent reasons:"
        f" {_reasons(wrong)}"
    )
    agreed = _agreed(history)
    if agreed:
        row, common = agreed
        evidence.append(
            f"in {percent(common)} of them most samples agree on one answer, such as {str(row.answer)[:40]!r} where"
            f" the reference is {str(row.reference)[:40]!r} ({row.problem}): if those are right, the references or the"
            " verifier are wrong"
        )
    return Finding(
        code="all-wrong",
        level=Level.NOTE if rises else Level.WARNING,
        cost=share,
        title=f"{percent(share)} of the groups are all wrong"
        + (
            ", and yet the reward rises"
            if rises
            else ": the problems are too hard for this model, or its answers are not recognised"
        ),
        evidence=tuple(evidence),
        change="use easier problems (`reasoner preflight CONFIG --write-problems FILE` keeps those with signal),"
        " start from"
        " a model that solves some (an sft stage, an instruct model), or raise rollout.group_size.",
        rollouts=places(wrong),
        explains=frozenset({"no-progress"}),
    )


def _agreed(history: History) -> tuple[Row, float] | None:
    """Return a rollout whose answer dominates its all-wrong group, and the share of such groups; None below a fifth."""
    wrong = [group for group in history.groups if all_wrong(row.mark for row in group)]
    found: list[Row] = []
    for group in wrong:
        answers = Counter(row.answer for row in group if row.answer)
        if answers and answers.most_common(1)[0][1] > len(group) / 2:
            found.append(next(row for row in group if row.answer == answers.most_common(1)[0][0]))
    return (found[0], len(found) / len(wrong)) if len(found) > len(wrong) / 5 else None


def _never_solved(history: History) -> tuple[int, int]:
    solved: dict[str, bool] = {}
    for row in history.graded:
        solved[row.problem] = solved.get(row.problem, False) or row.right
    return sum(not right for right in solved.values()), len(solved)


def _reasons(rows: list[Row]) -> str:
    """Return the three most frequent outcomes with their shares, as text."""
    counted = Counter(row.outcome for row in rows)
    return ", ".join(f"{name} {percent(count / max(1, len(rows)))}" for name, count in counted.most_common(3))


def _cut_answers(history: History) -> Iterator[Finding]:
    """Yield a finding on wrong completions that are the beginning of their reference: something ends them too soon."""
    wrong = [row for row in history.graded if row.mark is not None and row.mark <= 0 and isinstance(row.reference, str)]
    begun = [row for row in wrong if any(_begins(said, str(row.reference).strip()) for said in _last_said(row))]
    if len(begun) < 16 or len(begun) < 0.3 * len(wrong):
        return
    if Counter(_last_said(row)[-1] for row in begun).most_common(1)[0][1] > len(begun) / 2:
        return  # one answer to everything
    limit = sum(row.truncated for row in begun) > len(begun) / 2
    yield Finding(
        code="answers-cut",
        level=Level.FAULT,
        cost=max(0.5, len(begun) / len(history.graded)),
        title=f"{percent(len(begun) / len(wrong))} of the wrong completions are the beginning of the right answer: "
        + ("rollout.max_tokens is too small" if limit else "something ends them too soon"),
        evidence=(f"such as {_last_said(begun[0])[-1][-40:]!r}, where the reference is {begun[0].reference!r:.60}",),
        change="raise rollout.max_tokens."
        if limit
        else "check the stop strings and end tokens (prompt.stop), and what an earlier stage taught as the end.",
        rollouts=places(begun),
        explains=frozenset({"all-wrong", "truncated", "no-answer", "no-progress", "task-all-wrong"}),
    )


def _last_said(row: Row) -> list[str]:
    """Return the completion, and the answer that was read if the completion ends with it."""
    text = row.answer_text.strip()
    return [text, row.answer.strip()] if row.answer and text.endswith(row.answer.strip()) else [text]


def _begins(said: str, gold: str) -> bool:
    return bool(said) and said != gold and gold.startswith(said)


def _truncated(history: History) -> Iterator[Finding]:
    """Yield a finding on completions that end at the token limit, with what a longer limit would gain."""
    cap = history.config.rollout.turn_tokens if history.series("turns/mean").size else None
    rows = [row for row in history.graded if not row.cut_in_turn(cap)]  # those have a rule of their own
    cut = [row for row in rows if row.truncated]
    share = len(cut) / len(history.graded) if rows else 0.0
    if share < TRUNCATED or wilson_interval(len(cut), len(rows)).low < TRUNCATED / 2:
        return
    limit = history.config.rollout.max_tokens
    ended = [row for row in rows if not row.truncated]
    right_cut, right_ended = _right(cut), _right(ended)
    by_step = history.series("completion/truncated")
    trend = change(by_step)
    falls = trend is not None and trend.last < TRUNCATED / 2 and trend.z < -3
    # if most are truncated, those that ended are a selection: they do not show what the others would have reached
    harmless = right_cut > 0.8 * right_ended if len(ended) > len(cut) else right_cut > 0.5
    rambling = rambles(cut)
    evidence = [
        f"{percent(right_cut)} of the truncated ones were right, {percent(right_ended)} of the others"
        if ended
        else f"no completion ends before the limit; {percent(right_cut)} are right",
    ]
    if ended:
        lengths = np.sort([row.tokens for row in ended])
        crowd = float((lengths > 0.8 * limit).mean())
        evidence.append(
            f"the completions that end before the limit have {np.median(lengths):.0f} tokens (median);"
            f" {percent(crowd)} of them end in the last fifth before the limit"
        )
    if rambling > 0.5:
        evidence.append(
            f"but {percent(rambling)} of the truncated ones repeat themselves or have already given their answer: for"
            " those a longer limit changes nothing"
        )
    replied = sum(map(_filled_by_replies, cut)) / len(cut)
    if replied > 0.3:
        evidence.append(
            f"in {percent(replied)} of them replies of the environment are most of the tokens, or the next one has no"
            " room"
        )
    yield Finding(
        code="truncated",
        level=Level.NOTE if falls or harmless else Level.WARNING,
        cost=share * (0.3 if rambling > 0.5 or falls else 1.0) * max(0.3, 1 - right_cut),
        title=f"{percent(share)} of the completions are truncated at rollout.max_tokens={limit}, and"
        f" {percent(right_cut)} of those were right" + (" (at the end hardly any is)" if falls else ""),
        evidence=tuple(evidence),
        change="teach the model to stop (an sft stage whose demonstrations end), name what ends a turn"
        " (prompt.end_tokens), or fix the chat template."
        if rambling > 0.5
        else f"raise rollout.max_tokens (to {2 * limit}, then check again), or make the replies shorter."
        if replied > 0.3
        else f"raise rollout.max_tokens (to {2 * limit}, then check again), or ask for shorter answers.",
        rollouts=places(cut),
        explains=frozenset()
        if rambling > 0.5 or falls
        else frozenset(
            {"no-answer", "no-progress", "reward-falls", "right-answers-fall", "rewards-collapsed"}
            | ({"all-wrong"} if share > 0.5 else set[str]())  # else most wrong ones have another reason
        ),
    )


def _filled_by_replies(row: Row) -> bool:
    """Return True if an environment wrote most of an episode's tokens, or a last reply that has no room."""
    return bool(row.turns) and (row.turns[-1].get("origin") == "environment" or len(row.token_ids) > 2 * row.tokens)


def rambles(rows: list[Row]) -> float:
    """Return the share of completions that repeat themselves, or continue long after their final answer.

    Example: "1+1=2 1+1=2 1+1=2 ..." repeats: pieces of twelve characters that occur at least four times cover most of
    it.
    """
    if not rows:
        return 0.0
    return sum(repeats(row.completion) or _answered(row) for row in rows) / len(rows)


def repeats(text: str, *, size: int = 12) -> bool:
    """Return True if pieces of `size` characters that occur at least four times cover more than half of the text.

    A text shorter than 8 such pieces does not count as repeating.
    """
    if len(text) < 8 * size:
        return False
    counted = Counter(text[i : i + size] for i in range(0, len(text) - size))
    again = sum(count for count in counted.values() if count >= 4)
    return again > 0.5 * (len(text) - size)


def _answered(row: Row) -> bool:
    """Return True if the answer was found in the first 70 % of a truncated completion."""
    if row.answer is None:
        return False
    at = row.completion.rfind(row.answer)  # the last occurrence: the working before may contain the same digits
    return 0 <= at < 0.7 * len(row.completion) and row.outcome != "no_answer"


def _right(rows: list[Row]) -> float:
    return sum(row.right for row in rows) / len(rows) if rows else 0.0


def _no_answer(history: History) -> Iterator[Finding]:
    rows = history.graded
    without = [row for row in rows if row.outcome == "no_answer" and not row.truncated]
    share = len(without) / len(rows) if rows else 0.0
    if share < 0.2:
        return
    trend = change(history.series("outcome/no_answer"))
    falls = trend is not None and trend.last < 0.1
    yield Finding(
        code="no-answer",
        level=Level.NOTE if falls else Level.WARNING,
        cost=share * (0.2 if falls else 0.9),
        title=f"In {percent(share)} of the completions the verifier finds no answer, although they are not truncated",
        evidence=(f"reason: {without[0].reason[:160]}", f"one ends: {without[0].completion[-100:]!r}"),
        change="state in prompt.system or prompt.template how the answer must be written, or set the verifier's"
        " extraction"
        " options to what the model writes.",
        rollouts=places(without),
        explains=frozenset({"all-wrong"}) if share > 0.5 else frozenset(),  # else most wrong ones have an answer
    )


def _same_completions(history: History) -> Iterator[Finding]:
    """Yield a finding on unsolved groups whose rollouts are all the same text, so that their rewards cannot differ."""
    groups = [group for group in history.groups if len(group) > 1 and not all(row.right for row in group)]
    if len(groups) < max(8, (1 - MOSTLY) * len(history.groups)):
        return
    size = max(8, len(groups) // 3)
    early, late = (_alike(part) for part in (groups[:size], groups[-size:]))
    if max(early, late) < 0.5:
        return
    lost = early < 0.5 or history.steps[0] > 2
    entropy = history.series("policy/entropy")
    yield Finding(
        code="entropy-collapse" if lost else "no-diversity",
        level=Level.WARNING,
        cost=late if lost else _alike(groups),
        title=f"In {percent(late if lost else _alike(groups))} of the{' last' if lost else ''} groups that are not"
        " solved all completions are the same text" + (": the policy no longer explores" if lost else ""),
        evidence=(
            f"{percent(early)} in the first third of the run, {percent(late)} in the last; equal completions have equal"
            " rewards"
            + (f"; entropy {entropy[0]:.3f} -> {entropy[-1]:.3f} nats a token" if lost and len(entropy) else ""),
        ),
        change="go back to a checkpoint before that, and lower optim.lr, set a higher upper clip range"
        " (algorithm.loss_options), or restrain the policy with algorithm.kl_coef."
        if lost
        else "raise rollout.temperature, check that every request has its own seed, or use a model that has not"
        " collapsed.",
        rollouts=places([group[0] for group in groups if _alike([group])]),
        explains=frozenset({"all-wrong", "no-progress"}),
    )


def _alike(groups: list[list[Row]]) -> float:
    """Return the share of groups whose completions are all the same text."""
    return sum(len({row.completion for row in group}) == 1 for group in groups) / len(groups)
