"""Rules on records that contradict each other: figures and rows, verdicts and texts, settings and what they did."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from reasoner.config.estimators import traits_of
from reasoner.config.methods import METHODS
from reasoner.observe.explain.finding import Finding, Level, Place, places
from reasoner.observe.explain.policy_rules import MISMATCHED
from reasoner.observe.explain.significance import percent
from reasoner.storage.history import History, Row

MANY = 16
"""Fewest rows that a finding on single rows is based on (our choice)."""
VERDICTS = frozenset(
    {
        "wrong-answer-accepted",
        "right-answer-rejected",
        "inconsistent-verdicts",
        "one-answer-for-all",
        "references-doubtful",
        "held-out-gap",
        "all-wrong",
        "descends",
        "no-progress",
        "reward-falls",
    }
)
"""Findings that verdicts on other texts may cause."""


def record_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules."""
    if METHODS[history.config.method].learns_from == "rewards":
        yield from _zeroed(history)
        yield from _refreshed(history)
        yield from _past_the_end(history)
        yield from _misread(history)
        yield from _prompt_ends(history)
        yield from _few_problems(history)
        yield from _scales(history)
    if history.eval_rows:
        yield from _recomputed(history)
        yield from _other_problems(history)
        yield from _changed_prompts(history)


def _zeroed(history: History) -> Iterator[Finding]:
    """Advantages of 0 where the reward differs from the group's mean, which is the baseline."""
    algorithm = history.config.algorithm
    if traits_of(algorithm.advantage).baseline != "group" or (algorithm.kl_in == "reward" and algorithm.kl_coef > 0):
        return
    used: list[Row] = []
    zero: list[Row] = []
    below = True
    for group in history.groups:
        rows = [row for row in group if row.advantage is not None and row.reward is not None]
        rewards = np.asarray([row.reward for row in rows], dtype=np.float64)
        if len(rows) < len(group) or not len(rows) or np.ptp(rewards) < 1e-9:
            continue
        off = np.abs(rewards - rewards.mean()) > 0.1 * rewards.std()
        used += [row for row, away in zip(rows, off, strict=True) if away]
        zero += [row for row, away in zip(rows, off, strict=True) if away and row.advantage == 0]
        below &= not any(row.advantage == 0 and row.reward > rewards.mean() for row in rows if row.reward is not None)
    share = len(zero) / max(1, len(used))
    if len(zero) < MANY or share < 0.05:
        return
    yield Finding(
        code="advantages-zero",
        level=Level.FAULT,
        cost=min(1.0, 0.3 + share),
        title=f"The advantage of {percent(share)} of the rollouts is 0 although their reward differs from the mean of"
        " their group: nothing is learned from them",
        evidence=(
            *(["all of them are below the mean: only better rollouts are learned from"] if below else []),
            f"rollout {Place(*zero[0].place)} has reward {zero[0].reward:.3g}, its group"
            f" {[round(row.reward or 0.0, 2) for row in _group_of(history, zero[0])][:8]}",
        ),
        change="look for what clips, masks or drops advantages before the update.",
        rollouts=places(zero),
        explains=frozenset({"advantages-not-centred", "no-progress", *MISMATCHED}),
    )


def _group_of(history: History, one: Row) -> list[Row]:
    return [row for row in history.by_step[one.step] if row.group == one.group]


def _refreshed(history: History) -> Iterator[Finding]:
    """A ratio of exactly 1 in every one of several updates on a batch, while the policy moves."""
    optim = history.config.optim
    ratio, clipped, moved = (history.series(f"policy/{name}") for name in ("ratio", "clip_fraction", "step_kl"))
    if optim.updates_per_step * optim.inner_epochs < 2 or min(map(len, (ratio, clipped, moved)), default=0) < 4:
        return
    if float(np.abs(ratio - 1).max()) > 1e-6 or clipped.any() or float(np.median(moved)) < 1e-4:
        return
    yield Finding(
        code="ratio-always-one",
        level=Level.FAULT,
        cost=0.9,
        title=f"The importance ratio is exactly 1 in all updates, though a batch has"
        f" {optim.updates_per_step * optim.inner_epochs} of them: nothing is ever clipped",
        evidence=(
            f"policy/step_kl is {np.median(moved):.2g} nats a token (median), so that the second update of a batch sees"
            " another policy than the one that sampled it",
        ),
        change="compare with the log-probabilities from before the first update of the batch, not with new ones.",
        explains=frozenset({"learning-rate-too-high", "reward-falls", "no-progress", "descends", "rewards-collapsed"}),
    )


