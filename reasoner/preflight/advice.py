"""What to change, in sentences, from what a preflight measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from reasoner.config.estimators import traits_of
from reasoner.config.no_effect import little_effect
from reasoner.observe.explain.signal_chance import signal_chance
from reasoner.observe.explain.significance import percent
from reasoner.preflight.all_rows import row_sentences
from reasoner.preflight.causes import form_sentences, template_sentences
from reasoner.preflight.measured import Bin, Kept, Preflight, TwoKinds
from reasoner.storage.history import Row

GROUP_SIZES = (2, 4, 8, 16, 32)
WANTED_SIGNAL = 0.5
"""Share of groups with signal that a suggested group size aims at (our choice); beyond it a larger group costs more in
samples than it gains in groups."""
LITTLE_SIGNAL = 0.3
"""Share of groups with signal below which a kind of problems teaches little (our choice)."""


def sentences(done: Preflight) -> Iterator[str]:
    """Yield advice on what to change, with numbers; nothing if the config is fine.

    Causes come first. If one is found, what follows from it (too few right answers, too little signal) is left out.
    """
    causes = causes_of(done)
    yield from causes
    if done.all_rows is not None:
        yield from row_sentences(done.all_rows, answers=bool(done.counts))
    yield from (f"{sentence}." for sentence in little_effect(done.config))
    wrong_references = _explained_by_references(done)
    by_rewards = traits_of(done.config.algorithm.advantage).baseline != "teacher"
    if not causes and not wrong_references and by_rewards:
        yield from _signal_sentences(done)
    told = {*COUNTED_HERE, *(CONSEQUENCES if causes else ()), *(("references-doubtful",) if wrong_references else ())}
    for finding in done.findings:
        if finding.level != "note" and finding.code not in told and not finding.follows:
            yield f"{finding.title}. Try: {finding.change}"
    if causes or wrong_references:
        yield (
            "the shares and the signal above follow from this: after the change, run preflight again before anything"
            " else is tried."
        )


def causes_of(done: Preflight) -> list[str]:
    """Return the advice on prompts; else that on temperature and answer format, which depend on the prompts."""
    return [*template_sentences(done.causes, done.rows)] or [*form_sentences(done.config, done.causes, done.rows)]


COUNTED_HERE = (
    *("all-wrong", "all-right", "no-diversity", "no-answer"),
    *("contradicting-references", "duplicate-problems"),
)
"""Findings of `explain` that preflight reports with figures of its own."""
CONSEQUENCES = ("wrong-chat-template", "truncated", "repetition", "entropy-collapse", "undecided-answers")
"""Findings that name the same cause again, or follow from it."""


def _explained_by_references(done: Preflight) -> bool:
    """Return True if references that contradict each other may be why problems are never solved."""
    found = done.all_rows
    if found is None or not done.counts or not found.contradicts:
        return False
    return found.repeats.contradicting >= done.shares()["all wrong"] * found.train


def _signal_sentences(done: Preflight) -> Iterator[str]:
    """Yield advice on problems and groups without signal."""
    rollout, shares = done.config.rollout, done.shares()
    now = signal_chance(done.whole, rollout.group_size)
    apart = done.kinds is not None and min(_kind_chances(done)) < LITTLE_SIGNAL
    if done.counts and now < WANTED_SIGNAL and not apart:
        chances = {size: signal_chance(done.whole, size) for size in GROUP_SIZES}
        larger = next(
            (size for size in GROUP_SIZES if size > rollout.group_size and chances[size] >= WANTED_SIGNAL), None
        )
        if larger is not None and shares["all wrong"] < 0.9:
            yield (
                f"group_size={larger} would give {percent(chances[larger])} of the groups signal, {rollout.group_size}"
                f" gives {percent(now)}: set rollout.group_size={larger} and"
                f" rollout.problems_per_step={max(1, rollout.problems_per_step * rollout.group_size // larger)} for the"
                " same number of samples per step."
            )
    if done.kinds is not None and apart:
        yield _of_kinds(done, done.kinds)
    elif shares["all wrong"] > 0.8:
        yield (
            f"{percent(shares['all wrong'])} of the problems were never solved in {rollout.group_size} samples: begin"
            f" with an sft stage or a stronger model, or with easier problems{_one_of(done.bins, max)}."
        )
    elif shares["all right"] > 0.8:
        yield (
            f"{percent(shares['all right'])} of the problems are solved every time: use harder"
            f" ones{_one_of(done.bins, min)}."
        )
    useful = [b for b in done.bins if signal_chance(b.belief, rollout.group_size) > 2 * now and b.problems >= 8]
    for each in useful:
        yield (
            f"{each.name} gives {percent(signal_chance(each.belief, rollout.group_size))} of its groups signal, the"
            f" whole data {percent(now)}: --write-problems FILE keeps the problems that are likely to have some."
        )
    kept = done.kept
    if not useful and kept is not None and done.counts and now < WANTED_SIGNAL and _worth_writing(kept, now):
        missing = kept.kept - kept.sampled
        yield (
            f"--write-problems FILE keeps {kept.kept} of the {kept.known} problems, of whose groups"
            f" {percent(kept.chance)} are likely to have signal, instead of {percent(now)}"
            + (f"; {missing} of them were not sampled (--problems {kept.known} samples all)." if missing else ".")
        )
    distinct = _distinct(done.rows)
    if distinct < 0.3:
        yield (
            f"of problems that are not always solved, only {percent(distinct)} of the completions differ from each"
            f" other: raise rollout.temperature above {rollout.temperature:g}."
        )


def _kind_chances(done: Preflight) -> list[float]:
    """Return the chance of signal of each kind of problems."""
    size = done.config.rollout.group_size
    sided = [b.belief for b in done.bins if b.side is not None]
    parts = sided or [part for _, part in sorted(done.whole.parts, key=lambda part: part[1].mean)]
    return [signal_chance(belief, size) for belief in parts]


def _of_kinds(done: Preflight, kinds: TwoKinds) -> str:
    """Describe two kinds of problems of which one has little signal, and what to do."""
    chances = _kind_chances(done)
    names = (kinds.split.rare, kinds.split.other) if kinds.split else (None, None)
    said = [
        f"{percent(share)} {_how_often(mean)}{f' ({name})' if name else ''}"
        for share, mean, name in zip(kinds.shares, kinds.means, names, strict=True)
    ]
    signal = " and ".join(percent(chance) if chance >= 0.01 else "hardly any" for chance in chances)
    text = (
        f"there are two kinds of problems: {said[0]} and {said[1]}; {signal} of their groups of"
        f" {done.config.rollout.group_size} have signal"
    )
    if max(chances) < LITTLE_SIGNAL:
        return f"{text}: neither teaches much. Use problems whose difficulty lies between them."
    if chances[0] < chances[1]:
        return f"{text}: leave out the first kind, or begin with an sft stage on it or a stronger model."
    return f"{text}: leave out the second kind."


def _how_often(mean: float) -> str:
    if mean < 0.01:
        return "are never solved" if mean < 0.002 else "are hardly ever solved"
    if mean > 0.9:
        return "are nearly always solved" if mean < 0.998 else "are always solved"
    return f"are right in {percent(mean)} of their samples"


def _worth_writing(kept: Kept, now: float) -> bool:
    """Return True if leaving out the other problems gives a quarter more signal, and a few problems are left."""
    return kept.kept >= 8 and kept.kept < 0.95 * kept.known and kept.chance > 1.25 * now


def _one_of(bins: Sequence[Bin], pick: Callable[..., Bin]) -> str:
    """Name the easiest (max) or hardest (min) problems in parentheses; "" if there is only one kind."""
    if len(bins) < 2:
        return ""
    found = pick(bins, key=lambda each: each.belief.mean)
    return f" ({found.name}: {percent(found.belief.mean)} right)"


def _distinct(rows: Sequence[Row]) -> float:
    """Return the mean share of distinct texts among the samples of problems that are not all right; 1 without any."""
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.step, row.group), []).append(row)
    shares = [len({r.completion for r in g}) / len(g) for g in groups.values() if not all(r.right for r in g)]
    return sum(shares) / len(shares) if shares else 1.0
