"""Rules on the rewards: completions that were not graded, wrong verdicts, and signs of reward hacking."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from reasoner.observe.explain.finding import Finding, Level, Place, places
from reasoner.observe.explain.signal_rules import repeats
from reasoner.observe.explain.significance import change, percent
from reasoner.storage.history import UNGRADED, History, Row
from verifiers.stats import wilson_interval


def grading_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules."""
    yield from _ungraded(history)
    yield from _limits(history)
    yield from _no_full_marks(history)
    yield from _undecided(history)
    yield from _empty_accepted(history)
    yield from _one_answer_for_all(history)
    yield from _equal_rejected(history)
    yield from _unequal_accepted(history)
    yield from _evaluation_accepts(history)
    yield from _longer_wins(history)
    yield from _inconsistent(history)
    yield from _tampering(history)
    yield from _repetition(history)
    yield from _length(history)


def _ungraded(history: History) -> Iterator[Finding]:
    """Yield a finding on completions that could not be graded: they are not wrong, but their sampling is wasted."""
    rows = [row for row in history.rows if row.outcome in UNGRADED]
    if not rows:
        return
    share = len(rows) / len(history.rows)
    causes = Counter(f"{row.outcome} by {row.verifier}: {_generic(row.reason)}" for row in rows)
    gold = sum(row.outcome == "bad_reference" for row in rows) > len(rows) / 2
    yield Finding(
        code="ungraded",
        level=Level.WARNING if share >= 0.01 or len(rows) >= 20 else Level.NOTE,
        cost=min(1.0, 2 * share),
        title=f"{percent(share)} of the completions could not be graded ({len(rows)} of {len(history.rows)})",
        evidence=tuple(f"{count} x {cause}" for cause, count in causes.most_common(3)),
        change="fix the references: `reasoner tasks validate NAME` lists them all."
        if gold
        else "fix the verifier, then `reasoner rescore RUN` grades the stored rollouts again without a GPU.",
        rollouts=places(rows),
        explains=frozenset({"stopped"} if (history.failure or {}).get("error") == "UngradedError" else ()),
    )


def _generic(reason: str) -> str:
    """Replace the numbers in a reason by N, so that equal causes count as one."""
    return re.sub(r"\d+", "N", reason)[:160]


def _limits(history: History) -> Iterator[Finding]:
    rows = [row for row in history.graded if row.outcome == "limit_exceeded"]
    share = len(rows) / max(1, len(history.graded))
    if len(rows) < 3 or share < 0.02:
        return
    yield Finding(
        code="grading-limits",
        level=Level.WARNING,
        cost=share,
        title=f"{percent(share)} of the completions got no reward because grading them went over a limit",
        evidence=tuple(f"{n} x {cause}" for cause, n in Counter(_generic(r.reason) for r in rows).most_common(3)),
        change="read them: a right answer that is slow to grade counts as wrong; raise grading.wall_seconds or the"
        " verifier's own limits.",
        rollouts=places(rows),
        explains=frozenset({"inconsistent-verdicts", "right-answer-rejected"}),
    )


def _no_full_marks(history: History) -> Iterator[Finding]:
    """Yield a finding on a reward function of another trainer that exceeds 1, so that right answers are not defined."""
    rows = [row for row in history.graded if row.decider[0] in FOREIGN]
    given = {row.place: row.components.get(row.decided_by or "", row.verdict_reward or 0.0) for row in rows}
    beyond = [row for row in rows if row.outcome == "scored" and given[row.place] > 1]
    if not beyond or len(beyond) == len(rows):
        return
    highest = max(given.values())
    yield Finding(
        code="no-full-marks",
        level=Level.WARNING,
        cost=len(beyond) / len(rows),
        title=f"Nothing says which answers are right: the reward function goes up to {highest:g}, and only 1 counts as"
        " right",
        evidence=(
            f"{percent(len(beyond) / len(rows))} of its verdicts are above 1 and so neither right nor wrong: the pass"
            " rate, pass@k, the difficulty of problems and the audit leave them out",
        ),
        change=f"set the verifier's option full={highest:g} (what a right answer gets), and its weight to that number"
        " in a weighted sum.",
        rollouts=places(beyond),
    )


FOREIGN = frozenset({"trl", "verl"})
"""Verifiers that call reward functions written for other trainers."""


