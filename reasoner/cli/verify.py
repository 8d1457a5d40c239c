"""`reasoner verify`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from reasoner.errors import Interrupted
from verifiers.jsonl import json_line
from verifiers.text import one_line

if TYPE_CHECKING:
    from verifiers import JSON

NOT_GRADED = 3
ROW_CODE = "Rows may name Python files, modules and URLs as their verifiers, and set limits and the sandbox themselves."


def verify(
    file: Annotated[
        str | None,
        typer.Argument(
            help="Rows to grade: a file, folder or pattern (docs/data.md), - for standard input; or a suite (.yaml)."
        ),
    ] = None,
    verifier: Annotated[
        str | None,
        typer.Option(
            "--verifier",
            "-v",
            help="Name, module:attribute, file.py[:attribute] or URL.",
            autocompletion=complete.verifiers,
        ),
    ] = None,
    gold: Annotated[str | None, typer.Option("--gold", help="Grade one answer: the reference.")] = None,
    completion: Annotated[str | None, typer.Option("--completion", help="Grade one answer: the model's text.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="The prompt of the completion.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Option of the verifier: key=value; repeatable.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", "-c", help="Column of a field: completion=output.text; repeatable."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", help="Data format of the rows, to which completions were added: livecodebench, apps, ..."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="File for the verdicts, one JSON line per row. Default: stdout.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue after the rows in --output.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing --output, or outputs of a suite.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", "-n", min=1, help="Grading processes.")] = 2,
    allow_row_code: Annotated[bool, typer.Option("--allow-row-code", help=ROW_CODE)] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the verdict or the summary as one JSON object.")
    ] = False,
) -> None:
    """Grade one answer, or a file of answers.

    Exit status for one answer: 0 for reward 1, 1 for less, 3 if it could not be graded. For a file or a suite: 0 if
    every row was graded, 3 if some were not or there is no row, 1 if a part of a suite is below its min_accuracy.
    """
    with plain_errors():
        options = parse_pairs(option or [], "--option")
        how = _how(resume=resume, overwrite=overwrite)
        if file is None:
            given = {"--verifier": verifier, "--gold": gold, "--completion": completion}
            missing = [flag for flag, value in given.items() if value is None]
            if len(missing) == len(given):
                raise typer.BadParameter("give a FILE, or --verifier, --gold and --completion.")
            if verifier is None or gold is None or completion is None:
                raise typer.BadParameter(f"to grade one answer, give {' and '.join(missing)} too.")
            raise typer.Exit(_one(verifier, options, gold, completion, prompt, as_json=as_json))
        if gold is not None or completion is not None:
            raise typer.BadParameter("give a FILE, or --gold and --completion; not both.")
        if file.endswith((".yaml", ".yml")):
            if verifier is not None or option or column or format or output is not None:
                raise typer.BadParameter("a suite names verifiers, options, columns and output itself.")
            raise typer.Exit(_suite(Path(file), workers, any_row=allow_row_code, how=how, as_json=as_json))
        names = {key: str(value) for key, value in parse_pairs(column or [], "--column").items()}
        read = graded_records if format is None else formatted_records(format)
        code = _file(
            file, verifier, options, names, output, workers, read, any_row=allow_row_code, how=how, as_json=as_json
        )
        raise typer.Exit(code)


def parse_pairs(pairs: list[str], flag: str) -> dict[str, JSON]:
    """Parse key=value pairs; a value that is JSON is read as JSON, any other as text."""
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
    from verifiers.pool import GradingPool

    with GradingPool(workers=1) as pool:
        pool.start()  # starts while this process imports the verifier, which tells the reference's type
        from verifiers import GradingRow, get_verifier

        reference = _reference(gold, get_verifier(name, **options).reference_schema.get("type"))
        row = GradingRow(completion=completion, reference=reference, prompt=prompt)
        verdict = pool.submit(name, options, row).result()
    if as_json:
        typer.echo(json_line(verdict.to_json()))
    else:
        shown = "not graded" if verdict.reward is None else f"reward {verdict.reward:g}"
        typer.echo(one_line(f"{verdict.outcome}  {shown}  {verdict.reason}"))
        detail = {key: value for key, value in verdict.detail.items() if key != "reason"}
        typer.echo(f"answer {verdict.answer!r}  {json_line(detail)}  {verdict.seconds * 1000:.2f} ms")
    return NOT_GRADED if verdict.reward is None else 0 if verdict.right else 1


def _file(
    file: str,
    verifier: str | None,
    options: dict[str, JSON],
    names: dict[str, str],
    output: Path | None,
    workers: int,
    read: Callable[[str], Iterator[tuple[int, Mapping[str, JSON] | str]]],
    *,
    any_row: bool,
    how: Mapping[str, bool],
    as_json: bool,
) -> int:
    import sys

    from verifiers import get_verifier
    from verifiers.kit.files import Summary, grade_file, output_file
    from verifiers.pool import GradingPool

    if verifier is not None:
        get_verifier(verifier, **options)
    opened = nullcontext((sys.stdout, list[str](), Summary())) if output is None else output_file(output, **how)
    with (
        _resumable(output is not None),
        opened as (target, done, summary),
        GradingPool(workers=workers) as pool,
        _progress(len(done), total=_lines(file), beside=target) as advance,
    ):
        grade_file(
            file,
            pool=pool,
            target=target,
            verifier=verifier,
            options=options,
            names=names,
            any_row=any_row,
            done=done,
            summary=summary,
            on_row=advance,
            read=read,
        )
    if as_json:
        typer.echo(json_line(summary.to_json()), err=output is None)
    else:
        for line in summary.lines():
            typer.echo(line, err=output is None)
    return 0 if summary.whole else NOT_GRADED


def formatted_records(name: str) -> Callable[[str], Iterator[tuple[int, Mapping[str, JSON] | str]]]:
    """Return a reader like `graded_records` for rows of a data format, each with its own reference and prompt.

    Raises:
        TaskError: there is no such format.
    """
    from tasks.inputs.formats import UnfitRow, format_named

    shape = format_named(name, "problems")

    def read(path: str) -> Iterator[tuple[int, Mapping[str, JSON] | str]]:
        for number, row in graded_records(path):
            if not isinstance(row, str):
                try:
                    row = _as_graded({**row, **cast("Mapping[str, JSON]", shape.read(row))})
                except UnfitRow as error:
                    row = f"no row of format {name}: it {error}"
            yield number, row

    return read


def _as_graded(row: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """A row whose prompt is a chat, with its text as the prompt and its turns for verifiers that read who says what."""
    turns = row.get("prompt")
    if not isinstance(turns, list):
        return row
    said = [str(turn.get("content") or "") for turn in turns if isinstance(turn, dict)]
    info = row.get("info")
    return {**row, "prompt": "\n".join(said), "info": {**(info if isinstance(info, dict) else {}), "messages": turns}}


def graded_records(path: str) -> Iterator[tuple[int, Mapping[str, JSON] | str]]:
    """Yield (number, row or a text on its fault) for every row of a file, folder, pattern or standard input.

    Raises:
        FileError: it cannot be read.
    """
    from tasks import TaskError
    from tasks.inputs import records
    from verifiers.errors import FileError
    from verifiers.kit.files import read_records

    if path == "-" or Path(path).is_fifo():  # can be read only once, so the format cannot be checked first
        yield from read_records(path)
        return
    try:
        yield from records(path)
    except TaskError as error:
        raise FileError(str(error)) from error


def _reference(gold: str, wanted: JSON) -> JSON:
    """Return the reference as text if the verifier accepts text; otherwise parsed as JSON if it is JSON."""
    kinds = wanted if isinstance(wanted, list) else [wanted]
    if "string" in kinds and not (gold[:1] in "{[" and len(kinds) > 1):
        return gold
    try:
        return json.loads(gold)
    except ValueError:
        return gold


def _how(*, resume: bool, overwrite: bool) -> dict[str, bool]:
    if resume and overwrite:
        raise typer.BadParameter("--resume continues an output, --overwrite replaces it: give one of them.")
    return {"resume": resume, "overwrite": overwrite}


@contextmanager
def _resumable(kept: bool) -> Iterator[None]:
    """Turn Ctrl-C into a message on how to continue, if the verdicts so far are kept."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not kept:
            raise
        raise Interrupted from error