def _past_the_end(history: History) -> Iterator[Finding]:
    """Completions that go on after the token with which the others end."""
    if history.config.prompt.stop or any(row.turns for row in history.rows[:MANY]):
        return
    rows = [row for row in history.rows if len(row.token_ids)]
    ends = Counter(int(row.token_ids[-1]) for row in rows if row.finish_reason == "stop")
    if not ends:
        return
    end, count = ends.most_common(1)[0]
    if count < 0.9 * ends.total():
        return
    beyond = [row for row in rows if (row.token_ids[:-1] == end).any()]
    share = len(beyond) / len(rows)
    if len(beyond) < MANY or share < 0.02:
        return
    yield Finding(
        code="end-token-passed",
        level=Level.FAULT,
        cost=min(1.0, 0.4 + share),
        title=f"{percent(share)} of the completions go on after the end token",
        evidence=(
            f"{count} completions end with token {end}; in {len(beyond)} it stands before the last position"
            f" ({percent(sum(row.truncated for row in beyond) / len(beyond))} of these end at the limit)",
        ),
        change="check that the engine stops at the end token (ignore_eos, min_tokens, the generation_config's"
        " eos_token_id).",
        rollouts=places(beyond),
        explains=frozenset({"truncated", "no-answer", "all-wrong", "no-progress", "repetition"}),
    )


def _misread(history: History) -> Iterator[Finding]:
    """Answers in verdicts that are a part of the number in the text, or that stand in another sample of the group."""
    read = [row for row in history.graded if row.answer and row.answer.strip()]
    parts = [row for row in read if _is_part(row.answer_text, str(row.answer).strip())]
    if len(parts) >= MANY and len(parts) > 0.1 * len(read):
        yield Finding(
            code="answers-misread",
            level=Level.FAULT,
            cost=min(1.0, 0.4 + len(parts) / len(read)),
            title=f"{percent(len(parts) / len(read))} of the answers that were read are only a part of the number in"
            " the text: what is graded is not what was written",
            evidence=(f"such as {str(parts[0].answer)[:40]!r}, read from {parts[0].answer_text[-60:]!r}",),
            change="look for what cuts or changes the text before the verifier reads it.",
            rollouts=places(parts),
            explains=VERDICTS | {"verdicts-misplaced"},
        )
        return
    others: list[Row] = []
    lost = 0
    for group in history.groups:
        texts = ["".join(row.completion.split()) for row in group]
        for place, row in enumerate(group):
            said = "".join((row.answer or "").split())
            if not said or row.reward is None or said in texts[place]:
                continue
            lost += 1
            if any(said in text for text in texts):
                others.append(row)
    if len(others) < MANY or len(others) < 0.05 * len(read) or len(others) < 0.8 * lost:
        return
    yield Finding(
        code="verdicts-misplaced",
        level=Level.FAULT,
        cost=min(1.0, 0.4 + len(others) / len(read)),
        title=f"The verdicts stand beside the wrong completions: {percent(len(others) / len(read))} of the answers that"
        " were read are not in their own text, but in that of another sample of the problem",
        evidence=(f"such as {str(others[0].answer)[:40]!r} for {others[0].completion[-60:]!r}",),
        change="look for what shares verdicts between completions: a cache whose key is not the text, results taken in"
        " the order in which they finish.",
        rollouts=places(others),
        explains=VERDICTS,
    )


def _is_part(text: str, answer: str) -> bool:
    """Return True if a number stands in a text, but everywhere as a part of a longer one of another value."""
    if not re.fullmatch(r"-?\d+(\.\d+)?", answer):
        return False
    around = [found.group() for found in re.finditer(r"[\d.,]*" + re.escape(answer) + r"[\d.,]*", text)]
    plain = [one.replace(",", "").strip(".") for one in around]
    return bool(plain) and not any(_same_number(one, answer) for one in plain)