def _undecided(history: History) -> Iterator[Finding]:
    """Yield a finding on undecided answers, which get 0: they may be right, or a habit that training should end."""
    rows = [row for row in history.graded if row.detail.get("tier") == "undecided"]
    share = len(rows) / max(1, len(history.graded))
    if len(rows) < 3 or share < 0.02:
        return
    over_time = _share_over_time(history, rows, history.graded)
    yield Finding(
        code="undecided-answers",
        level=Level.WARNING,
        cost=share,
        title=f"{percent(share)} of the answers are expressions that the verifier reads and cannot decide; they got 0",
        evidence=(
            f"share of the graded: {over_time}",
            f"one of them: {str(rows[-1].answer)[:80]!r} against {str(rows[-1].reference)[:40]!r}",
        ),
        change="ask in the prompt for an evaluated result; if the references themselves are integrals, limits"
        " or series that SymPy cannot evaluate, write their values (`reasoner tasks validate TASK` names them).",
        rollouts=places(rows),
    )


def _empty_accepted(history: History) -> Iterator[Finding]:
    """Yield a finding on completions without an answer that got full marks."""
    rewarded = [row for row in history.graded if row.right]
    empty = [row for row in rewarded if isinstance(row.reference, str) and _is_empty(row)]
    if len(empty) < 2:
        return
    series = _share_over_time(history, empty, rewarded)
    yield Finding(
        code="empty-answer-accepted",
        level=Level.FAULT,
        cost=min(1.0, 0.5 + len(empty) / len(rewarded)),
        title=f"The verifier gives full marks to {len(empty)} completions without an answer"
        f" ({percent(len(empty) / len(rewarded))} of the rewarded ones): the reward is being gamed",
        evidence=(f"share of the rewarded: {series}", f"one of them: {empty[-1].completion[-120:]!r}"),
        change="make the verifier return no_answer if the extracted answer is empty, add these rollouts to its tests"
        " (`reasoner verifiers check NAME`), then `reasoner rescore RUN` and start again from an earlier checkpoint.",
        rollouts=places(empty),
        explains=HACKED,
    )


HACKED = frozenset(
    {"one-answer-for-all", "held-out-gap", "length-drift", "no-diversity", "all-right", "solved"}
    | {"evaluation-accepts-wrong"}
)


def _is_empty(row: Row) -> bool:
    """Return True if no answer was extracted, or one without letters and digits although the reference has some."""
    if row.answer is None:
        # a verifier that grades the whole text extracts no answer; then the text must not be empty
        return not re.search(r"\w", row.completion)
    return not re.search(r"\w", row.answer) and re.search(r"\w", str(row.reference)) is not None


def _share_over_time(history: History, rows: Sequence[Row], of: Sequence[Row]) -> str:
    """Return the share in the first, middle and last third of the steps, as text."""
    steps = history.steps
    thirds = [set(part.tolist()) for part in np.array_split(np.asarray(steps), min(3, len(steps)))]
    shares = []
    for part in thirds:
        base = sum(row.step in part for row in of)
        shares.append(percent(sum(row.step in part for row in rows) / base) if base else "-")
    return " -> ".join(shares)


def _one_answer_for_all(history: History) -> Iterator[Finding]:
    """Yield a finding if one answer was accepted for several different references, which no sound verifier does."""
    accepted: dict[str, dict[str, list[Row]]] = {}
    for row in history.graded:
        if row.right and isinstance(row.reference, str) and row.answer is not None:
            accepted.setdefault(row.answer.strip(), {}).setdefault(row.reference.strip(), []).append(row)
    found: list[Row] = []
    answers: list[str] = []
    for answer, by_reference in accepted.items():
        if len({_value(reference) for reference in by_reference}) >= 3:
            found += [row for rows in by_reference.values() for row in rows]
            answers.append(answer)
    rewarded = sum(row.right for row in history.graded)
    if not found:
        return
    yield Finding(
        code="one-answer-for-all",
        level=Level.FAULT,
        cost=min(1.0, 0.5 + len(found) / rewarded),
        title=f"The verifier accepts one and the same answer ({answers[0][:40]!r}) for problems with different"
        f" references:"
        " the reward is being gamed",
        evidence=(
            f"{len(found)} rewarded rollouts ({percent(len(found) / rewarded)} of the rewarded) share"
            f" {len(answers)} such answers; over time"
            f" {_share_over_time(history, found, [r for r in history.graded if r.right])}",
        ),
        change="tighten the verifier, add these rollouts to its tests, `reasoner rescore RUN --verifier NAME` to"
        " see what"
        " changes, and start again from an earlier checkpoint.",
        rollouts=places(found),
        explains=frozenset({"held-out-gap", "length-drift", "no-diversity", "all-right", "solved"}),
    )


