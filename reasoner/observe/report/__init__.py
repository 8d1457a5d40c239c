"""`reasoner report`: one self-contained HTML page of a run."""

from __future__ import annotations

import html
import re
from pathlib import Path

from reasoner.observe.analysis.audit import explain_and_audit
from reasoner.observe.analysis.rounds import rounds
from reasoner.observe.report.data import glossary, packed, stage_data
from reasoner.storage.files import write_text

HERE = Path(__file__).resolve().parent


def build_report(run: Path, *, audit: int = 200, held_out: str | None = None) -> str:
    """Build the page of a run as HTML.

    Args:
        run: a run folder or one of its stages; it may still be running.
        audit: rewarded rollouts of each stage that a held-out verifier grades; 0: none.
        held_out: name of that verifier; None: a stricter one for the task.
    Raises:
        RunError: there is no run in that folder.
    """
    summaries: list[dict[str, object]] = []
    scripts: list[str] = []
    for number, (history, found, graded) in enumerate(explain_and_audit(run, sample=audit, verifier=held_out)):
        outcomes = {item.row.place: str(item.verdict.outcome) for item in graded if item.verdict.graded}
        name = history.folder.name if history.folder else "run"
        summary, pieces = stage_data(history, found, outcomes, name)
        summaries.append(summary)
        scripts += [
            f'<script type="text/plain" id="s{number}-{place}">{piece}</script>' for place, piece in enumerate(pieces)
        ]
    found_rounds = [one.to_json() for one in rounds(run)]
    head = packed({"run": run.name, "stages": summaries, "rounds": found_rounds, "glossary": glossary()})
    return _page(run.name, [f'<script type="text/plain" id="head">{head}</script>', *scripts])


def _page(title: str, scripts: list[str]) -> str:
    """Insert styles, library, data and program into the template."""
    parts = {
        "{{title}}": html.escape(title),
        "{{uplot_css}}": _read("vendor/uPlot.min.css"),
        "{{css}}": _read("page.css"),
        "{{uplot_js}}": _read("vendor/uPlot.iife.min.js"),
        "{{data}}": "\n".join(scripts),
        "{{js}}": _read("page.js"),
    }
    template = _read("page.html")
    marks = re.compile("|".join(map(re.escape, parts)))
    found = marks.findall(template)
    assert sorted(found) == sorted(parts), f"page.html must contain each mark once; it contains {found}"
    return marks.sub(lambda mark: parts[mark[0]], template)  # in one pass, because inserted text may contain marks


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def write_report(run: Path, output: Path, *, audit: int = 200, held_out: str | None = None) -> int:
    """Write the page; return its size in bytes.

    Raises:
        RunError: there is no run in that folder, or the page cannot be written.
    """
    page = build_report(run, audit=audit, held_out=held_out)
    write_text(output, page)
    return output.stat().st_size


__all__ = ["build_report", "write_report"]
