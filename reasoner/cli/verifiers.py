"""`reasoner verifiers`: tools for authors of verifiers."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from socket import getfqdn, gethostname
from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors, plain_typer
from reasoner.cli.probe import probe
from verifiers.jsonl import json_line
from verifiers.text import one_line

if TYPE_CHECKING:
    from verifiers import JSON, Example
    from verifiers.kit.audit import Audit, Case

app = plain_typer(no_args_is_help=True, help="List, make, check, audit, probe and serve verifiers.")
app.command("probe")(probe)

BELOW_THRESHOLD = 1


@app.command("list")
def list_verifiers(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Show every installed verifier: its origin, a description, its options."""
    from verifiers import installed
    from verifiers.kit.describe import describe

    for source in installed():
        found = describe(source.target)
        if as_json:
            row = {**source._asdict(), **found._asdict()}
            typer.echo(json_line(row))
            continue
        typer.echo(f"{source.name:14} {source.origin:16} {source.target}")
        typer.echo(f"               {f'CANNOT BE READ: {found.fault}' if found.fault else found.about}")
        typer.echo(f"               options: {', '.join(found.options) or 'none'}")


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Name of the verifier: lower-case letters, digits, - and _.")],
    folder: Annotated[Path | None, typer.Option("--folder", help="Folder to write. Default: NAME-verifier.")] = None,
) -> None:
    """Write a working package with a verifier, a task, tests and entry points; edit it, then `pip install -e` it."""
    with plain_errors():
        from verifiers.kit.scaffold import new_package
        from verifiers.terminal.program import program

        where = folder or Path(f"{name}-verifier")
        for file in new_package(name, where):
            typer.echo(str(file))
        command = shlex.join([*program(), "verifiers", "check", name])
        typer.echo(f"\nNow: pip install -e {shlex.quote(str(where))} && {command}")


@app.command("check")
def check(
    name: Annotated[
        str,
        typer.Argument(
            help="The verifier: name, module:attribute, file.py[:attribute] or URL.", autocompletion=complete.verifiers
        ),
    ],
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Option of the verifier: key=value; repeatable.")
    ] = None,
    cases: Annotated[
        str | None, typer.Option("--cases", help="Labelled rows instead of the verifier's own examples, as for audit.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Run the conformance tests and the reward-hacking attempts; exit with 1 if something must be fixed."""
    with plain_errors():
        from reasoner.cli.verify import parse_pairs
        from verifiers.kit.conformance import check_verifier

        options = parse_pairs(option, "--option") if option else None
        examples = _examples(cases) if cases else None
        report = check_verifier(name, options=options, examples=examples, any_wrong=cases is not None)
        if as_json:
            typer.echo(json_line(report.to_json()))
        else:
            for finding in report.findings:
                line = f"{finding.result:7}  {finding.check}: {finding.detail}"
                typer.echo(one_line(line))
            if report.attempts:
                typer.echo("\nbest reward of each trick:")
            for trick in dict.fromkeys(attempt.trick for attempt in report.attempts):
                tries = [attempt for attempt in report.attempts if attempt.trick == trick]
                best = max(tries, key=lambda attempt: attempt.reward if attempt.reward is not None else -1.0)
                shown = "-" if best.reward is None else f"{best.reward:g}"
                typer.echo(f"  {shown:>5}  {best.outcome:14} {trick}")
    raise typer.Exit(BELOW_THRESHOLD if report.failures else 0)


def _examples(path: str) -> Sequence[Example]:
    from verifiers import Example, Outcome
    from verifiers.kit.audit import read_cases

    return [
        Example(
            completion=case.completion,
            reference=case.reference,
            outcome=Outcome.CORRECT if case.expected else Outcome.INCORRECT,
            prompt=case.prompt,
            info=case.info or {},
        )
        for case in read_cases(path, {})
    ]


@app.command("serve")
def serve(
    verifier: Annotated[
        list[str] | None,
        typer.Option(
            "--verifier",
            "-v",
            help="Verifier to serve; repeatable. Default: the built-in ones that call no other machine.",
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address; others than localhost need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8800,
    workers: Annotated[int, typer.Option("--workers", "-n", min=1, help="Grading processes.")] = 2,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            exists=True,
            dir_okay=False,
            help="File with the token that clients must send; or REASONER_VERIFIER_TOKEN.",
        ),
    ] = None,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="Maximum rows of a batch.")] = 256,
    max_rows: Annotated[
        int, typer.Option("--max-rows", min=1, help="Maximum rows in flight; more get status 503.")
    ] = 4096,
    max_megabytes: Annotated[int, typer.Option("--max-megabytes", min=1, help="Maximum size of a request.")] = 16,
    max_connections: Annotated[
        int,
        typer.Option(
            "--max-connections", min=4, help="Maximum open connections; if there are more, idle ones are closed."
        ),
    ] = 1024,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            help="Another name of this machine that clients use; repeatable. localhost and the address are known.",
        ),
    ] = None,
    stop_seconds: Annotated[
        int, typer.Option("--stop-seconds", min=1, help="Time for rows in flight after SIGTERM.")
    ] = 10,
) -> None:
    """Grade over HTTP (/docs, /health, /metrics); `verifier: http://HOST:PORT/NAME` then works like a name."""
    with plain_errors():
        from verifiers import BadOption
        from verifiers.registry import restrict, verifier_class

        try:
            from verifiers.serve.addresses import http_address
            from verifiers.serve.boundary import ServiceLimits, is_loopback
            from verifiers.serve.server import listen, run
            from verifiers.serve.service import SERVED, make_app
        except ModuleNotFoundError as error:
            raise BadOption(f"serving needs {error.name}: pip install 'reasoner-rl[serve]'.") from error
        token = _token(token_file)
        if not is_loopback(host) and token is None:
            raise BadOption(f"{host} can be reached from other machines: give --token-file.")
        served = verifier or SERVED
        restrict(served)
        for name in verifier or []:  # report a name that cannot be served before the server starts
            verifier_class(name)
        limits = ServiceLimits(
            body_bytes=max_megabytes << 20,
            batch_rows=max_batch,
            rows_in_flight=max_rows,
            connections=max_connections,
            stop_seconds=stop_seconds,
        )
        names = [*(allow_host or ()), *(() if is_loopback(host) else (gethostname(), getfqdn()))]
        app_ = make_app(served=served, workers=workers, limits=limits, token=token, host=host, names=names)
        listening = listen(host, port)
        address = http_address(host, listening.getsockname()[1])
        typer.echo(f"serving {', '.join(sorted(served))} on {address} (docs at /docs)", err=True)
        run(app_, listening, limits=limits, workers=workers)


