"""The results of data checks as lines of text and as JSON. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from reasoner.data.check import Report
from reasoner.data.figures import Figures
from tasks.held_out import prompt_text
from tasks.survey import Repeats
from verifiers import JSON
from verifiers.text import one_line, whole

SHOWN = 3
REASONS = 5
"""Number of reasons for bad rows that are shown."""
WIDTH = 300
"""Characters shown of a text."""


class Tokens(NamedTuple):
    """Token counts of the first rows."""

    counted: int
    prompts: Mapping[str, int]
    """median, p95 and max of the prompts' tokens."""
    whole: Mapping[str, int]
    """The same for the prompt with the longest of its answers; empty if answers are not trained on."""
    shown: Sequence[str]
    """The first rows as the model sees them."""


def lines(report: Report, tokens: Tokens | None = None, *, examples: bool = True) -> Iterator[str]:
    """Yield the lines of a report; the last one says if the data can be used."""
    yield f"{report.where}: {report.use}"
    yield from (f"  {note.rstrip('.')}" for note in report.notes)
    for figures in report.splits:
        yield from _split_lines(figures, report)
    yield from _shared_lines(report)
    if tokens is not None:
        yield (
            f"  tokens of the first {tokens.counted:,} prompts: {_spread(tokens.prompts)}"
            + (f"; with the completion: {_spread(tokens.whole)}" if tokens.whole else "")
        )
    if examples and report.splits:
        yield "  the first rows as the model sees them:"
        shown = tokens.shown if tokens else [plain(item.prompt, item.answers) for item in report.splits[0].examples]
        names = [item.name for item in report.splits[0].examples]
        yield from (f"    [{name}] {_short(text)}" for name, text in zip(names, shown, strict=True))
    yield f"  cannot be used: {report.fault}" if report.fault else "  can be used"


def plain(prompt: object, answers: Sequence[str]) -> str:
    """Return a row as text without a tokenizer: the prompt and its answers, joined by " => "."""
    return " => ".join([prompt_text(prompt), *answers])  # pyright: ignore[reportArgumentType]


def _short(text: str) -> str:
    text = one_line(whole(text))
    return text if len(text) <= WIDTH else f"{text[: WIDTH // 2]} ... {text[-WIDTH // 2 :]}"


def _spread(lengths: Mapping[str, int]) -> str:
    return f"median {lengths['median']:,}, 95 % {lengths['p95']:,}, longest {lengths['max']:,}" if lengths else "none"


def _split_lines(figures: Figures, report: Report) -> Iterator[str]:
    left = f", {figures.bad:,} cannot be used" if figures.bad else ""
    yield f"  {figures.name}: {figures.rows:,} rows{left}; characters of a prompt: {_spread(figures.lengths())}"
    for reason, count in figures.reasons.most_common(REASONS):
        yield f"    {count:,}: {one_line(whole(reason))} (first: {one_line(whole(figures.first_bad[reason]))})"
    if len(figures.reasons) > REASONS:
        yield f"    and {len(figures.reasons) - REASONS} other reasons"
    if figures.checked:
        names = ", ".join(sorted(figures.verifiers.names)) if figures.verifiers else ""
        of = f" looked at (of {figures.rows:,} rows)" if figures.passed_over else ""
        yield f"    reference answers that {names} can read: {figures.parsed:,} of {figures.checked:,}{of}"
    if figures.suspects:
        yield (
            f"    the last line of {figures.suspects:,} prompts is their reference answer (first:"
            f" {', '.join(figures.first_suspects[:SHOWN])}): look whether it is part of the question"
        )
    repeats = figures.survey.repeats()
    if repeats.duplicates:
        yield f"    duplicates: {repeats.duplicates:,} ({_pairs(figures, repeats.duplicate_rows)})"
    if repeats.contradictions:
        what = {
            "preferences": "the same pair the other way round",
            "unpaired": "the same completion, labelled otherwise",
        }.get(report.use, "another reference answer")
        yield (
            f"    contradictions (the same prompt with {what}): {repeats.contradictions:,}"
            f" ({_pairs(figures, repeats.contradiction_rows)})"
        )


def _pairs(figures: Figures, rows: Sequence[tuple[int, int]]) -> str:
    return "; ".join(f"{figures.named(first)} and {figures.named(second)}" for first, second in rows)


def _shared_lines(report: Report) -> Iterator[str]:
    shared = report.shared
    if shared is None:
        return
    named = f" ({', '.join(shared.examples)})" if shared.examples else ""
    yield f"  prompts of test that are also in train: {shared.equal:,} of {report.splits[1].usable:,}{named}"
    all_train = shared.near_train == report.splits[0].usable
    where = "all training prompts" if all_train else f"the first {shared.near_train:,} training prompts"
    near = "; ".join(f"{one.held_out} and {one.train} ({one.share:.0%})" for one in shared.near[:SHOWN])
    yield (
        f"  of the first {shared.near_tested} of test, {len(shared.near)} share half of their words with one of {where}"
        + (f" ({near})" if near else "")
    )


def to_json(report: Report, tokens: Tokens | None = None, yaml: str | None = None) -> dict[str, JSON]:
    """Return the content of `lines` as a JSON object."""
    shared = report.shared
    return {
        "for": report.use,
        "where": report.where,
        "usable": report.fault is None,
        "fault": report.fault,
        "notes": [*report.notes],
        "splits": {figures.name: _split_json(figures) for figures in report.splits},
        "shared": None
        if shared is None
        else {
            "equal": shared.equal,
            "examples": [*shared.examples],
            "near": [{"test": one.held_out, "train": one.train, "share": one.share} for one in shared.near],
            "near_tested": shared.near_tested,
            "near_train": shared.near_train,
        },
        "tokens": None
        if tokens is None
        else {"counted": tokens.counted, "prompts": dict(tokens.prompts), "whole": dict(tokens.whole)},
        "examples": [*tokens.shown] if tokens else [],
        "yaml": yaml,
    }


def _split_json(figures: Figures) -> dict[str, JSON]:
    repeats: Repeats = figures.survey.repeats()
    reasons = itertools.islice(figures.reasons.most_common(), 100)
    return {
        "rows": figures.rows,
        "bad": figures.bad,
        "bad_reasons": [
            {"reason": reason, "rows": count, "first": figures.first_bad[reason]} for reason, count in reasons
        ],
        "references": {"checked": figures.checked, "parsed": figures.parsed},
        "answer_in_last_line": {"rows": figures.suspects, "first": [*figures.first_suspects]},
        "duplicates": repeats.duplicates,
        "contradictions": repeats.contradictions,
        "characters": dict[str, JSON](figures.lengths()),
        "examples": [
            {"row": item.name, "prompt": prompt_text(item.prompt), "answers": [*item.answers]}
            for item in figures.examples
        ],
    }


__all__ = ["Tokens", "lines", "plain", "to_json"]
