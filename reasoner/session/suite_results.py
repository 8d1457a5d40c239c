"""Files of an evaluation on suites: one result per suite, written when it is finished, and one JSON file for all.

OUTPUT/suites.json                 published summary: model, versions, and for each suite its figure, settings, sources
OUTPUT/SUITE/result.json           result of one suite; exists once the suite is finished
OUTPUT/SUITE/eval_rollouts.jsonl   every completion of the suite, with its verdict
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from reasoner.config.stage import StageConfig
from reasoner.evaluation.estimates import estimate, estimate_of_parts
from reasoner.records import Estimate
from reasoner.session.environment import environment
from reasoner.storage.files import RunError, write_atomic
from tasks import Problem
from tasks.suites.suite import Suite
from tasks.suites.table import SUITES
from verifiers import JSON
from verifiers.jsonl import is_object

RESULT = "result.json"
ALL = "suites.json"
Result = Mapping[str, JSON]
LOOKED_AT, PIECES = 1 << 16, 64
"""Digest of a weight file: bytes per piece, and number of pieces spread over the file."""


def suite_figure(suite: Suite, problems: Sequence[Problem], values_P: Sequence[float | None]) -> Estimate:
    """Return the figure usually reported for this suite, with its 95 % interval.

    Args:
        suite: defines the figure: mean over problems, or mean over the means of its parts.
        problems: [P] problems of the suite.
        values_P: [P] share of a problem's completions that are correct; None if none could be graded.
    """
    graded = [(problem, value) for problem, value in zip(problems, values_P, strict=True) if value is not None]
    if not suite.over_parts:
        return estimate([value for _, value in graded])
    parts: dict[str, list[float]] = {}
    for problem, value in graded:
        parts.setdefault(str(problem.info.get("part")), []).append(value)
    return estimate_of_parts(parts)


def settings_of(suite: Suite, stage: StageConfig, *, problems: int) -> dict[str, JSON]:
    """Return the settings that this run uses for a suite."""
    graded = stage.task[0].verifier
    return {
        "problems": problems,
        "samples": stage.eval.samples,
        "temperature": stage.eval.temperature,
        "top_p": stage.eval.top_p,
        "max_tokens": stage.eval_tokens,
        "prompt": stage.task[0].options.get("instruction") or suite.prompt,
        "verifier": graded.name if graded else suite.verifier,
        "verifier_options": dict(graded.options if graded else suite.options),
        "prompt_format": stage.prompt.model_dump(exclude_defaults=True),
    }


def defined_settings(suite: Suite) -> dict[str, JSON]:
    """Return the settings that the suite's definition prescribes, under the same keys as `settings_of`."""
    return {
        "problems": suite.size,
        "samples": suite.samples,
        "temperature": suite.temperature,
        "top_p": suite.top_p,
        "max_tokens": suite.max_tokens,
        "prompt": suite.prompt,
        "verifier": suite.verifier,
        "verifier_options": dict(suite.options),
        "prompt_format": {},
    }


def deviations(suite: Suite, settings: Mapping[str, JSON]) -> list[dict[str, JSON]]:
    """List the settings in which a run differs from the suite's definition."""
    return [
        {"setting": name, "definition": wanted, "here": settings[name]}
        for name, wanted in defined_settings(suite).items()
        if settings[name] != wanted
    ]


