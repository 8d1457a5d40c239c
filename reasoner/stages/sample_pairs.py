"""New preference pairs from the current policy: `method: pairs`. Samples, labels, and writes `pairs.jsonl`.

Two completions of one problem are a pair. It is labelled by a verifier (the task's own or the one named by `reward`,
for example a rubric judge or a reward model), or by a person with `reasoner label`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from reasoner.config.errors import ConfigError
from reasoner.config.methods import PAIRS_FILE
from reasoner.config.stage import StageConfig
from reasoner.label.labels import read_labels
from reasoner.records import Problem
from reasoner.rollout.grading import check_graded, turns
from reasoner.session.session import Session
from reasoner.session.step_record import StepRecord
from reasoner.storage.files import write_atomic
from tasks.inputs.spool import Joined
from verifiers import JSON
from verifiers.jsonl import json_line, read_jsonl

UNLABELLED_FILE = "to_label.jsonl"


def pairs(session: Session) -> None:
    """Sample in all remaining steps, then write the pairs.

    Raises:
        ConfigError: a person must label the pairs, and some have no label yet.
    """
    config = session.config
    if session.fresh:
        session.checkpoint()
    for step in range(session.step + 1, config.steps + 1):
        record = StepRecord(session, step)
        for _ in record.rollouts(session.producer.groups(step)):
            pass  # rollouts are written as they are yielded
        if config.pairs.label == "verifier":
            check_graded(record.groups, max_share=config.grading.max_ungraded_share)
        record.finish({}, shown=False)
        session.end_step()
    session.checkpoint()
    found = pair_rows(session)
    if config.pairs.label == "person":
        found = labelled_by_person(session, found)
    write_rows(session.run.path / PAIRS_FILE, found)
    session.display.note(f"{len(found)} pairs in {session.run.path / PAIRS_FILE}")


def check_groups(config: StageConfig) -> None:
    """Check that groups have at least two samples, which a pair needs.

    Raises:
        ConfigError: they have only one.
    """
    if config.rollout.group_size < 2:
        raise ConfigError(
            "no-effect",
            f"rollout.group_size must be >= 2 to make pairs; got {config.rollout.group_size}. Samples 0 and 1 of a"
            " group are a pair, then 2 and 3: set it to an even number.",
        )


def pair_rows(session: Session) -> list[dict[str, JSON]]:
    """Build the rows of the pairs file from the stage's rollouts: samples 0 and 1 of a group, then 2 and 3, ...

    Equal texts are no pair. If a verifier labels, equal rewards are a tie, and pairs with an ungraded side are left
    out.
    """
    groups: dict[tuple[int, int], list[Mapping[str, JSON]]] = {}
    for _, row in read_jsonl(session.run.path / "rollouts.jsonl"):
        groups.setdefault((cast("int", row["step"]), cast("int", row["group"])), []).append(row)
    asked = {(str(rows[0]["task"]), str(rows[0]["problem"])) for rows in groups.values()}
    every = Joined(session.producer.problems.parts)
    problems = {key: problem for problem in every if (key := (problem.task, problem.id)) in asked}
    by_verifier = session.config.pairs.label == "verifier"
    found: list[dict[str, JSON]] = []
    for (step, group), rows in sorted(groups.items()):
        for one, other in zip(rows[0::2], rows[1::2], strict=False):
            if one["completion"] == other["completion"]:
                continue
            if by_verifier and (one["reward"] is None or other["reward"] is None):
                continue
            made = pair_row(problems[str(one["task"]), str(one["problem"])], one, other, by_verifier=by_verifier)
            found.append({"id": f"{step}/{group}/{one['sample']}", **made})
    return found


def pair_row(
    problem: Problem, one: Mapping[str, JSON], other: Mapping[str, JSON], *, by_verifier: bool
) -> dict[str, JSON]:
    """Build one row: the problem's prompt, both completions, and the label if a verifier labels (else None)."""
    prompt: JSON = problem.prompt if isinstance(problem.prompt, str) else turns(problem.prompt)
    label: JSON = None
    if by_verifier:
        better = cast("float", one["reward"]) - cast("float", other["reward"])
        label = "first" if better > 0 else "second" if better < 0 else "tie"
    return {
        "prompt": prompt,
        "first": one["completion"],
        "second": other["completion"],
        "label": label,
        "category": problem.task,
    }


def labelled_by_person(session: Session, found: list[dict[str, JSON]]) -> list[dict[str, JSON]]:
    """Add a person's labels to the rows; skipped pairs are left out.

    Raises:
        ConfigError: some rows have no label yet; the message says how to add them.
    """
    file = session.run.path / UNLABELLED_FILE
    write_rows(file, found)
    labels = read_labels(file)
    missing = [row for row in found if str(row["id"]) not in labels]
    if missing:
        raise ConfigError(
            "unlabelled",
            f"{len(missing)} of {len(found)} pairs must still be labelled. Run `reasoner label {file}`, then continue"
            " with --resume.",
        )
    kept = [{**row, "label": labels[str(row["id"])].label} for row in found]
    return [row for row in kept if row["label"] != "skip"]


def write_rows(file: Path, rows: list[dict[str, JSON]]) -> None:
    """Write a JSONL file atomically."""
    write_atomic(file, b"".join(json_line(row).encode() + b"\n" for row in rows))
