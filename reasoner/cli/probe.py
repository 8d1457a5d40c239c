"""`reasoner verifiers probe`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from verifiers.jsonl import is_list, is_object, json_line
from verifiers.text import one_line

if TYPE_CHECKING:
    from reasoner.storage.history import Row
    from verifiers import JSON, GradingRow
    from verifiers.kit.probes import ProbeReport, Subject, Variant
    from verifiers.stats import Mean

NOT_SCORED = 3


class Found(NamedTuple):
    """What a file or run offers to be probed."""

    subjects: Sequence[Subject]
    unusable: Counter[str]
    """Reason -> number of rows that cannot be probed."""
    what: str
    """How the rows were read, as text."""


def probe(
    name: Annotated[
        str,
        typer.Argument(
            help="The verifier: name, module:attribute, file.py[:attribute] or URL.", autocompletion=complete.verifiers
        ),
    ],
    file: Annotated[
        str,
        typer.Argument(
            help="Pairs ({prompt, chosen, rejected} or another layout of docs/data.md), rows {prompt, completion}, or a"
            " run folder: its rollouts, right and wrong by their verdicts."
        ),
    ],
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Option of the verifier: key=value; repeatable.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Most pairs or rows, evenly from all; each is scored up to 20 times.")
    ] = 128,
    workers: Annotated[int, typer.Option("--workers", "-n", min=1, help="Grading processes.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Show what a model's score does with changes that should not matter: assurance, flattery, length, format, opinion.

    Exit status: 0, or 3 if no row could be scored.
    """
    with plain_errors():
        from reasoner.cli.loading import loading_told
        from reasoner.cli.verify import parse_pairs
        from reasoner.engine.environment import prepare_process
        from verifiers import get_verifier
        from verifiers.kit.probes import evenly, measure, variants

        options = parse_pairs(option or [], "--option")
        prepare_process(late="torch" in sys.modules)
        with loading_told(name):
            get_verifier(name, **options)
        found = _found(file)
        pairs = evenly([one for one in found.subjects if len(one.completions) == 2], limit)
        subjects = pairs + evenly([one for one in found.subjects if len(one.completions) == 1], limit - len(pairs))
        rows = variants(subjects)
        scores, causes = _scores(name, options, subjects, rows, workers)
        report = measure(subjects, rows, scores)
        if as_json:
            counts: dict[str, JSON] = {"of": len(found.subjects), "unusable": dict(found.unusable)}
            typer.echo(json_line({"verifier": name, **report.to_json(), **counts, "not_scored": dict(causes)}))
        else:
            _print(name, found, report, causes)
    raise typer.Exit(0 if report.rows else NOT_SCORED)


def _scores(
    name: str, options: dict[str, JSON], subjects: Sequence[Subject], rows: Sequence[Variant], workers: int
) -> tuple[list[float | None], Counter[str]]:
    """Return the score of each row (None: ungraded), and why some have none."""
    from verifiers.pool import GradingPool, GradingRequest
    from verifiers.terminal.console import plain_console
    from verifiers.terminal.progress import work_bar

    causes: Counter[str] = Counter()
    scores: list[float | None] = []
    with work_bar(plain_console(stderr=True)) as bar, GradingPool(workers=workers) as pool:
        task = bar.add_task("scoring", total=len(rows))
        requests = (GradingRequest(name, _grading_row(subjects[row.subject], row), options) for row in rows)
        for verdict in pool.grade(requests):
            bar.advance(task)
            scores.append(verdict.reward)
            if verdict.reward is None:
                causes[f"{verdict.outcome}: {verdict.reason[:120]}"] += 1
    return scores, causes


def _grading_row(subject: Subject, row: Variant) -> GradingRow:
    from verifiers import GradingRow

    if isinstance(row.prompt, str):
        return GradingRow(
            completion=row.completion, reference=subject.reference, prompt=row.prompt, info=dict(subject.info)
        )
    turns = [dict(turn) for turn in row.prompt]
    return GradingRow(
        completion=row.completion,
        reference=subject.reference,
        prompt="\n".join(str(turn.get("content") or "") for turn in turns),
        info={**subject.info, "messages": cast("JSON", turns)},
    )


def _found(file: str) -> Found:
    """Read a run folder, pairs, or rows."""
    path = Path(file)
    if path.is_dir() and ((path / "config.yaml").is_file() or any(path.glob("[0-9]*-*/config.yaml"))):
        return _of_run(path)
    from reasoner.cli.verify import graded_records

    first = next((row for _, row in graded_records(file) if not isinstance(row, str)), {})
    return _of_rows(file) if "completion" in first and "label" not in first else _of_pairs(file)


def _of_pairs(file: str) -> Found:
    from reasoner.config.sections import PreferenceSection
    from reasoner.data.preferences import Pair, pair_of, preferences_in
    from reasoner.data.rows import usable_rows

    section = PreferenceSection(train=[file])

    def read(row: Mapping[str, object], where: str) -> Pair:
        return pair_of(row, section, where=where)

    pairs, bad = usable_rows(preferences_in(section, "train", section.train), read=read)
    unusable = Counter(row.reason for row in bad)
    unusable["a tie has no better completion"] += (ties := sum(pair.target == 0.5 for pair in pairs))
    return Found([pair.subject for pair in pairs if pair.target != 0.5], +unusable, f"{len(pairs) - ties} pairs")


