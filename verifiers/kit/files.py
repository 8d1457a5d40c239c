"""Grading of files: rows in, verdicts out in the same order; a bad row affects only itself."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TextIO, cast

from verifiers.base import GradingRow
from verifiers.columns import column_of, has_column
from verifiers.errors import FileError, VerifierError
from verifiers.jsonl import is_list, is_object, json_line, numbered_lines, parse_line
from verifiers.own_files import open_own
from verifiers.pool import GradingPool, GradingRequest
from verifiers.pool.work_queue import named
from verifiers.row_choice import RowGraders
from verifiers.stats import wilson_interval
from verifiers.verdict import JSON, Outcome, Verdict, fixed

REQUIRED = ("completion", "reference")
FIELDS = ("id", "completion", "reference", "prompt", "verifier", "options", "info")


READ_AHEAD = 4000
"""Most rows that are read ahead of the oldest ungraded one."""
FLUSH_ROWS = 200


class Line(NamedTuple):
    """Row of a file: its grading request, or what is wrong with it."""

    number: int
    """Line number from 1."""
    id: str
    request: GradingRequest | None
    fault: str = ""


def _inner(completion: JSON, columns: Mapping[str, str]) -> str:
    """Suggest the column of the text if a completion is a list (of texts or chat messages); empty otherwise."""
    if not is_list(completion) or not completion:
        return ""
    last = completion[-1]
    path = ".0" if isinstance(last, str) else ".-1.content" if is_object(last) and "content" in last else ""
    return f" (--column completion={columns['completion']}{path})" if path else ""


Records = Callable[[str], Iterator[tuple[int, Mapping[str, JSON] | str]]]
"""Function from a path to (line number from 1, row or what is wrong with the line) for every row."""


def read_lines(
    path: str, *, graders: RowGraders, names: Mapping[str, str], read: Records | None = None
) -> Iterator[Line]:
    """Yield the rows of a file with their verifiers; faulty rows are yielded with their fault.

    Args:
        path: the file.
        graders: chooses each row's verifier.
        names: field -> column of the file, where they differ; dots reach into objects and lists (`verifiers.columns`).
        read: reader of the file; None: JSON lines (gzipped or not), `-` for standard input.
    Raises:
        FileError: the file does not exist or cannot be decoded.
    """
    for number, row in (read or read_records)(path):
        if isinstance(row, str):
            yield Line(number, str(number), None, row)
            continue
        yield _line(number, row, graders, names)


def _line(number: int, row: Mapping[str, JSON], graders: RowGraders, names: Mapping[str, str]) -> Line:
    columns = {name: names.get(name, name) for name in FIELDS}
    values = {
        name: cast("JSON", column_of(row, col)) if has_column(row, col) else None for name, col in columns.items()
    }
    key = str(values["id"]) if values["id"] is not None else str(number)
    for name in REQUIRED:
        if not has_column(row, columns[name]):
            known = ", ".join(list(row)[:8])
            return Line(number, key, None, f"no column {columns[name]!r}; there are {known} (--column {name}=NAME)")
    completion, own, options = values["completion"], values["verifier"], values["options"]
    if not isinstance(completion, str):
        return Line(
            number, key, None, f"completion must be text; got {type(completion).__name__}{_inner(completion, columns)}"
        )
    if own and not isinstance(own, str):
        return Line(number, key, None, f"verifier must be a name; got {type(own).__name__}")
    try:
        chosen = graders.choice(own if isinstance(own, str) else None, options if isinstance(options, dict) else None)
    except VerifierError as error:
        return Line(number, key, None, str(error))
    if chosen is None:
        return Line(number, key, None, "the row names no verifier: pass --verifier")
    grading = GradingRow(
        completion=completion,
        reference=values["reference"],
        prompt=values["prompt"] if isinstance(values["prompt"], str) else None,
        info=values["info"] if isinstance(values["info"], dict) else {},
    )
    return Line(number, key, GradingRequest(chosen.verifier, grading, chosen.options))


def read_records(path: str) -> Iterator[tuple[int, Mapping[str, JSON] | str]]:
    """Yield (line number from 1, row or what is wrong with the line) for a file of JSON lines, gzipped or not, or `-`.

    Raises:
        FileError: the file cannot be read at all.
    """
    for number, line in numbered_lines(path):
        try:
            row = parse_line(line, errors="replace")
        except ValueError as error:
            yield number, f"not JSON ({error})"
            continue
        yield number, row if is_object(row) else f"must be a JSON object; got {type(row).__name__}"


@dataclass
class Summary:
    """Counts and metrics of a graded file."""

    rows: int = 0
    malformed: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    reward_sum: float = 0.0
    graded: int = 0
    correct: int = 0
    slowest: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    causes: dict[str, int] = field(default_factory=dict[str, int])
    """Reason -> number of rows that could not be graded."""

    def add(self, line: Line, verdict: Verdict | None) -> dict[str, JSON]:
        """Count the verdict on a line (None: malformed) and return the line's row of the output."""
        if verdict is None:
            self.malformed.append((line.number, line.fault))
            return {"id": line.id, "outcome": "malformed", "reward": None, "line": line.number, "fault": line.fault}
        self.rows += 1
        self.outcomes[str(verdict.outcome)] = self.outcomes.get(str(verdict.outcome), 0) + 1
        if verdict.reward is None:
            cause = f"{verdict.outcome}: {verdict.reason[:120]}"
            self.causes[cause] = self.causes.get(cause, 0) + 1
        else:
            self.graded += 1
            self.reward_sum += verdict.reward
            self.correct += verdict.right
        self.slowest = sorted([*self.slowest, (verdict.seconds, line.id)], reverse=True)[:3]
        return {"id": line.id, **verdict.to_json()}

    @property
    def whole(self) -> bool:
        """True if there is at least one row and every row was graded."""
        return not self.malformed and 0 < self.rows == self.graded

    def to_json(self) -> dict[str, JSON]:
        """Return all metrics as JSON, with the 95 % Wilson interval of the accuracy."""
        return {
            "rows": self.rows,
            "graded": self.graded,
            "correct": self.correct,
            "accuracy": self.correct / self.graded if self.graded else None,
            "interval": [*self._interval()],
            "reward_mean": self.reward_sum / self.graded if self.graded else None,
            "outcomes": dict(sorted(self.outcomes.items())),
            "malformed": [{"line": number, "fault": fault} for number, fault in self.malformed],
            "not_graded": dict[str, JSON](self._by_count()),
            "slowest": [{"seconds": round(seconds, 4), "id": name} for seconds, name in self.slowest],
        }

    def _interval(self) -> tuple[float, float]:
        return wilson_interval(self.correct, self.graded) if self.graded else (0.0, 1.0)

    def _by_count(self) -> list[tuple[str, int]]:
        return sorted(self.causes.items(), key=lambda pair: pair[1], reverse=True)

    def lines(self) -> list[str]:
        """Return the metrics as lines of text."""
        text = [f"{self.graded} of {self.rows + len(self.malformed)} rows graded"]
        if self.graded:
            low, high = self._interval()
            text[0] += f", {self.correct / self.graded:.1%} correct [{low:.1%}, {high:.1%}]"
        if self.rows:
            text.append("outcomes: " + ", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items())))
        text += [f"not graded: {count} x {cause}" for cause, count in self._by_count()[:5]]
        where: dict[str, list[int]] = {}
        for number, fault in self.malformed:
            where.setdefault(fault, []).append(number)
        for fault, numbers in list(where.items())[:10]:
            alike = f" (and {len(numbers) - 1} lines more)" if len(numbers) > 1 else ""
            text.append(f"line {numbers[0]}: {fault}{alike}")
        if len(where) > 10:
            text.append(f"and {len(where) - 10} more faults of malformed rows")
        if self.slowest:
            text.append("slowest: " + ", ".join(f"{name} {seconds * 1000:.1f} ms" for seconds, name in self.slowest))
        return text


def grade_file(
    path: str,
    *,
    pool: GradingPool,
    target: TextIO,
    verifier: str | None = None,
    options: Mapping[str, JSON] | None = None,
    names: Mapping[str, str] | None = None,
    any_row: bool = False,
    done: Sequence[str] = (),
    summary: Summary | None = None,
    on_row: Callable[[], object] = lambda: None,
    read: Records | None = None,
) -> Summary:
    """Grade every row of a file and write one JSON line for each, in order.

    Args:
        path: the file; `-` is standard input.
        pool: pool that grades.
        target: stream for the output lines.
        verifier: for rows that name none.
        options: of that verifier.
        names: field -> column of the file, where they differ.
        any_row: True: rows may name files, modules and URLs as their verifiers, and set options of this machine.
        done: ids of the rows, from the file's beginning, that are already in the target.
        summary: metrics of those rows, which is updated.
        on_row: called after each line.
        read: reader of the file; None: JSON lines.
    Returns:
        The metrics of all rows.
    Raises:
        FileError: the file cannot be read, or does not begin with the rows in `done`.
    """
    figures = summary or Summary()
    waiting: deque[tuple[Line, Future[Verdict] | None]] = deque()

    def write_first() -> None:
        line, future = waiting.popleft()
        verdict = None if future is None else future.result()
        target.write(json_line(figures.add(line, verdict)) + "\n")
        if (figures.rows + len(figures.malformed)) % FLUSH_ROWS == 0:
            target.flush()
        on_row()

    graders = RowGraders(verifier, options, any_row=any_row)
    for line in _lines_after(done, read_lines(path, graders=graders, names=names or {}, read=read), path):
        waiting.append((line, None if line.request is None else _submit(pool, line.request)))
        while len(waiting) >= READ_AHEAD or (waiting and (waiting[0][1] is None or waiting[0][1].done())):
            write_first()
    while waiting:
        write_first()
    target.flush()
    return figures


def _lines_after(done: Sequence[str], lines: Iterator[Line], path: str) -> Iterator[Line]:
    """Yield the lines after those graded before; raise FileError if the file does not begin with these."""
    for index, line in enumerate(lines):
        if index >= len(done):
            yield line
        elif line.id != done[index]:
            raise FileError(
                f"{path} must begin with the rows graded before; row {index + 1} is {line.id!r}, was"
                f" {done[index]!r}. Write to another --output."
            )


def _submit(pool: GradingPool, request: GradingRequest) -> Future[Verdict]:
    """Submit a row; if its verifier cannot be created, return a future with `verifier_error`."""
    try:
        return pool.submit(request.verifier, request.options, request.row)
    except VerifierError as error:
        future: Future[Verdict] = Future()
        future.set_result(named(fixed(Outcome.VERIFIER_ERROR, str(error)), request.verifier))
        return future


def graded_before(output: Path) -> tuple[list[str], Summary]:
    """Read ids and metrics of an earlier, interrupted output, after cutting off an incomplete last line.

    Raises:
        FileError: the file was not written by this program.
    """
    data = output.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    summary, ids, number = Summary(), list[str](), 0
    try:
        for number, line in enumerate(whole.splitlines(), 1):
            row = parse_line(line)
            if not is_object(row):
                raise TypeError(f"got {type(row).__name__}")
            ids.append(str(row.pop("id")))
            malformed = row["outcome"] == "malformed"
            place, fault = (int(str(row["line"])), str(row["fault"])) if malformed else (number, "")
            summary.add(Line(place, ids[-1], None, fault), None if malformed else Verdict.from_json(row))
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{output} must contain earlier verdicts to continue from; line {number} does not: {error}."
        ) from error
    if len(whole) < len(data):
        with os.fdopen(open_own(output, "change"), "r+b") as file:
            file.truncate(len(whole))
    return ids, summary