NUMBER = re.compile(r"[+-]?(?:\d{1,50}(?:/\d{1,50})?|\d{0,50}\.?\d{0,50}(?:e[+-]?\d{1,2})?)")
"""Numbers of bounded size; a collapsed model writes 22e2222222222, which would take hours to expand."""


def _value(text: str) -> Fraction | str:
    """Return a number as a Fraction, and any other text in lower case with single spaces.

    Example:
        >>> _value("$1,000.0") == _value("1000"), _value(" x "), _value("1,2")
        (True, 'x', '1,2')
    """
    folded = " ".join(text.split()).casefold()
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", folded.replace("$", ""))
    if not NUMBER.fullmatch(plain):
        return folded
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return folded


def _equal_rejected(history: History) -> Iterator[Finding]:
    """Yield a finding on rejected answers that equal the reference, as text or as a number."""
    rows = [row for row in history.graded if isinstance(row.reference, str) and row.reference.strip()]
    says = [_value(_said(row)) == _value(str(row.reference)) for row in rows]
    equal = [row for row, same in zip(rows, says, strict=True) if same]
    equal += _ends_as_right_ones([row for row, same in zip(rows, says, strict=True) if row.answer is None and not same])
    rejected = [row for row in equal if not row.right and row.outcome in ("incorrect", "no_answer")]
    share = len(rejected) / len(equal) if equal else 0.0
    if len(rejected) < 3 or wilson_interval(len(rejected), len(equal)).low < 0.005:
        return
    first = min(row.step for row in rejected)
    before = sum(row.step < first for row in equal)
    yield Finding(
        code="right-answer-rejected",
        level=Level.FAULT,
        cost=min(1.0, 0.2 + share),
        title=f"The verifier rejects {percent(share)} of the answers that equal their reference",
        evidence=(
            f"{len(rejected)} of {len(equal)}, such as {_said(rejected[0])[-40:]!r} against"
            f" {str(rejected[0].reference)[:40]!r}: {rejected[0].reason[:120]}",
            *([f"none of {before} before step {first}: what changed then?"] if before >= 20 * share else []),
        ),
        change="fix the verifier; `reasoner rescore RUN --verifier NAME` shows what the rewards would have been.",
        rollouts=places(rejected),
        explains=frozenset(
            {"all-wrong", "task-all-wrong", "no-progress", "rewards-collapsed", "reward-falls", "evaluation-falls"}
        ),
    )