def digest_of(parts: Iterable[object]) -> str:
    """Return a digest (32 hexadecimal digits) of values that can be written as JSON."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(json.dumps(part, sort_keys=True, ensure_ascii=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def problems_digest(problems: Sequence[Problem]) -> str:
    """Return a digest of the problems: ids, prompts, references, verifiers and their options."""
    return digest_of([one.id, one.prompt, one.reference, one.verifier, dict(one.verifier_options)] for one in problems)


def model_digest(path: str) -> str:
    """Return a digest of a model folder: names, sizes and sampled pieces of its files. For a hub name, of the name."""
    folder = Path(path)
    if not folder.exists():
        return digest_of([path])
    files = (
        [folder]
        if folder.is_file()
        else sorted(one for one in folder.iterdir() if one.is_file() and one.suffix != ".md")
    )
    return digest_of([file.name, file.stat().st_size, *_pieces(file)] for file in files)


def _pieces(file: Path) -> Iterable[str]:
    size = file.stat().st_size
    step = max(LOOKED_AT, size // PIECES)
    with file.open("rb") as opened:
        for place in range(0, size, step):
            opened.seek(place)
            yield hashlib.blake2b(opened.read(LOOKED_AT), digest_size=8).hexdigest()


def kept_result(folder: Path, suite: Suite, identity: Mapping[str, JSON]) -> Result | None:
    """Return the stored result of a finished suite; None if there is none.

    Raises:
        RunError: it is of another model, other problems or other settings, or its file is damaged.
    """
    path = folder / suite.name / RESULT
    try:
        found: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}. Remove {path.parent} to evaluate it again.") from error
    kept = found.get("identity") if is_object(found) else None
    if not is_object(kept):
        raise RunError(f"{path} must contain the result of a suite. Remove {path.parent} to evaluate it again.")
    other = [name for name, value in identity.items() if kept.get(name) != value]
    if other:
        was, now = (json.dumps(one.get(other[0]))[:60] for one in (kept, identity))
        raise RunError(
            f"{path.parent} contains a result with other settings: {other[0]} was {was} and is {now}. Give --output"
            " another folder, or remove that one."
        )
    return cast("Result", found)


def other_results(folder: Path, names: Sequence[str], identity: Mapping[str, JSON]) -> dict[str, Result]:
    """Return the folder's results of suites other than `names`, if model, engine and seed are the same."""
    found: dict[str, Result] = {}
    for suite in SUITES:
        if suite.name not in names:
            with suppress(RunError):
                kept = kept_result(folder, suite, identity)
                found |= {} if kept is None else {suite.name: kept}
    return found


def write_result(folder: Path, suite: Suite, result: Result) -> None:
    """Write the result of a suite atomically."""
    _write(folder / suite.name / RESULT, result)


def write_all(folder: Path, head: Mapping[str, JSON], results: Mapping[str, Result]) -> dict[str, JSON]:
    """Write the JSON file of all finished suites, and return its content."""
    shown = {name: {key: value for key, value in one.items() if key != "identity"} for name, one in results.items()}
    found: dict[str, JSON] = {**head, "suites": cast("dict[str, JSON]", shown)}
    _write(folder / ALL, found)
    return found


def _write(path: Path, content: Mapping[str, JSON]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}. Give --output another folder.") from error


def versions() -> dict[str, JSON]:
    """Return the versions of Python, device and packages that sampled and graded."""
    found = environment()
    return cast("dict[str, JSON]", {"python": found["python"], "device": found["device"], **_packages(found)})


def _packages(found: Mapping[str, object]) -> Mapping[str, object]:
    packages = found["packages"]
    return packages if is_object(packages) else {}


def lines(results: Mapping[str, Result]) -> list[str]:
    """Return the lines of the table shown in the terminal."""
    rows = [("suite", "problems", "figure", "value", "95 % interval", "truncated", "ungraded", "differs in")]
    for name, one in results.items():
        low, high = (f"{100 * float(str(one[key])):.1f}" for key in ("low", "high"))
        departs = ", ".join(str(each["setting"]) for each in cast("list[dict[str, JSON]]", one["deviations"]))
        rows.append(
            (
                name,
                f"{one['problems']} x {one['samples']}",
                str(one["metric"]),
                f"{100 * float(str(one['value'])):.1f}",
                f"{low} to {high}",
                f"{100 * float(str(one['truncated'])):.0f} %",
                str(one["ungraded"]),
                departs or "-",
            )
        )
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