def open_output(output: Path, *, resume: bool) -> tuple[TextIO, list[str], Summary]:
    """Open the output for appending; return it with the ids and metrics of its rows.

    Raises:
        FileError: the file exists and `resume` is False, or it was not written by this program.
    """
    ids, summary = list[str](), Summary()
    if output.exists():
        if not resume:
            raise FileError(
                f"{output} already exists. Pass --resume to continue it, --overwrite to replace it, or name another."
            )
        ids, summary = graded_before(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_own(output, "append")
    return open(descriptor, "a", encoding="utf-8", errors="backslashreplace"), ids, summary


@contextmanager
def output_file(output: Path, *, resume: bool, overwrite: bool) -> Generator[tuple[TextIO, list[str], Summary]]:
    """Open and close the output of `open_output`. After an error before the first write, restore the earlier state.

    Args:
        output: the file.
        resume: True: continue an existing file.
        overwrite: True: replace an existing file.
    Raises:
        FileError: the file exists, and neither is True.
    """
    aside = output.with_name(f".{output.name}.before")
    if overwrite and not resume and output.exists():
        output.rename(aside)
    new = not output.exists()
    target, ids, summary = open_output(output, resume=resume)
    try:
        with target:
            yield target, ids, summary
    except BaseException:
        if new and output.stat().st_size == 0:
            output.unlink()
            if aside.exists():
                aside.rename(output)
        raise
    finally:
        aside.unlink(missing_ok=True)