def _ends_as_right_ones(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that end with their reference in a form in which this verifier accepts answers.

    For verifiers that do not say which answer they read: nearly all completions that are right end with their
    reference, and what stands before it (the four characters before the last word) is the same.
    """
    framed = [(row, _frame(row)) for row in rows]
    right = [frame for row, frame in framed if row.right]
    named = Counter(frame for frame in right if frame is not None)
    if len(right) < 20 or named.total() < 0.9 * len(right):
        return []
    forms = {frame for frame, count in named.items() if count >= 0.1 * len(right)}
    return [row for row, frame in framed if frame in forms]


def _frame(row: Row) -> str | None:
    """Return the four characters before the last word if that is the reference; None if it is not."""
    text = row.answer_text.rstrip()
    reference = str(row.reference).strip()
    before, word = text[: len(text) - len(reference)], text[len(text) - len(reference) :]
    whole = not before or not before[-1].isalnum()
    return before[-4:] if word == reference and whole else None


def _said(row: Row) -> str:
    """Return the answer that the verifier read; the whole text if it read none."""
    return str(row.answer) if row.answer is not None else row.answer_text.strip()


def _unequal_accepted(history: History) -> Iterator[Finding]:
    """Yield a finding on accepted numbers that differ from the reference by more than rounding or a percentage form."""
    pairs = _accepted_numbers(history.graded)
    wrong = _unequal(pairs)
    if len(wrong) < 3 or wilson_interval(len(wrong), len(pairs)).low < 0.005:
        return
    share = len(wrong) / len(pairs)
    yield Finding(
        code="wrong-answer-accepted",
        level=Level.FAULT,
        cost=min(1.0, 0.4 + share),
        title=f"The verifier gives full marks to numbers that are not the reference: {percent(share)} of the rewarded"
        " ones",
        evidence=(
            f"{len(wrong)} of {len(pairs)}, such as {_said(wrong[0])[-40:]!r} against"
            f" {str(wrong[0].reference)[:40]!r}: {wrong[0].reason[:120]}; over time"
            f" {_share_over_time(history, wrong, [row for row, _, _ in pairs])}",
        ),
        change="tighten the verifier, add these rollouts to its tests, `reasoner rescore RUN --verifier NAME` to see"
        " what changes, and start again from an earlier checkpoint.",
        rollouts=places(wrong),
        explains=HACKED,
    )


def _evaluation_accepts(history: History) -> Iterator[Finding]:
    """Yield a finding on numbers that the evaluation accepts although they are not the reference."""
    pairs = _accepted_numbers([row for row in history.eval_rows if row.reward is not None])
    wrong = _unequal(pairs)
    if len(wrong) < 3 or wilson_interval(len(wrong), len(pairs)).low < 0.005:
        return
    row = wrong[0]
    trained = {row.verifier for row in history.rows}
    yield Finding(
        code="evaluation-accepts-wrong",
        level=Level.FAULT,
        cost=0.6,
        title="The evaluation gives full marks to numbers that are not the reference:"
        f" {percent(len(wrong) / len(pairs))} of the right ones",
        evidence=(
            f"{len(wrong)} of {len(pairs)}, such as {_said(row)[-40:]!r} against {str(row.reference)[:40]!r}, by"
            f" the verifier {row.verifier}"
            + ("" if row.verifier in trained else f"; training uses {', '.join(trained)}"),
        ),
        change="grade the evaluation with the verifier of training or a stricter one (task.verifier);"
        " `reasoner eval RUN --verifier NAME` shows what its accuracy is then.",
        explains=frozenset({"evaluation-below-training", "solved", "rises"}),
    )


def _accepted_numbers(rows: Sequence[Row]) -> list[tuple[Row, Fraction, Fraction]]:
    """Return the accepted rows whose answer and reference are numbers, with both.

    A verifier that does not say which answer it read is taken to read the last number of the text, unless another one
    is the reference; provided that many accepted texts end with their reference.
    """
    numeric = [
        (row, reference)
        for row in rows
        if row.right and isinstance(row.reference, str) and isinstance(reference := _value(row.reference), Fraction)
    ]
    texts = {id(row): _numbers(row.answer_text) for row, _ in numeric if row.answer is None}
    ending = sum(reference in texts.get(id(row), [])[-1:] for row, reference in numeric)
    told = ending >= 0.4 * max(1, len(texts))
    found: list[tuple[Row, Fraction, Fraction]] = []
    for row, reference in numeric:
        if row.answer is not None:
            answer = _value(row.answer)
        else:
            numbers = texts[id(row)] if told else []
            answer = reference if reference in numbers else (numbers or [None])[-1]
        if isinstance(answer, Fraction):
            found.append((row, answer, reference))
    return found


def _numbers(text: str) -> list[Fraction]:
    """Return the numbers of a text in order."""
    return [Fraction(one) for one in re.findall(r"-?\d+(?:\.\d+)?", text)]


def _unequal(pairs: Sequence[tuple[Row, Fraction, Fraction]]) -> list[Row]:
    """Return the rows whose answer differs from the reference by more than rounding or a percentage form."""
    return [
        row
        for row, answer, reference in pairs
        if all(abs(answer * scale - reference) > abs(reference) / 50 for scale in (1, 100, Fraction(1, 100)))
    ]


def _longer_wins(history: History) -> Iterator[Finding]:
    """Yield a finding if longer (or shorter) completions get the larger reward, within and across problems.

    Within a problem, right answers may be longer because one way of working is longer and better; across problems,
    because harder ones take longer. Both together, over many lengths, indicate a reward for length. Truncated
    completions are left out: they are long and wrong for another reason. For a composed reward only the deciding
    component is compared, because other components may reward length on purpose.
    """
    rows = [row for row in history.graded if row.quality is not None and not row.truncated]
    lengths_seen = {len(row.completion) for row in rows}
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.step, row.group), []).append(row)
    wins = [share for group in groups.values() if (share := _longer_share(group)) is not None]
    across = _longer_share(rows[:: max(1, len(rows) // 500)])
    if len(wins) < 10 or len(lengths_seen) < MANY_LENGTHS or across is None:
        return
    longer = float(np.mean(wins))
    if not (min(longer, across) > ONE_SIDED or max(longer, across) < 1 - ONE_SIDED):
        return
    certain = min(longer, across) if longer > 0.5 else 1 - max(longer, across)
    lengths = history.series("completion/length_mean")
    yield Finding(
        code="reward-is-length",
        level=Level.FAULT if certain > CERTAINLY else Level.WARNING,
        cost=0.7,
        title=f"The {'longer' if longer > 0.5 else 'shorter'} completion of a problem gets the larger reward in"
        f" {percent(max(longer, 1 - longer))} of the pairs: the reward may be length alone",
        evidence=(
            f"{len(wins)} groups with unequal rewards, truncated completions left out; across problems it is"
            f" {percent(max(across, 1 - across))}"
            + (f"; the mean length goes from {lengths[0]:.0f} to {lengths[-1]:.0f} tokens" if len(lengths) else ""),
        ),
        change="read rewarded and unrewarded rollouts of one problem side by side (`reasoner report RUN`), and grade"
        " some with another verifier (`reasoner explain RUN --held-out NAME`).",
        rollouts=places([row for row in history.graded if row.right]),
        explains=frozenset(
            {"held-out-gap", "length-drift", "one-component-dominates", "wrong-answer-accepted"}
            | {"evaluation-accepts-wrong"}
        ),
    )


ONE_SIDED = 0.95
"""Share of pairs (our choice): a reward for right answers goes with length in some problems, hardly in all of them."""
CERTAINLY = 0.99
"""At this share hardly a pair is left in which anything but length could count (our choice)."""
MANY_LENGTHS = 10
"""Minimum number of different lengths; with fewer, each is the length of a few texts that differ in other ways too (our
choice)."""


def _longer_share(rows: Sequence[Row]) -> float | None:
    """Return the share of the pairs with unequal rewards in which the longer completion has more; equal lengths count
    as half. None if all rewards are equal.
    """
    lengths = np.asarray([len(row.completion) for row in rows])
    rewards = np.asarray([row.quality for row in rows], dtype=np.float64)
    more = rewards[:, None] > rewards[None, :]
    if not more.any():
        return None
    longer = (lengths[:, None] > lengths[None, :]) + 0.5 * (lengths[:, None] == lengths[None, :])
    return float(longer[more].mean())


def _inconsistent(history: History) -> Iterator[Finding]:
    """Yield a finding on equal completions of one problem with different verdicts.

    Rewards in degrees, of a model or a judge, may differ by a part of their spread (ROUNDING).
    """
    seen: dict[tuple[str, ...], list[Row]] = {}
    for row in history.graded:
        seen.setdefault((row.task, row.verifier, row.problem, row.prompt, row.completion), []).append(row)
    several = [rows for rows in seen.values() if len(rows) > 1]
    degrees = [row.quality or 0.0 for row in history.graded if row.outcome == "scored"]
    allowed = ROUNDING * float(np.std(degrees)) if degrees else 0.0
    unequal = [
        rows
        for rows in several
        if np.ptp([row.quality or 0.0 for row in rows]) > (allowed if rows[0].outcome == "scored" else 0.0)
    ]
    if len(unequal) < 2:
        return
    share = len(unequal) / len(several)
    judged = all(rows[0].outcome == "scored" for rows in unequal)
    yield Finding(
        code="inconsistent-verdicts",
        level=Level.WARNING if judged else Level.FAULT,
        cost=min(1.0, 0.2 + share),
        title=f"The verifier gives different verdicts on the same completion ({len(unequal)} times)",
        evidence=(
            f"{percent(share)} of the completions that were sampled more than once for a problem got unequal rewards;"
            + (
                f" they differ by {np.mean([np.ptp([row.quality or 0.0 for row in rows]) for rows in unequal]):.2g},"
                f" all rewards spread by {np.std(degrees):.2g}"
                if judged
                else f" one: {', '.join(sorted({row.outcome for row in unequal[0]}))}"
            ),
        ),
        change="ask the judge at temperature 0, or several times and take the mean; look for noise that is added to"
        " the reward."
        if judged
        else "make the verifier deterministic: no clock, no shared state, no network; run"
        " `reasoner verifiers check NAME`.",
        rollouts=tuple(Place(*row.place) for rows in unequal[:3] for row in rows[:2]),
        explains=frozenset({"right-answer-rejected", "empty-answer-accepted"}),
    )


ROUNDING = 0.1
"""Share of the spread of rewards by which those of one completion may differ (our choice)."""


TAMPER = re.compile(
    r"os\._exit|sys\.exit|__eq__|__builtins__|builtins\.|ctypes|/proc/self|subprocess|os\.system|importlib\.reload|"
    r"monkeypatch|unittest\.mock|sys\.modules|gc\.get_objects|inspect\.stack|atexit"
)
"""Text in programs that try to reach their grader. The sandbox blocks them; the model should not learn to try."""


def _tampering(history: History) -> Iterator[Finding]:
    code = [row for row in history.rows if row.decider[0].startswith("code")]
    rows = [row for row in code if TAMPER.search(row.completion)]
    flagged = [row for row in history.rows if row.detail.get("tampering")]
    found = list({id(row): row for row in (*flagged, *rows)}.values())
    if len(found) < max(1, 0.01 * len(code)):
        return
    rewarded = [row for row in found if row.right]
    marks = Counter(mark for row in rows for mark in TAMPER.findall(row.completion))
    yield Finding(
        code="tamper-attempts",
        level=Level.WARNING,
        cost=min(1.0, (0.5 if rewarded else 0.0) + len(found) / max(1, len(code))),
        title=f"{len(found)} completions seem to attack their grader; {len(rewarded)} of them were rewarded",
        evidence=(
            f"over time {_share_over_time(history, found, code or history.rows)} of the programs;"
            f" {', '.join(f'{n} x {mark}' for mark, n in marks.most_common(3))}",
        ),
        change="read them in `reasoner report RUN`; a program that needs none of this for its task should not be"
        " rewarded.",
        rollouts=places(rewarded or found),
    )


def _repetition(history: History) -> Iterator[Finding]:
    """Yield a finding if more and more completions repeat themselves."""
    if len(history.steps) < 6:
        return
    shares = [np.mean([repeats(row.completion) for row in history.by_step[step]]) for step in history.steps]
    found = change(np.asarray(shares, dtype=np.float64))
    if found is None or found.last < 0.1 or found.last < found.first + 0.1 or found.z < 3:
        return
    rows = [row for row in history.by_step[history.steps[-1]] if repeats(row.completion)]
    yield Finding(
        code="repetition",
        level=Level.WARNING,
        cost=found.last,
        title=f"{percent(found.last)} of the completions repeat themselves by the end ({percent(found.first)} at"
        f" the start)",
        evidence=(f"one ends: {rows[0].completion[-80:]!r}" if rows else "see the report",),
        change="lower optim.lr, add algorithm.kl_coef, or an overlong penalty (algorithm.overlong_penalty_tokens).",
        rollouts=places(rows),
    )


def _length(history: History) -> Iterator[Finding]:
    """Yield a finding if completions grow and the reward does not."""
    lengths, reward = history.series("completion/length_mean"), history.series("reward/mean")
    grown, risen = change(lengths), change(reward)
    if grown is None or risen is None or len(lengths) < 12:
        return
    if grown.last < 1.5 * grown.first or grown.z < 4 or risen.z > 2:
        return
    yield Finding(
        code="length-drift",
        level=Level.WARNING,
        cost=min(0.5, 1 - grown.first / grown.last),
        title=f"Completions grow from {grown.first:.0f} to {grown.last:.0f} tokens while the reward stays"
        f" ({risen.first:.3f} -> {risen.last:.3f})",
        evidence=(f"that is {grown.z:.0f} standard errors of growth, and {risen.z:.1f} of reward",),
        change="use aggregation=constant or token (a mean per row favours long wrong answers), or an overlong penalty.",
    )