def _lines(file: str) -> int | None:
    """Return the number of lines of a .jsonl file; None for anything else."""
    path = Path(file)
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    with path.open("rb") as opened:
        return sum(block.count(b"\n") for block in iter(lambda: opened.read(1 << 20), b""))


@contextmanager
def _progress(done: int, *, total: int | None = None, beside: TextIO | None = None) -> Iterator[Callable[[], None]]:
    """Yield the advance function of a progress bar, which is hidden if the verdicts go to the same terminal."""
    from verifiers.terminal.console import plain_console
    from verifiers.terminal.progress import work_bar

    console = plain_console(stderr=True)
    if not console.is_terminal or (beside is not None and beside.isatty()):
        yield lambda: None
        return
    with work_bar(console) as bar:
        task = bar.add_task("grading", total=total, completed=done)
        yield lambda: bar.advance(task)


def _suite(file: Path, workers: int, *, any_row: bool, how: Mapping[str, bool], as_json: bool) -> int:
    from verifiers.kit.suite import grade_suite, load_suite
    from verifiers.pool import GradingPool

    loaded = load_suite(file, any_row=any_row)
    with GradingPool(workers=workers) as pool, _progress(0) as advance:
        parts = grade_suite(loaded, pool=pool, **how, on_row=advance, read=graded_records)
    if as_json:
        typer.echo(json_line({"parts": [graded.to_json() for graded in parts]}))
    for graded in parts:
        summary = graded.summary
        if not as_json:
            typer.echo(f"{graded.part.name}: " + "; ".join(summary.lines() if summary.rows else ["no row"]))
        if graded.fault:
            typer.echo(f"error: {graded.part.name}: {graded.fault}", err=True)
        elif not graded.reached:
            typer.echo(f"error: {graded.part.name}: accuracy is below {graded.part.min_accuracy}", err=True)
    if not all(graded.reached for graded in parts):
        return 1
    return 0 if all(graded.summary.whole for graded in parts) else NOT_GRADED