def _same_number(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return True  # several numbers without a space between them


def _prompt_ends(history: History) -> Iterator[Finding]:
    """Prompts that are cut at a limit; prompts with and without white space at the end, of which one kind fails."""
    rows = [row for row in history.graded if len(row.prompt_ids)]
    if len(rows) < 4 * MANY:
        return
    lengths = np.asarray([len(row.prompt_ids) for row in rows])
    longest = int(lengths.max())
    usual, count = (
        Counter(int(row.prompt_ids[-1]) for row in rows if len(row.prompt_ids) < longest).most_common(1)[0]
        if (lengths < longest).any()
        else (-1, 0)
    )
    cut = [row for row in rows if len(row.prompt_ids) == longest and row.prompt_ids[-1] != usual]
    shorter = int((lengths < longest).sum())
    if len(cut) > 0.1 * len(rows) and count > 0.97 * shorter and shorter > 0.2 * len(rows):
        yield _ends_finding(
            cut,
            rows,
            f"{percent(len(cut) / len(rows))} of the prompts are cut at {longest} tokens: no prompt is longer, and"
            " these do not end as the others do",
            "let the whole prompt through (a limit of the prompt's length, a cut in the data), or leave long problems"
            " out.",
        )
        return
    bare = [row for row in rows if not row.prompt[-1:].isspace()]
    spaced = len(rows) - len(bare)
    if min(len(bare), spaced) < 0.1 * len(rows):
        return
    rates = [float(np.mean([row.right for row in rows if row.prompt[-1:].isspace() is kind])) for kind in (False, True)]
    pooled = float(np.mean([row.right for row in rows]))
    error = np.sqrt(max(pooled * (1 - pooled), 1e-9) * (1 / len(bare) + 1 / spaced))
    if abs(rates[0] - rates[1]) < 0.15 or abs(rates[0] - rates[1]) < 6 * error:
        return
    failing = bare if rates[0] < rates[1] else [row for row in rows if row.prompt[-1:].isspace()]
    yield _ends_finding(
        failing,
        rows,
        f"{percent(len(failing) / len(rows))} of the prompts end {'without' if failing is bare else 'with'} white"
        f" space, unlike the others: {percent(min(rates))} of their samples are right instead of {percent(max(rates))}",
        "give all prompts the same end, the one that the model was trained with.",
    )


def _ends_finding(failing: Sequence[Row], rows: Sequence[Row], title: str, change: str) -> Finding:
    other = next((row for row in rows if row.prompt[-1:] != failing[0].prompt[-1:]), rows[-1])
    return Finding(
        code="prompts-end-otherwise",
        level=Level.FAULT,
        cost=min(1.0, 0.4 + len(failing) / len(rows)),
        title=title,
        evidence=(f"{failing[0].prompt[-60:]!r} beside {other.prompt[-60:]!r}",),
        change=change,
        rollouts=places([*failing]),
        explains=frozenset(
            {"all-wrong", "no-answer", "no-progress", "references-doubtful", "evaluation-prompts-differ", "truncated"}
            | {"contradicting-references", "duplicate-problems", "evaluation-above-training"}
        ),
    )


def _few_problems(history: History) -> Iterator[Finding]:
    """A run over a handful of problems, each of them many times."""
    draws = Counter(group[0].problem for group in history.groups)
    per_step = history.config.rollout.problems_per_step
    times = float(np.median([*draws.values()])) if draws else 0.0
    if len(history.steps) < 5 or times < 5 or len(draws) > 2 * per_step or history.config.rollout.sampling != "epoch":
        return
    yield Finding(
        code="few-problems",
        level=Level.WARNING,
        cost=0.5,
        title=f"Only {len(draws)} problems are trained on, each of them {times:.0f} times",
        evidence=(f"a step takes {per_step}; what is learned is these answers, and held-out problems need not follow",),
        change="check task.limit, a filter or a file that is too short; else take more problems or fewer steps.",
        explains=frozenset({"no-diversity", "entropy-collapse", "all-right", "problems-repeat", "no-progress"}),
    )


def _scales(history: History) -> Iterator[Finding]:
    """Right answers whose rewards differ by a factor between problems, under an estimator that does not scale."""
    reward = history.config.reward
    if history.config.algorithm.advantage not in UNSCALED or (reward is not None and reward.learned):
        return
    best: defaultdict[str, float] = defaultdict(float)
    discrete = len({row.reward for row in history.graded}) <= 8  # a few marks, of which a problem's largest is right
    for row in history.graded:
        if (row.right or (discrete and row.outcome == "scored")) and (row.verdict_reward or 0.0) > 0:
            best[row.problem] = max(best[row.problem], row.verdict_reward or 0.0)
    values = np.asarray([*best.values()])
    if len(values) < MANY:
        return
    low, high = np.quantile(values, 0.1), np.quantile(values, 0.9)
    if low <= 0 or high < 3 * low:
        return
    ordered = sorted(best, key=lambda name: best[name])
    yield Finding(
        code="reward-scales-differ",
        level=Level.WARNING,
        cost=0.5,
        title=f"Right answers are worth {low:.3g} in some problems and {high:.3g} in others, and"
        f" algorithm.advantage={history.config.algorithm.advantage} does not scale: the large ones decide the update",
        evidence=(f"{ordered[0]}: {best[ordered[0]]:.3g}, {ordered[-1]}: {best[ordered[-1]]:.3g}",),
        change="give all right answers the same reward, or take algorithm.advantage=grpo, which divides by the spread.",
        explains=frozenset({"no-progress"}),
    )


UNSCALED = frozenset({"dr_grpo", "rloo"})
"""Estimators with the group's mean as baseline that do not divide by its spread."""


def _recomputed(history: History) -> Iterator[Finding]:
    """A mean accuracy that is not the one of the recorded completions."""
    for record in reversed(history.evals):
        per_problem: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for row in history.eval_rows:
            if row.step == record.step and row.quality is not None:
                per_problem[row.task, row.problem].append(row.quality)
        if not per_problem or record.problems is None or len(per_problem) < 0.98 * record.problems:
            continue
        name = f"avg@{max(map(len, per_problem.values()))}"
        if record.sets or name not in record.metrics:
            return
        told, seen = record.metrics[name][0], float(np.mean([np.mean(one) for one in per_problem.values()]))
        if abs(told - seen) < 0.02 + 0.02 * abs(seen):
            return
        yield Finding(
            code="evaluation-figures-differ",
            level=Level.FAULT,
            cost=0.7,
            title=f"The evaluation reports {name} {told:.3g}, but the completions beside it have {seen:.3g}",
            evidence=(f"mean over {len(per_problem)} problems of eval_rollouts.jsonl, step {record.step}",),
            change=f"check how {name} is computed: the mean over all samples, not the best of them.",
            explains=EVALUATION,
        )
        return


EVALUATION = frozenset(
    {"evaluation-below-training", "evaluation-sampled-otherwise", "evaluation-falls", "rises", "solved"}
)


def _other_problems(history: History) -> Iterator[Finding]:
    """Evaluations of one run on different problems."""
    asked: defaultdict[int, set[tuple[str, str]]] = defaultdict(set)
    for row in history.eval_rows:
        asked[row.step].add((row.task, row.problem))
    if len(asked) < 2:
        return
    first, last = asked[min(asked)], asked[max(asked)]
    common = len(first & last) / max(1, min(len(first), len(last)))
    if common > 0.9:
        return
    shown = [next(chain(sorted(only), [("", "")]))[1] for only in (first - last, last - first)]
    yield Finding(
        code="evaluation-sets-differ",
        level=Level.FAULT,
        cost=0.7,
        title=f"The first and the last evaluation have only {percent(common)} of their problems in common: before and"
        " after cannot be compared",
        evidence=(f"{shown[0]!r} is only in the first, {shown[1]!r} only in the last",),
        change="evaluate on the same problems each time (eval.problems, task.eval_split, the order of the file).",
        explains=EVALUATION | {"no-progress"},
    )


def _changed_prompts(history: History) -> Iterator[Finding]:
    """Evaluations that ask the same problems in other words."""
    asked: defaultdict[int, dict[tuple[str, str], Row]] = defaultdict(dict)
    for row in history.eval_rows:
        asked[row.step][row.task, row.problem] = row
    if len(asked) < 2:
        return
    first, last = asked[min(asked)], asked[max(asked)]
    common = [key for key in first if key in last]
    changed = [key for key in common if first[key].prompt != last[key].prompt]
    if len(changed) < 3 or len(changed) < 0.1 * len(common):
        return
    yield Finding(
        code="evaluation-prompts-change",
        level=Level.FAULT,
        cost=0.8,
        title=f"{percent(len(changed) / len(common))} of the evaluation problems have another prompt in the last"
        " evaluation than in the first: before and after cannot be compared",
        evidence=(f"{first[changed[0]].prompt[-60:]!r}, later {last[changed[0]].prompt[-60:]!r}",),
        change="render the prompts of all evaluations alike.",
        explains=EVALUATION | {"evaluation-cut", "evaluation-prompts-differ"},
    )
