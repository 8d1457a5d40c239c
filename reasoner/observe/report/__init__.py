"""`reasoner report`: one self-contained HTML page of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reasoner.observe.analysis.audit import explain_and_audit
from reasoner.observe.analysis.rounds import rounds
from reasoner.observe.report.data import UNITS, freeze, glossary, packed
from reasoner.observe.report.listing import stage_line
from reasoner.observe.report.page import page_of
from reasoner.storage.files import write_text


class Report(NamedTuple):
    """A page, and how much of the runs it has."""

    page: str
    kept: int
    """Rollouts and held-out samples whose text is in the page."""
    rollouts: int
    """All of them."""


class Written(NamedTuple):
    """A page on disk."""

    bytes: int
    kept: int
    rollouts: int


def make_report(
    runs: Path | Sequence[Path], *, audit: int = 200, held_out: str | None = None, most: int | None = None
) -> Report:
    """Build the page of one or several runs.

    Args:
        runs: a run folder, a stage of a run, or several of them; they may still be running.
        audit: rewarded rollouts of each stage that a held-out verifier grades; 0: none.
        held_out: name of that verifier; None: a stricter one for the task.
        most: rollouts of each stage whose text is kept, and as many held-out samples; None: all. Lists, histograms and
            the table of problems have all of them either way.
    Raises:
        RunError: there is no run in one of the folders, or a record is damaged.
    """
    stages: list[dict[str, Any]] = []
    scripts: list[str] = []
    kept = rollouts = 0
    chosen = [runs] if isinstance(runs, Path) else [*runs]
    for run in chosen:
        of_run = [one.to_json() for one in rounds(run)]
        for history, found, graded in explain_and_audit(run, sample=audit, verifier=held_out):
            outcomes = {item.row.place: str(item.verdict.outcome) for item in graded if item.verdict.graded}
            folder = history.folder or run
            done = freeze(history, found, outcomes, most=most)
            number = len(stages)
            line = {**stage_line(folder), **done.summary}
            stages.append({"id": str(number), "run": run.name, "name": folder.name, **line, "rounds": of_run})
            scripts += [
                f'<script type="text/plain" id="s{number}-{place}">{piece}</script>'
                for place, piece in done.pieces.items()
            ]
            kept, rollouts = kept + done.kept, rollouts + done.rollouts
    title = ", ".join(run.name for run in chosen)
    head = packed({"live": False, "title": title, "stages": stages, "glossary": glossary(), "units": UNITS})
    page = page_of(title, [f'<script type="text/plain" id="head">{head}</script>', *scripts])
    return Report(page, kept, rollouts)


def build_report(
    runs: Path | Sequence[Path], *, audit: int = 200, held_out: str | None = None, most: int | None = None
) -> str:
    """Build the page of one or several runs as HTML; arguments and errors are those of `make_report`."""
    return make_report(runs, audit=audit, held_out=held_out, most=most).page


def write_report(
    runs: Path | Sequence[Path],
    output: Path,
    *,
    audit: int = 200,
    held_out: str | None = None,
    most: int | None = None,
) -> Written:
    """Write the page; arguments are those of `make_report`.

    Raises:
        RunError: there is no run in one of the folders, or the page cannot be written.
    """
    made = make_report(runs, audit=audit, held_out=held_out, most=most)
    write_text(output, made.page)
    return Written(output.stat().st_size, made.kept, made.rollouts)


__all__ = ["Report", "Written", "build_report", "make_report", "write_report"]
