"""One line per stage of a run, from the ends of its files: state, step, last evaluation."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from reasoner.observe.report.evaluations import PLAIN, figures, kind_of
from reasoner.storage.history import EvalRecord, is_evaluation
from reasoner.storage.run_lock import LOCK_FILE
from verifiers.jsonl import is_object, parse_line
from verifiers.one_writer import is_alive, writer_of

SETTING = re.compile(r"^(method|steps): *(\S+) *$", re.MULTILINE)
"""Settings at the top of a config.yaml that a run wrote; reading all of it takes 30 ms."""
TAIL_BYTES = 1 << 20
RECORDS = ("metrics.jsonl", "rollouts.jsonl", "updates.jsonl", "evals.jsonl", "eval_rollouts.jsonl", "alarms.jsonl")
ENDS = ("config.yaml", "done.json", "failed.json", "result.json")
EVALUATION = "eval"
"""Method of a folder that `reasoner eval --output` wrote."""


def stage_line(folder: Path) -> dict[str, Any]:
    """Return the state of one stage as JSON: state, method, steps, last evaluation, and so on."""
    try:
        settings = dict(SETTING.findall((folder / "config.yaml").read_text(encoding="utf-8", errors="replace")))
    except OSError:
        settings = {}
    steps = settings.get("steps", "")
    last = _last_object(folder / "metrics.jsonl")
    step = last.get("step")
    return {
        "method": EVALUATION if evaluated_alone(folder) else settings.get("method", "?"),
        "state": state_of(folder),
        "steps": int(step) if isinstance(step, int | float) else 0,
        "of": int(steps) if steps.isdecimal() else None,
        "error": _error(folder / "failed.json"),
        "updated": _updated(folder),
        "bytes": sum(size for size, _ in sizes(folder) if size > 0),
        "evaluation": _evaluations(folder),
    }


def evaluated_alone(folder: Path) -> bool:
    """Return True if `reasoner eval --output` wrote the folder: it is an evaluation outside a run."""
    return is_evaluation([name for name in ("eval_rollouts.jsonl", "config.yaml") if (folder / name).is_file()])


def root_of(folder: Path) -> Path:
    """Return the folder of the run that a stage belongs to; it holds the lock."""
    of_several = re.match(r"\d+-", folder.name) and not (folder / LOCK_FILE).exists()
    return folder.parent if of_several else folder


def state_of(folder: Path) -> str:
    """Return "ended", "failed", "running", or "stopped": unfinished, and no process of this machine writes it.

    "elsewhere": the lock names a process of another machine, which cannot be seen from here.
    """
    if (folder / "done.json").is_file() or evaluated_alone(folder):
        return "ended"
    writer = writer_of(root_of(folder) / LOCK_FILE)
    alive = writer and is_alive(writer)
    if alive:
        return "running"
    if (folder / "failed.json").is_file():
        return "failed"
    return "elsewhere" if writer is not None and alive is None else "stopped"


def sizes(folder: Path) -> tuple[tuple[int, float], ...]:
    """Return (size, time of the last change) of every file that the page shows; equal if nothing changed."""
    found: list[tuple[int, float]] = []
    for name in (*RECORDS, *ENDS):
        try:
            status = (folder / name).stat()
        except OSError:
            found.append((-1, 0.0))
        else:
            found.append((status.st_size, status.st_mtime))
    return tuple(found)


def _updated(folder: Path) -> float | None:
    return max((time for _, time in sizes(folder) if time), default=None)


def _error(path: Path) -> str | None:
    try:
        said = json.loads(path.read_bytes()[:TAIL_BYTES])
    except (OSError, ValueError):
        return None
    return str(said.get("message") or said.get("error") or "failed")[:500] if is_object(said) else None


def _tail(path: Path) -> list[bytes]:
    """Return the last complete lines of a file."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, 2) - TAIL_BYTES)
            file.seek(start)
            rows = file.read(TAIL_BYTES).split(b"\n")
    except OSError:
        return []
    return [row for row in rows[1 if start else 0 : -1] if row.strip()]


def _whole(path: Path) -> list[bytes]:
    """Return a file as its only line; an empty list if there is none."""
    try:
        return [path.read_bytes()[:TAIL_BYTES]]
    except OSError:
        return []


def _last_object(path: Path) -> dict[str, Any]:
    for line in reversed(_tail(path)):
        try:
            value = parse_line(line)
        except ValueError:
            continue
        return value if is_object(value) else {}
    return {}


def _evaluations(folder: Path) -> dict[str, Any] | None:
    """Return the main metric of a folder's last evaluations: its name, and (step, value, low, high) of each.

    The main metric is the one over all sets, else the first that the last evaluation has.
    """
    found: list[EvalRecord] = []
    for line in _tail(folder / "evals.jsonl") or _whole(folder / "result.json"):
        try:
            found.append(EvalRecord.model_validate(parse_line(line)))
        except ValueError:
            continue
    for record in reversed(found):
        names = [*figures(record)]
        if not names:
            continue
        main = next((name for name in names if name.startswith("pooled/")), None)
        main = main or next((name for name in names if kind_of(name) not in PLAIN), names[0])
        values = [[one.step, *figures(one)[main]] for one in found if main in figures(one)]
        return {"metric": main, "values": [row for row in values if row[1] is not None and math.isfinite(row[1])]}
    return None
