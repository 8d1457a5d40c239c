"""File of a checkpoint with the batches that were sampled ahead: a line for each problem of a batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasoner.records import Rollout, RolloutGroup
from reasoner.rollout.ahead import Drawn
from reasoner.storage.rows import problem_of_row, problem_row, recorded_rollout, rollout_row
from verifiers.jsonl import json_line

FILE = "ahead.jsonl"


def write_ahead(folder: Path, drawn: Sequence[Drawn]) -> None:
    """Write the batches into the folder of a checkpoint, in the order of their steps."""
    with (folder / FILE).open("w", encoding="utf-8") as file:
        for step, problems_P, known in drawn:
            rollouts: dict[int, list[Rollout]] = {}
            for (place, _), rollout in sorted(known.items(), key=lambda one: one[0]):
                rollouts.setdefault(place, []).append(rollout)
            for place, problem in enumerate(problems_P):
                group = RolloutGroup(problem=problem, rollouts=tuple(rollouts.get(place, ())))
                row = {"step": step, "problem": problem_row(problem), "rollouts": [*rollout_row(group, place)]}
                file.write(json_line(row) + "\n")


def read_ahead(folder: Path) -> list[Drawn]:
    """Read the batches of a checkpoint.

    Raises:
        OSError, KeyError, TypeError, ValueError: the file is missing or damaged.
    """
    found: dict[int, list[Mapping[str, Any]]] = {}
    with (folder / FILE).open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            found.setdefault(row["step"], []).append(row)
    drawn: list[Drawn] = []
    for step, rows in found.items():
        problems_P = [problem_of_row(row["problem"]) for row in rows]
        known = {
            (place, line["sample"]): recorded_rollout(line, problems_P[place])
            for place, row in enumerate(rows)
            for line in row["rollouts"]
        }
        drawn.append(Drawn(step, problems_P, known))
    return drawn
