"""Rules on what the stages `pairs` and `constitutional` write for later stages: pairs.jsonl and transcripts.jsonl."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from reasoner.config.methods import METHODS, PAIRS_FILE
from reasoner.observe.explain.finding import Finding, Level
from reasoner.observe.explain.significance import percent
from reasoner.storage.history import History
from verifiers import JSON
from verifiers.jsonl import read_jsonl
from verifiers.stats import wilson_interval

FEW = 20
"""Fewer pairs, revisions or comparisons say nothing (our choice)."""
READ = 20_000
"""Lines of a file that are read."""
MOST = 0.5
"""Share from which on most of a stage's work is lost (our choice)."""
Line = Mapping[str, JSON]


def written_pair_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules, for stages that train nothing."""
    if METHODS[history.config.method].learns_from is not None or history.folder is None:
        return
    told = _lines(history.folder / "transcripts.jsonl")
    yield from _revisions([row for row in told if "revision" in row])
    yield from _comparisons([row for row in told if "chances" in row])
    pairs = [row for row in _lines(history.folder / PAIRS_FILE) if row.get("category") != "revision"]
    yield from _labels([row for row in pairs if row.get("label") is not None])


def _lines(file: Path) -> list[Line]:
    return [row for _, row in islice(read_jsonl(file, growing=True), READ)] if file.is_file() else []


def _revisions(rows: Sequence[Line]) -> Iterator[Finding]:
    """Yield findings on revisions that change nothing, or that are one text for all prompts."""
    if len(rows) < FEW:
        return
    same = [row for row in rows if str(row["revision"]).strip() == str(row.get("answer", "")).strip()]
    if wilson_interval(len(same), len(rows)).low > MOST:
        yield Finding(
            code="revisions-unchanged",
            level=Level.WARNING,
            cost=len(same) / len(rows),
            title=f"{percent(len(same) / len(rows))} of the revisions are the answers that they revise, or empty",
            evidence=(f"such as {str(same[0]['revision'])[:60]!r}",),
            change="read some of transcripts.jsonl: a model that cannot follow the templates of `constitutional`, or a"
            " rollout.max_tokens that leaves no room for a revision.",
        )
    revision, count = Counter(str(row["revision"]).strip() for row in rows).most_common(1)[0]
    prompts = {str(row["prompt"]) for row in rows if str(row["revision"]).strip() == revision}
    if wilson_interval(count, len(rows)).low > 0.2 and len(prompts) >= FEW / 2:
        yield Finding(
            code="revisions-alike",
            level=Level.WARNING,
            cost=count / len(rows),
            title=f"{percent(count / len(rows))} of the revisions are one text, for {len(prompts)} prompts",
            evidence=(f"{revision[:80]!r}",),
            change="check constitutional.revision: it must show the prompt and the answer. A small model may need"
            " examples in it.",
            explains=frozenset({"no-diversity"}),
        )


def _comparisons(rows: Sequence[Line]) -> Iterator[Finding]:
    """Yield a finding if the order in which two answers are shown decides most comparisons."""
    chances = [(float(row["chances"][0]), float(row["chances"][1])) for row in rows]  # pyright: ignore
    turned = [straight for straight, swapped in chances if (straight > 0.5) != (swapped > 0.5)]
    if len(rows) < FEW or wilson_interval(len(turned), len(rows)).low < MOST:
        return
    place = "first" if sum(straight > 0.5 for straight in turned) > len(turned) / 2 else "second"
    yield Finding(
        code="order-decides",
        level=Level.WARNING,
        cost=len(turned) / len(rows),
        title=f"The order of the answers decides {percent(len(turned) / len(rows))} of the comparisons: they are ties",
        evidence=(f"the answer that is shown {place} is preferred in both orders",),
        change="use a stronger model or a separate judge (constitutional.judge) for the comparisons; check that the"
        " template names its letters clearly.",
        explains=frozenset({"pairs-mostly-ties"}),
    )


def _labels(rows: Sequence[Line]) -> Iterator[Finding]:
    """Yield findings on labels that are mostly ties, that are one side's, or that length alone decides."""
    if len(rows) < FEW:
        return
    labels = Counter(str(row["label"]) for row in rows)
    ties = labels["tie"]
    if wilson_interval(ties, len(rows)).low > MOST:
        yield Finding(
            code="pairs-mostly-ties",
            level=Level.WARNING,
            cost=ties / len(rows),
            title=f"{percent(ties / len(rows))} of the pairs are ties: {len(rows) - ties} are left to learn from",
            evidence=(f"of {len(rows)} pairs",),
            change="take prompts on which the completions differ, a larger rollout.group_size or temperature, or a"
            " finer reward.",
        )
    decided = [row for row in rows if row["label"] in ("first", "second")]
    if len(decided) < FEW:
        return
    first = sum(row["label"] == "first" for row in decided)
    side = max(first, len(decided) - first)
    if wilson_interval(side, len(decided)).low > 0.8:
        yield Finding(
            code="pairs-one-sided",
            level=Level.FAULT,
            cost=0.9,
            title=f"The {'first' if first == side else 'second'} completion is preferred in"
            f" {percent(side / len(decided))} of the pairs, though the sides are drawn by chance",
            evidence=(f"{side} of {len(decided)} pairs that are no ties",),
            change="check what labels the pairs: a comparison that ignores the texts, or one of another order.",
        )
    sized = [(row, len(str(row["first"])) - len(str(row["second"]))) for row in decided]
    unequal = [((row["label"] == "first") == (longer > 0)) for row, longer in sized if longer]
    agreed = max(sum(unequal), len(unequal) - sum(unequal))
    if len(unequal) >= FEW and wilson_interval(agreed, len(unequal)).low > 0.9:
        kind = "longer" if agreed == sum(unequal) else "shorter"
        yield Finding(
            code="pairs-are-length",
            level=Level.WARNING,
            cost=0.6,
            title=f"The {kind} completion is preferred in {percent(agreed / len(unequal))} of the pairs: what is"
            " learned from them is length",
            evidence=(f"{agreed} of {len(unequal)} pairs of different length",),
            change="check what labels the pairs, or compare completions of equal length.",
        )
    by_texts: dict[tuple[str, frozenset[str]], set[str]] = {}
    for row in decided:
        sides = (str(row["first"]), str(row["second"]))
        key = (str(row.get("prompt")), frozenset(sides))
        by_texts.setdefault(key, set()).add(sides[0] if row["label"] == "first" else sides[1])
    both = sum(len(preferred) > 1 for preferred in by_texts.values())
    if both >= 5 and both > 0.05 * len(by_texts):
        yield Finding(
            code="pairs-contradict",
            level=Level.WARNING,
            cost=both / len(by_texts),
            title=f"{both} pairs of texts are labelled once for the one and once for the other",
            evidence=(f"of {len(by_texts)} different pairs",),
            change="check what labels the pairs: the same texts must get the same label.",
        )
