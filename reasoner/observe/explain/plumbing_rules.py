"""Rules on what any run must keep: rows that reach the update, problems drawn as promised, samples that are
independent, rewards that do not depend on a place, tokens that are the text, references that groups do not contradict.

They compare records of a run with each other and know of no particular fault.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from reasoner.config.methods import METHODS
from reasoner.observe.explain.finding import Finding, Level, places
from reasoner.observe.explain.significance import percent, t_value
from reasoner.storage.history import History, Row
from reasoner.storage.kept_tokenizer import kept_tokenizer
from verifiers.stats import wilson_interval

CERTAIN = 6.0
"""Standard errors beyond which a difference is no accident, though several are looked at (our choice)."""
FEW = 0.02
"""Share below which a deviation is left alone (our choice)."""
AGREED = 0.75
"""Share of a group's answers that are the same answer."""


def plumbing_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules."""
    yield from _text(history)
    yield from _untrained(history)
    if METHODS[history.config.method].learns_from == "rewards":
        yield from _unused(history)
        yield from _stuck(history)
        yield from _copies(history)
        yield from _placed(history)
        yield from _misplaced(history)
        yield from _doubted(history)


def _unused(history: History) -> Iterator[Finding]:
    """Graded rollouts of a step with an update that have no line in updates.jsonl, or one that says nothing."""
    updated = {row.step for row in history.rows if row.advantage is not None or row.dropped is not None}
    rows = [row for row in history.graded if row.step in updated]
    unused = [row for row in rows if row.advantage is None and row.dropped is None]
    share = len(unused) / max(1, len(rows))
    if share < FEW:
        return
    yield Finding(
        code="rollouts-unused",
        level=Level.FAULT,
        cost=share,
        title=f"{percent(share)} of the graded rollouts never reach an update, and no reason is recorded",
        evidence=(f"{len(unused)} of {len(rows)} in steps with an update have no line in updates.jsonl",),
        change="look for what leaves rows out between grading and the update: a filter, a slice of the batch, a"
        " process whose rows are not gathered.",
        rollouts=places(unused),
        explains=frozenset({"no-progress"}),
    )


def _untrained(history: History) -> Iterator[Finding]:
    """Fewer trained tokens than the rows of the update have, though nothing masks them (`optim/tokens`)."""
    trained = dict(zip(history.steps_of("optim/tokens"), history.series("optim/tokens"), strict=True))
    if history.config.algorithm.mask_truncated:
        return
    shares: list[float] = []
    for step, tokens in trained.items():
        rows = [row for row in history.by_step.get(step, []) if row.trainer is not None and row.dropped is None]
        there = sum(len(row.policy_logprobs) for row in rows)
        if there:
            shares.append(tokens / there)
    if len(shares) < 3 or float(np.median(shares)) > 0.9:
        return
    share = float(np.median(shares))
    yield Finding(
        code="tokens-not-trained",
        level=Level.FAULT,
        cost=max(0.5, 1 - share),
        title=f"Only {percent(share)} of the tokens in the update are trained, and no setting masks the others",
        evidence=(f"optim/tokens against the tokens of the rows with an advantage, median of {len(shares)} steps",),
        change="check the loss mask: it must be true for every token that the policy sampled.",
        explains=frozenset(
            {
                "sampling-flatter",
                "sampling-sharper",
                "learning-rate-too-high",
                "no-progress",
                "no-movement",
                "descends",
                "reward-falls",
                "all-wrong",
            }
        ),
    )


def _stuck(history: History) -> Iterator[Finding]:
    """Fewer different problems than that many draws without replacement give (`rollout.sampling=epoch`)."""
    epochs = history.series("data/epoch")
    if history.config.rollout.sampling != "epoch" or len(history.config.task) != 1 or not len(epochs):
        return
    draws = len(history.groups)
    seen = len({row.problem for row in history.rows})
    expected = draws / max(1.0, float(epochs[-1]))
    if draws < 32 or seen > 0.7 * expected:
        return
    often = Counter(group[0].problem for group in history.groups).most_common(1)[0]
    yield Finding(
        code="problems-repeat",
        level=Level.FAULT,
        cost=1 - seen / expected,
        title=f"Only {seen} different problems in {draws} draws, where every problem should come once in a pass:"
        " the sampler does not go through the data",
        evidence=(
            f"data/epoch is {epochs[-1]:.3g} at the end, so that about {expected:.0f} different ones are due;"
            f" {often[0]} came {often[1]} times",
        ),
        change="check the order of the problems (rollout.shuffle, a sampler of your own, a data set that gives the"
        " same rows again).",
        explains=frozenset({"solved", "rises", "no-diversity", "evaluation-below-training"}),
    )


def _copies(history: History) -> Iterator[Finding]:
    """Equal samples in a group more often than their own probabilities say.

    Another draw equals sample i with probability p_i = exp(sum of its log-probabilities), so that over all ordered
    pairs the expected number of equal ones is the sum of p_i.
    """
    groups = [rows for group in history.groups if len(rows := [row for row in group if len(row.token_ids)]) > 1]
    excess = np.asarray([_excess(rows) for rows in groups], dtype=np.float64)
    if len(groups) < 16 or excess.mean() < 0.1 or t_value(excess) < CERTAIN:
        return
    seen = float(np.mean([_equal_pairs(rows) for rows in groups]))
    colder = _colder(history)
    if colder:
        yield Finding(
            code="sampling-sharper",
            level=Level.FAULT,
            cost=min(1.0, 0.3 + float(excess.mean())),
            title="The samples are not drawn from the distribution whose log-probabilities the engine reports: top-p,"
            " top-k or a lower temperature is applied after them",
            evidence=(
                colder,
                f"{percent(seen)} of the pairs of samples are equal,"
                f" {percent(max(0.0, seen - float(excess.mean())))} would be by the reported probabilities",
            ),
            change="let the engine return processed log-probabilities (vLLM: logprobs_mode=processed_logprobs), and"
            " sample with top_p=1 and with the temperature that the trainer uses.",
            explains=COPIES,
        )
        return
    yield Finding(
        code="samples-not-independent",
        level=Level.FAULT,
        cost=min(1.0, 0.3 + float(excess.mean())),
        title=f"The samples of a problem are copies of each other: {percent(seen)} of the pairs are equal,"
        f" {percent(max(0.0, seen - float(excess.mean())))} would be by their own probabilities",
        evidence=(f"{len(groups)} groups, {t_value(excess):.0f} standard errors",),
        change="give every request its own seed; see if the engine answers equal requests from a cache.",
        rollouts=places([group[0] for group in groups if _equal_pairs(group) > 0.5]),
        explains=COPIES,
    )


COPIES = frozenset({"no-diversity", "entropy-collapse", "all-wrong", "all-right", "no-progress", "references-doubtful"})


def _colder(history: History) -> str:
    """Describe samples that are less surprising than their reported distribution, so that they are alike; or ""."""
    entropy = history.series("policy/entropy")
    used = [row for row in history.rows if row.trainer is not None]
    surprisal = [-row.policy_logprobs for row in used]
    mean = float(np.concatenate(surprisal).mean()) if surprisal else np.inf
    if not len(entropy) or mean > 0.6 * float(entropy.mean()):
        return ""
    return f"sampled tokens have {mean:.3f} nats of surprisal, the entropy of the policy is {entropy.mean():.3f}"


def _equal_pairs(rows: Sequence[Row]) -> float:
    """Return the share of the pairs of rows with the same tokens."""
    counts = Counter(row.token_ids.tobytes() for row in rows).values()
    return sum(count * (count - 1) for count in counts) / (len(rows) * (len(rows) - 1))


def _excess(rows: Sequence[Row]) -> float:
    expected = np.mean([float(np.exp(row.logprobs.astype(np.float64).sum())) for row in rows])
    return _equal_pairs(rows) - float(expected)


def _placed(history: History) -> Iterator[Finding]:
    """Rewards that depend on the sample's position in its group, or on the group's position in the batch."""
    within: dict[int, list[float]] = defaultdict(list)
    for group in history.groups:
        rewards = {row.sample: row.reward for row in group if row.reward is not None}
        mean = float(np.mean([*rewards.values()])) if rewards else 0.0
        for sample, reward in rewards.items():
            within[sample].append(reward - mean)
    across: dict[int, list[float]] = defaultdict(list)
    if history.config.rollout.shuffle and len(history.config.task) == 1:
        for step in history.steps:
            groups: dict[int, list[float]] = defaultdict(list)
            for row in history.by_step[step]:
                if row.reward is not None:
                    groups[row.group].append(row.reward)
            mean = float(np.mean([np.mean(values) for values in groups.values()])) if groups else 0.0
            for group, values in groups.items():
                across[group].append(float(np.mean(values)) - mean)
    for name, residuals in (("sample", within), ("group", across)):
        yield from _uneven(name, residuals)


def _uneven(name: str, residuals: dict[int, list[float]]) -> Iterator[Finding]:
    """Yield a finding if the mean residual of one position is many standard errors from that of the others."""
    values = {place: np.asarray(found, dtype=np.float64) for place, found in residuals.items() if len(found) >= 8}
    if len(values) < 2:
        return
    everything = np.concatenate([*values.values()])
    spread = float(everything.std())
    if spread < 1e-6:
        return
    scores = {place: float(found.mean()) * np.sqrt(len(found)) / spread for place, found in values.items()}
    place = max(scores, key=lambda at: abs(scores[at]))
    if abs(scores[place]) < CERTAIN or abs(float(values[place].mean())) < 0.25 * spread:
        return
    yield Finding(
        code="reward-by-position",
        level=Level.FAULT,
        cost=0.6,
        title=f"The reward depends on the place in the batch: {name} {place} is rewarded"
        f" {values[place].mean():+.2f} beside the others",
        evidence=(
            f"{len(values[place])} rewards at that place, {abs(scores[place]):.0f} standard errors; the order of the"
            " samples of a problem, and of the problems of a step, means nothing",
        ),
        change="look for what grades by place: a verifier that keeps state between calls, rewards attached to the"
        " wrong rows, a reward function that reads an index.",
        explains=frozenset(
            {"wrong-answer-accepted", "right-answer-rejected", "inconsistent-verdicts", "no-progress", "held-out-gap"}
        ),
    )


def _misplaced(history: History) -> Iterator[Finding]:
    """Answers read by the verifier that do not stand in their own completion, but in the one a fixed distance away."""
    read = [row for row in history.graded if row.answer and row.answer.strip()]
    lost = [row for row in read if _squeezed(row.answer) not in _squeezed(row.completion)]
    if len(lost) < 8 or len(lost) < 0.2 * len(read):
        return  # verifiers may write an answer in another form than the text has it
    at = dict(enumerate(history.rows))
    where = {id(row): place for place, row in at.items()}
    size = len(history.by_step[history.steps[0]])
    shares = {
        distance: float(np.mean([_stands_in(row, at.get(where[id(row)] + distance)) for row in lost]))
        for distance in (*range(-4, 0), *range(1, 5), -size, size)
    }
    distance = max(shares, key=lambda step: shares[step])
    if shares[distance] < 0.8 or shares[distance] < float(np.median([*shares.values()])) + 0.3:
        return
    row = next(row for row in lost if _stands_in(row, at.get(where[id(row)] + distance)))
    yield Finding(
        code="verdicts-misplaced",
        level=Level.FAULT,
        cost=min(1.0, 0.4 + len(lost) / len(read)),
        title=f"The verdicts stand beside the wrong completions: {percent(len(lost) / len(read))} of the answers that"
        " were read are not in their own text",
        evidence=(
            f"{percent(shares[distance])} of these stand in the completion {abs(distance)} rows"
            f" {'before' if distance < 0 else 'after'}, such as {str(row.answer)[:40]!r} for {row.completion[-60:]!r}",
        ),
        change="look for what puts verdicts beside rows: results taken in the order in which they finish, an index"
        " that is off by one, those of the step before.",
        rollouts=places(lost),
        explains=frozenset(
            {
                "wrong-answer-accepted",
                "right-answer-rejected",
                "inconsistent-verdicts",
                "one-answer-for-all",
                "reward-by-position",
                "all-wrong",
                "no-progress",
                "held-out-gap",
            }
        ),
    )


def _squeezed(text: object) -> str:
    return "".join(str(text).split())


def _stands_in(row: Row, other: Row | None) -> bool:
    return other is not None and _squeezed(row.answer) in _squeezed(other.completion)


DOUBT = 1.28
"""Standard errors by which a policy is less sure of its mistakes than of right answers, one chance in ten if it is not;
and the difference is 0.16 standard deviations at least, whatever the number of groups (our choice)."""


def _doubted(history: History) -> Iterator[Finding]:
    """Groups that agree on an answer which is not the reference, in a run whose other groups agree with theirs.

    A model that has learned a wrong rule agrees with itself too, but then it fails on held-out problems as often.
    """
    against: dict[str, Row] = {}
    confirmed: list[Row] = []
    for group in history.groups:
        graded = [row for row in group if row.mark is not None]
        answers = Counter(row.answer for row in graded if row.answer)
        if len(graded) < 4 or not answers:
            continue
        answer, count = answers.most_common(1)[0]
        if count < AGREED * len(graded):
            continue
        chosen = next(row for row in graded if row.answer == answer)
        if chosen.right:
            confirmed.append(chosen)
        elif not any(row.right for row in graded):
            against[chosen.problem] = chosen
    rows = [*against.values()]
    varied = len({row.answer for row in rows}) > len(rows) / 2
    tested = [row.right for row in history.eval_rows if row.mark is not None]
    elsewhere = len(tested) >= 32 and sum(tested) > len(tested) / 3  # it is right where it is evaluated
    if len(rows) < 5 or not varied or (len(confirmed) < 5 and not elsewhere):
        return
    if wilson_interval(len(rows), len(rows) + len(confirmed)).low < 0.05:
        return
    share = len(rows) / (len(rows) + len(confirmed))
    less_sure = _surer(confirmed, rows) if len(confirmed) > 1 else 0.0
    as_sure = _fails_only_here(history, tested) if len(tested) >= 32 else less_sure < 1
    if not as_sure and less_sure > DOUBT and less_sure > 0.16 * np.sqrt(len(rows)):
        return  # a mistake of its own: of these it is less sure than of the answers that are right
    yield Finding(
        code="references-doubtful",
        level=Level.WARNING if as_sure else Level.NOTE,
        cost=min(0.9, share),
        title=f"In {percent(share)} of the groups that agree on an answer it is not the reference: these references"
        " may be wrong",
        evidence=tuple(
            f"{row.problem}: {row.question[-60:]!r}, the group says {str(row.answer)[:40]!r}, the reference is"
            f" {str(row.reference)[:40]!r}"
            for row in rows[:3]
        ),
        change="check these references by hand; drop the problems whose reference is wrong."
        if as_sure
        else "check some of these references by hand. If they are right, the policy makes the same mistake each time:"
        " it solves held-out problems no better.",
        rollouts=places(rows),
        explains=frozenset({"all-wrong", "no-progress", "evaluation-below-training"}) if as_sure else frozenset(),
    )


def _fails_only_here(history: History, tested: Sequence[bool]) -> bool:
    """Return True if training problems are solved less often than held-out ones, by 15 points and 3 standard errors."""
    trained = [row.right for row in history.graded if row.mark is not None]
    rates = [float(np.mean(part)) for part in (trained, tested)]
    error = float(
        np.sqrt(sum(rate * (1 - rate) / len(part) for rate, part in zip(rates, (trained, tested), strict=True)))
    )
    return rates[1] - rates[0] > max(0.15, 3 * error)


def _surer(first: Sequence[Row], second: Sequence[Row]) -> float:
    """Return by how many standard errors the log-probability of the first rows is above that of the second."""
    sums = [np.asarray([float(row.logprobs.sum()) for row in rows]) for rows in (first, second)]
    error = float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in sums)))
    return float(sums[0].mean() - sums[1].mean()) / max(error, 1e-9)


def _text(history: History) -> Iterator[Finding]:
    """Token ids that do not decode to the text beside them."""
    rows = [row for row in history.rows if len(row.token_ids)]
    rows = rows[:: max(1, len(rows) // 100)]
    tokenizer = kept_tokenizer(history) if rows else None
    if tokenizer is None:
        return
    for name, wrong in (
        ("completions", [row for row in rows if not _says(tokenizer.decode([*row.token_ids]), row)]),
        (
            "prompts",
            [
                row
                for row in rows
                if len(row.prompt_ids)
                and not _ends(tokenizer.decode([*row.prompt_ids], skip_special_tokens=False), row.prompt)
            ],
        ),
    ):
        share = len(wrong) / len(rows)
        if len(wrong) < 3 or share < 0.1:
            continue
        yield Finding(
            code="ids-are-not-the-text",
            level=Level.FAULT,
            cost=min(1.0, 0.5 + share),
            title=f"The token ids of {percent(share)} of the {name} decode to another text than the recorded one",
            evidence=(_shown(tokenizer, wrong[0], name),),
            change="check that engine and trainer have the same tokenizer and vocabulary, and that no token is mapped"
            " or cut between them.",
            rollouts=places(wrong),
            explains=frozenset({"engine-trainer-gap", "no-progress", "reward-falls", "all-wrong", "sampling-flatter"}),
        )
        return


def _says(decoded: str, row: Row) -> bool:
    """Return True if the ids say the completion, and perhaps an end token or a stop string behind it.

    The last reply of an episode that ended at a limit is in the text alone.
    """
    said, text = _squeezed(decoded), _squeezed(row.completion)
    return "\ufffd" in decoded or said.startswith(text) or (bool(row.turns) and text.startswith(said))


def _ends(decoded: str, text: str) -> bool:
    """Return True if the ids say the text, and perhaps a begin token before it."""
    return "\ufffd" in decoded or _squeezed(decoded).endswith(_squeezed(text))


def _shown(tokenizer: object, row: Row, name: str) -> str:
    ids: NDArray[np.int32] = row.token_ids if name == "completions" else row.prompt_ids
    decoded = str(tokenizer.decode([*ids]))  # type: ignore[attr-defined]
    text = row.completion if name == "completions" else row.prompt
    return f"the ids say {decoded[-60:]!r}, the record {text[-60:]!r}"
