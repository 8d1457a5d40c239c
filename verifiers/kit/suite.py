"""Suite: several files, each with its verifier, graded together through one pool. Written in YAML.

output: verdicts            # folder; one JSONL file per part
parts:
  - name: gsm8k
    file: gsm8k.jsonl
    verifier: math
    columns: {completion: output, reference: answer}
    min_accuracy: 0.8       # the suite fails below it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from verifiers.errors import FileError
from verifiers.kit.files import Records, Summary, grade_file, output_file
from verifiers.plain_yaml import read_yaml_file
from verifiers.pool import GradingPool
from verifiers.registry import get_verifier
from verifiers.row_choice import ALLOW, RowRefused, bounds_in, row_choice
from verifiers.verdict import JSON

AT_ONCE = 4
"""Number of files read at the same time."""


class SuitePart(BaseModel):
    """Part of a suite: one file, with its verifier."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[\w.-]+$")
    file: str
    """Path relative to the suite's file."""
    verifier: str | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    columns: dict[str, str] = Field(default_factory=dict[str, str])
    min_accuracy: float | None = Field(default=None, ge=0, le=1)


class Suite(BaseModel):
    """Files to grade, and the folder for their verdicts."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    parts: list[SuitePart] = Field(min_length=1)
    output: str = "verdicts"


class Graded(NamedTuple):
    """A part with its metrics, and the reason if its file could not be graded."""

    part: SuitePart
    summary: Summary
    fault: str

    @property
    def reached(self) -> bool:
        """True if the part could be read and reaches its `min_accuracy`, if it has one."""
        wanted = self.part.min_accuracy
        accuracy = self.summary.correct / self.summary.graded if self.summary.graded else 0.0
        return not self.fault and (wanted is None or accuracy >= wanted)

    def to_json(self) -> dict[str, JSON]:
        """Return the part's result and metrics as JSON."""
        return {
            "name": self.part.name,
            "verifier": self.part.verifier,
            "reached": self.reached,
            "fault": self.fault or None,
            **self.summary.to_json(),
        }


@dataclass(frozen=True, slots=True)
class SuiteFile:
    """Suite that was read, and the folder of its file."""

    suite: Suite
    folder: Path
    any_row: bool = False
    """True: suite and rows may name files, modules and URLs, choose what runs on this machine, and write elsewhere."""


def load_suite(path: Path, *, any_row: bool = False) -> SuiteFile:
    """Read a suite.

    Args:
        path: its file.
        any_row: True: suite and rows may name files, modules and URLs as verifiers, choose what runs on this machine,
            and write outside the suite's folder.
    Raises:
        FileError: the file is not YAML, has an unknown key, names a part twice, or asks for more than it may without
            `any_row`.
        UnknownVerifier, BadOption: a part's verifier cannot be created.
    """
    import yaml

    try:
        suite = Suite.model_validate(read_yaml_file(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FileError(f"{path} must be a suite in YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the suite"
        raise FileError(
            f"{path}: {place}: {first['msg']}. Keys of a part: {', '.join(SuitePart.model_fields)}."
        ) from error
    names = [part.name for part in suite.parts]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise FileError(f"{path}: parts must have different names; {min(twice)!r} occurs twice.")
    folder = path.parent
    if not any_row and not (folder / suite.output).resolve().is_relative_to(folder.resolve()):
        raise FileError(f"{path}: output must be inside the suite's folder; got {suite.output!r}. Or pass {ALLOW}.")
    for part in suite.parts:
        if part.verifier is not None:
            options = cast("Mapping[str, JSON]", part.options)
            if not any_row:
                _require_no_code(part.verifier, options, where=f"{path}: part {part.name}")
            get_verifier(part.verifier, **options)
    return SuiteFile(suite, folder, any_row)


def _require_no_code(verifier: str, options: Mapping[str, JSON], *, where: str) -> None:
    try:
        row_choice(verifier, options, named=bounds_in(verifier, options))
    except RowRefused as error:
        raise FileError(f"{where}: {error}") from error


def grade_suite(
    loaded: SuiteFile,
    *,
    pool: GradingPool,
    resume: bool = False,
    overwrite: bool = False,
    on_row: Callable[[], object] = lambda: None,
    read: Records | None = None,
) -> Sequence[Graded]:
    """Grade every part, and return the results in the suite's order. An unreadable file affects only its own part.

    Args:
        loaded: the suite.
        pool: pool that grades.
        resume: True: continue existing outputs.
        overwrite: True: replace existing outputs.
        on_row: called after each row.
        read: reader of the parts' files; None: JSON lines.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:
        grade = partial(
            _grade_part, loaded=loaded, pool=pool, resume=resume, overwrite=overwrite, on_row=on_row, read=read
        )
        parts = [threads.submit(grade, part) for part in loaded.suite.parts]
        return [part.result() for part in parts]


def _grade_part(
    part: SuitePart,
    *,
    loaded: SuiteFile,
    pool: GradingPool,
    resume: bool,
    overwrite: bool,
    on_row: Callable[[], object],
    read: Records | None,
) -> Graded:
    output = loaded.folder / loaded.suite.output / f"{part.name}.jsonl"
    summary = Summary()
    try:
        with output_file(output, resume=resume, overwrite=overwrite) as (target, done, summary):
            grade_file(
                str(loaded.folder / part.file),
                pool=pool,
                target=target,
                verifier=part.verifier,
                options=cast("Mapping[str, JSON]", part.options),
                names=part.columns,
                any_row=loaded.any_row,
                done=done,
                summary=summary,
                on_row=on_row,
                read=read,
            )
    except FileError as error:
        return Graded(part, summary, str(error))
    return Graded(part, summary, "")
