"""`reasoner verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli.errors import plain_errors

if TYPE_CHECKING:
    from verifiers import JSON

NOT_GRADED = 3


def verify(
    file: Annotated[
        str | None, typer.Argument(help="Rows to grade: JSONL (also .gz), parquet, or - for standard input.")
    ] = None,
    verifier: Annotated[
        str | None, typer.Option("--verifier", "-v", help="Name, module:attribute or file.py:attribute.")
    ] = None,
    gold: Annotated[str | None, typer.Option("--gold", help="Grade one answer: the reference.")] = None,
    completion: Annotated[str | None, typer.Option("--completion", help="Grade one answer: the model's text.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="What the model was asked.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Option of the verifier: key=value; repeatable.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", "-c", help="Where a field lies: completion=output.text; repeatable."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Where the verdicts go, one JSON line per row; default: stdout.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on behind the rows that --output holds.")] = False,
    workers: Annotated[int, typer.Option("--workers", "-n", min=1, help="Grading processes.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict, or the summary, as one JSON object.")] = False,
) -> None:
    """Grade one answer, or a file of answers.

    Exit status of one answer: 0 for reward 1, 1 for less, 3 where it could not be graded. Of a file: 0 when every row
    was graded, 3 when some were not.
    """
    with plain_errors():
        options = parse_pairs(option or [], "--option")
        if file is None:
            if verifier is None or gold is None or completion is None:
                raise typer.BadParameter("give a FILE, or --verifier, --gold and --completion.")
            raise typer.Exit(_one(verifier, options, gold, completion, prompt, as_json=as_json))
        if gold is not None or completion is not None:
            raise typer.BadParameter("give a FILE, or --gold and --completion; not both.")
        names = {key: str(value) for key, value in parse_pairs(column or [], "--column").items()}
        raise typer.Exit(_file(file, verifier, options, names, output, workers, resume=resume, as_json=as_json))


def parse_pairs(pairs: list[str], flag: str) -> dict[str, JSON]:
    """key=value pairs, values read as JSON where they are JSON and as text otherwise."""
    found: dict[str, JSON] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise typer.BadParameter(f"{flag} must be key=value; got {pair!r}.")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _one(name: str, options: dict[str, JSON], gold: str, completion: str, prompt: str | None, *, as_json: bool) -> int:
    from verifiers import GradingRow
    from verifiers.pool import GradingPool

    reference: JSON = gold
    if name == "code" or gold[:1] in "{[":
        try:
            reference = json.loads(gold)
        except ValueError:
            reference = gold
    from verifiers import get_verifier

    if get_verifier(name, **options).reference_schema.get("type") == "string":
        reference = gold
    with GradingPool(workers=1) as pool:
        row = GradingRow(completion=completion, reference=reference, prompt=prompt)
        verdict = pool.submit(name, options, row).result()
    if as_json:
        typer.echo(json.dumps(verdict.to_json(), ensure_ascii=False))
    else:
        shown = "not graded" if verdict.reward is None else f"reward {verdict.reward:g}"
        typer.echo(f"{verdict.outcome}  {shown}  {verdict.reason}")
        detail = {key: value for key, value in verdict.detail.items() if key != "reason"}
        typer.echo(
            f"answer {verdict.answer!r}  {json.dumps(detail, ensure_ascii=False)}  {verdict.seconds * 1000:.2f} ms"
        )
    return NOT_GRADED if verdict.reward is None else 0 if verdict.reward >= 1 else 1


def _file(
    file: str,
    verifier: str | None,
    options: dict[str, JSON],
    names: dict[str, str],
    output: Path | None,
    workers: int,
    *,
    resume: bool,
    as_json: bool,
) -> int:
    import sys

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from verifiers import Verdict, get_verifier
    from verifiers.files import FileError, Line, Summary, read_lines
    from verifiers.pool import GradingPool, GradingRequest

    if verifier is not None:
        get_verifier(verifier, **options)
    summary = Summary()
    done = 0
    if output is not None and output.exists():
        if not resume:
            raise FileError(f"{output} must not exist; it does. Pass --resume to go on with it, or name another file.")
        done = _graded_before(output, summary)
    target = output.open("a") if output is not None else sys.stdout
    lines = read_lines(file, verifier=verifier, options=options, names=names)
    pending: list[Line] = []

    def requests() -> object:
        for index, line in enumerate(lines):
            if index < done:
                continue
            pending.append(line)
            if line.request is not None:
                yield line.request

    columns = (TextColumn("grading"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    from rich.console import Console

    with (
        GradingPool(workers=workers, max_pending=4000) as pool,
        Progress(*columns, console=Console(stderr=True), transient=True) as bar,
    ):
        task = bar.add_task("grading", total=None)

        def write(line: Line, verdict: Verdict | None) -> None:
            row = {"id": line.id} | (
                verdict.to_json() if verdict else {"outcome": "malformed", "reward": None, "fault": line.fault}
            )
            target.write(json.dumps(row, ensure_ascii=False) + "\n")
            if verdict is None:
                summary.malformed.append((line.number, line.fault))
            else:
                summary.add(line, verdict)
            bar.advance(task)

        from collections.abc import Iterable
        from typing import cast

        for verdict in pool.grade(cast("Iterable[GradingRequest]", requests())):
            while pending[0].request is None:
                write(pending.pop(0), None)
            write(pending.pop(0), verdict)
        for line in pending:
            write(line, None)
    if output is not None:
        target.close()
    if as_json:
        typer.echo(json.dumps(summary.to_json(), ensure_ascii=False), err=output is None)
    else:
        for said in summary.lines():
            typer.echo(said, err=output is None)
    return NOT_GRADED if summary.malformed or summary.graded < summary.rows else 0


def _graded_before(output: Path, summary: object) -> int:
    """Count the whole lines of an earlier output into the summary, and cut a half-written last one."""
    from verifiers import Verdict
    from verifiers.files import Line, Summary

    assert isinstance(summary, Summary)
    data = output.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        output.write_bytes(whole)
    rows = [json.loads(line) for line in whole.split(b"\n") if line]
    for number, row in enumerate(rows, 1):
        line = Line(number, str(row.pop("id")), None)
        if row["outcome"] == "malformed":
            summary.malformed.append((number, row["fault"]))
        else:
            summary.add(line, Verdict.from_json(row))
    return len(rows)
