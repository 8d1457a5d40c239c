"""`reasoner verifiers`: the plug-in author's tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli.errors import plain_errors

if TYPE_CHECKING:
    from verifiers import JSON
    from verifiers.audit import Audit, Case

app = typer.Typer(no_args_is_help=True, help="List verifiers, audit them on labelled cases.")

BELOW_THRESHOLD = 1


@app.command("list")
def list_verifiers() -> None:
    """Show every installed verifier and where it comes from."""
    from verifiers import installed

    for source in installed():
        typer.echo(f"{source.name:12} {source.origin:16} {source.target}")


@app.command("audit")
def audit(
    name: Annotated[str, typer.Argument(help="The verifier: name, module:attribute or file.py:attribute.")],
    cases: Annotated[
        str, typer.Argument(help="JSONL (also .gz) or parquet: id, category, completion, reference, expected.")
    ],
    against: Annotated[
        str | None, typer.Option("--against", help="Another verifier to run beside it, e.g. math-verify.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Option of the verifier: key=value; repeatable.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", "-c", help="Where a field lies: expected=is_correct; repeatable.")
    ] = None,
    min_accuracy: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    max_false_positives: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of wrong answers that may be accepted.")
    ] = None,
    max_false_negatives: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of right answers that may be rejected.")
    ] = None,
    min_category: Annotated[
        float | None, typer.Option(min=0, max=1, help="Accuracy that each category of ten rows or more must reach.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="How many mistakes to print.")] = 20,
    workers: Annotated[int, typer.Option("--workers", "-n", min=1, help="Grading processes.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
) -> None:
    """Print a confusion matrix by category with 95 % Wilson intervals; exit 1 where a threshold is not reached."""
    with plain_errors():
        from reasoner.cli.verify import parse_pairs
        from verifiers.audit import Thresholds, read_cases

        names = {key: str(value) for key, value in parse_pairs(column or [], "--column").items()}
        found = read_cases(cases, names)
        result = _audit(name, parse_pairs(option or [], "--option"), found, workers)
        peer = _audit(against, {}, found, workers) if against is not None else None
        wanted = Thresholds(min_accuracy, max_false_positives, max_false_negatives, min_category)
        failures = result.failures(wanted)
        if as_json:
            whole: dict[str, JSON] = {name: _json(result)}
            if peer is not None and against is not None:
                whole[against] = _json(peer)
            typer.echo(json.dumps(whole | {"failures": list(failures)}, ensure_ascii=False))
        else:
            _print(name, result, against, peer, show)
        for failure in failures:
            typer.echo(f"error: {failure}", err=True)
    raise typer.Exit(BELOW_THRESHOLD if failures else 0)


def _audit(name: str, options: dict[str, JSON], cases: Sequence[Case], workers: int) -> Audit:
    from verifiers import GradingRow, get_verifier
    from verifiers.audit import tally
    from verifiers.pool import GradingPool, GradingRequest

    get_verifier(name, **options)
    requests = [
        GradingRequest(name, GradingRow(completion=case.completion, reference=case.reference), options)
        for case in cases
    ]
    with GradingPool(workers=workers) as pool:
        verdicts = pool.grade(requests)
        return tally(
            (case, verdict.reward, f"{verdict.outcome}: {verdict.reason} (answer {verdict.answer!r})")
            for case, verdict in zip(cases, verdicts, strict=True)
        )


def _json(result: Audit) -> JSON:
    mistakes: list[JSON] = [
        {
            "id": m.case.id,
            "category": m.case.category,
            "completion": m.case.completion,
            "reference": m.case.reference,
            "expected": m.case.expected,
            "said": m.said,
        }
        for m in result.mistakes
    ]
    return {**result.to_json(), "mistakes": mistakes}


def _print(name: str, result: Audit, against: str | None, peer: Audit | None, show: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from verifiers.stats import wilson_interval

    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 120)
    table = Table(box=None, pad_edge=False)
    for title in ("category", "rows", "right: accepted", "rejected", "wrong: accepted", "rejected", "accuracy"):
        table.add_column(title, justify="left" if title == "category" else "right")
    table.add_column("95 %")
    if against is not None:
        table.add_column(against, justify="right")
    for category, matrix in [*sorted(result.categories.items()), ("all", result.overall)]:
        low, high = wilson_interval(matrix.accepted_right + matrix.rejected_wrong, matrix.rows)
        cells = [
            category,
            *map(str, (matrix.rows, matrix.accepted_right, matrix.rejected_right)),
            *map(str, (matrix.accepted_wrong, matrix.rejected_wrong)),
            f"{matrix.accuracy:.1%}",
            f"[{low:.1%}, {high:.1%}]",
        ]
        if peer is not None:
            theirs = peer.overall if category == "all" else peer.categories[category]
            cells.append(f"{theirs.accuracy:.1%}")
        table.add_row(*cells)
    console.print(table)
    for label, found in [(name, result), *([(against, peer)] if peer is not None else [])]:
        whole = found.overall
        console.print(
            f"{label}: accuracy {whole.accuracy:.2%}, false positives {whole.false_positives:.2%},"
            f" false negatives {whole.false_negatives:.2%}, {whole.ungraded} could not be graded",
            markup=False,
        )
    for mistake in result.mistakes[:show]:
        case = mistake.case
        console.print(
            f"{case.id} [{case.category}] expected {case.expected}: {case.completion[-80:]!r} against"
            f" {str(case.reference)[:80]!r}; {mistake.said[:160]}",
            markup=False,
        )