def _token(file: Path | None) -> str | None:
    """Return the service's token, from its file or the environment; None if there is neither."""
    from verifiers import BadOption
    from verifiers.serve.client import TOKEN_VARIABLE

    given = os.environ.get(TOKEN_VARIABLE) if file is None else file.read_text(encoding="utf-8", errors="replace")
    if given is None:
        return None
    token = given.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        where = TOKEN_VARIABLE if file is None else file
        raise BadOption(f"the token of {where} must be printable ASCII without spaces, and not empty.")
    return token


@app.command("audit")
def audit(
    name: Annotated[
        str,
        typer.Argument(
            help="The verifier: name, module:attribute or file.py:attribute.", autocompletion=complete.verifiers
        ),
    ],
    cases: Annotated[
        str,
        typer.Argument(
            help="JSONL (also .gz) or parquet: id, category, completion, reference, expected. For judges also pairs"
            " (prompt, first, second, label), scores (completion, reference, score), or with the name `judgments` the"
            " verdicts of judges (judge_text or scores, order, label)."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="Another verifier to compare with, e.g. math-verify.", autocompletion=complete.verifiers
        ),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Option of the verifier: key=value; repeatable.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", "-c", help="Column of a field: expected=is_correct; repeatable.")
    ] = None,
    min_accuracy: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    max_false_positives: Annotated[
        float | None, typer.Option(min=0, max=1, help="Largest allowed share of wrong answers accepted.")
    ] = None,
    max_false_negatives: Annotated[
        float | None, typer.Option(min=0, max=1, help="Largest allowed share of right answers rejected.")
    ] = None,
    min_category: Annotated[
        float | None, typer.Option(min=0, max=1, help="Minimum accuracy of each category with at least ten rows.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Number of mistakes to print.")] = 20,
    workers: Annotated[int, typer.Option("--workers", "-n", min=1, help="Grading processes.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Print a confusion matrix by category with 95 % Wilson intervals; exit with 1 if a threshold is not reached."""
    with plain_errors():
        from reasoner.cli.verify import parse_pairs
        from verifiers.kit.audit import Thresholds, read_cases

        names = {key: str(value) for key, value in parse_pairs(column or [], "--column").items()}
        if _audit_judge(name, cases, parse_pairs(option or [], "--option"), names, workers, as_json=as_json):
            raise typer.Exit(0)
        found = read_cases(cases, names)
        result = _audit(name, parse_pairs(option or [], "--option"), found, workers)
        peer = _audit(against, {}, found, workers) if against is not None else None
        wanted = Thresholds(min_accuracy, max_false_positives, max_false_negatives, min_category)
        failures = result.failures(wanted)
        if as_json:
            whole: dict[str, JSON] = {name: _json(result)}
            if peer is not None and against is not None:
                whole[against] = _json(peer)
            typer.echo(json_line(whole | {"failures": list(failures)}))
        else:
            _print(name, result, against, peer, show)
        for failure in failures:
            typer.echo(f"error: {failure}", err=True)
    raise typer.Exit(BELOW_THRESHOLD if failures else 0)


def _audit_judge(
    name: str, path: str, options: dict[str, JSON], names: dict[str, str], workers: int, *, as_json: bool
) -> bool:
    """Print the audit of a file with judgements, pairs or scores; return False if it is none of these."""
    from verifiers.kit.judge_audits import judge_audit, shown

    report = judge_audit(name, path, options=options, names=names, workers=workers)
    if report is not None:
        typer.echo(json_line(report) if as_json else "\n".join(shown(report)))
    return report is not None


def _audit(name: str, options: dict[str, JSON], cases: Sequence[Case], workers: int) -> Audit:
    from verifiers import get_verifier
    from verifiers.kit.audit import tally
    from verifiers.pool import GradingPool, GradingRequest

    get_verifier(name, **options)
    requests = [GradingRequest(name, case.row, options) for case in cases]
    with GradingPool(workers=workers) as pool:
        verdicts = pool.grade(requests)
        return tally(
            (case, verdict.quality, f"{verdict.outcome}: {verdict.reason} (answer {verdict.answer!r})")
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
    from rich.table import Table

    from verifiers.stats import wilson_interval
    from verifiers.terminal.console import plain_console

    console = plain_console()
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
            one_line(category),
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
        )
    for mistake in result.mistakes[:show]:
        case = mistake.case
        line = (
            f"{case.id} [{case.category}] expected {case.expected}: {case.completion[-80:]!r} against"
            f" {str(case.reference)[:80]!r}; {mistake.said[:160]}"
        )
        console.print(one_line(line))