def _of_rows(file: str) -> Found:
    from reasoner.cli.verify import graded_records
    from verifiers.kit.probes import Subject

    subjects: list[Subject] = []
    unusable: Counter[str] = Counter()
    for _, row in graded_records(file):
        fault = row if isinstance(row, str) else _fault(row)
        if isinstance(row, str) or fault:
            unusable[fault] += 1
            continue
        prompt, info = row.get("prompt"), row.get("info")
        subjects.append(
            Subject(
                prompt=cast("Any", prompt),
                completions=(str(row["completion"]),),
                reference=row.get("reference"),
                info=info if is_object(info) else {},
            )
        )
    return Found(subjects, unusable, f"{len(subjects)} rows without a better and a worse one: no opinion is tried")


def _fault(row: Mapping[str, object]) -> str:
    prompt, completion = row.get("prompt"), row.get("completion")
    chat = is_list(prompt) and all(is_object(turn) and isinstance(turn.get("content"), str) for turn in prompt)
    if not isinstance(prompt, str) and not (chat and prompt):
        return "prompt must be text or chat messages with text"
    return "" if isinstance(completion, str) and completion.strip() else "completion must be text, and not empty"


def _of_run(run: Path) -> Found:
    """Make a subject of each group: a right and a wrong rollout if it has both, else one rollout."""
    from reasoner.observe.analysis.rescore import stage_with_rollouts
    from verifiers.kit.probes import opinion_of

    history = stage_with_rollouts(run)
    unusable: Counter[str] = Counter()
    both: list[Subject] = []
    single: list[Subject] = []
    for group in history.groups:
        said = [row for row in group if row.answer_text.strip()]
        unusable["rollouts with an empty completion"] += len(group) - len(said)
        graded = [row for row in said if row.verdict_reward is not None]
        unusable["rollouts that could not be graded in the run"] += len(said) - len(graded)
        if not graded:
            continue
        right = next((row for row in graded if row.right), None)
        wrong = next((row for row in graded if row.outcome == "incorrect"), None)
        if right is not None and wrong is not None:
            opinion = wrong.answer or opinion_of(wrong.answer_text)
            both.append(_subject(right, (right.answer_text, wrong.answer_text), opinion))
        else:
            single.append(_subject(graded[0], (graded[0].answer_text,), None))
    what = f"{len(both)} groups of rollouts with a right and a wrong one"
    if not both:
        what += ": no opinion is tried"
    return Found([*both, *single], +unusable, f"{what}, and one rollout from each of {len(single)} others")


def _subject(row: Row, completions: tuple[str, ...], opinion: str | None) -> Subject:
    from verifiers.kit.probes import Subject

    return Subject(
        prompt=row.question,
        completions=completions,
        opinion=opinion,
        reference=cast("JSON", row.reference),
        info=row.graded_info,
    )


def _print(name: str, found: Found, report: ProbeReport, causes: Counter[str]) -> None:
    for line in _lines(name, found, report, causes):
        typer.echo(one_line(line))


def _lines(name: str, found: Found, report: ProbeReport, causes: Counter[str]) -> Iterator[str]:
    yield f"{name}: {found.what}; {report.subjects} probed"
    yield (
        f"{report.rows} completions scored, {report.ungraded} not; shifts are in standard deviations of these scores"
        f" ({report.spread:.4g})"
    )
    yield from (f"left out: {count} x {reason}" for reason, count in found.unusable.most_common(5))
    yield from (f"not scored: {count} x {reason}" for reason, count in causes.most_common(5))
    if not report.spread:
        yield "all scores are equal: there is nothing to compare." if report.rows else "no row could be scored."
        return
    yield f"{'probe':20} {'shift':>6}  {'95 %':16} {'raised':>6}  {'worse above better (plain)':27} rows"
    for one in report.shifts:
        shown = f"{one.probe:20} " + ("     -  " + " " * 16 if one.shift is None else _moved(one.shift))
        raised = "-" if one.raised is None else f"{one.raised:.0%}"
        plain = one.overtakes is None or one.overtakes_plain is None
        overtakes = "-" if plain else f"{one.overtakes:.0%} ({one.overtakes_plain:.0%})"
        missing = f", {one.ungraded} changed ones not scored" if one.ungraded else ""
        same = f", {one.unchanged} not changed by it" if one.unchanged else ""
        yield f"{shown} {raised:>6}  {overtakes:27} {one.rows}{missing}{same}"
    opinion = report.opinion
    if opinion is not None and opinion.change is not None:
        missing = f", {opinion.ungraded} not scored" if opinion.ungraded else ""
        yield (
            f"{'opinion':20} {_moved(opinion.change)} of the margin, which is {opinion.margin:+.2f} without it;"
            f" {opinion.turned:.0%} of the preferences turn to the user's wrong opinion, {opinion.turned_away:.0%} away"
            f" from it; {opinion.pairs} pairs{missing}"
        )


def _moved(mean: Mean) -> str:
    return f"{mean.value:+6.2f}  {f'[{mean.low:+.2f}, {mean.high:+.2f}]':16}"
