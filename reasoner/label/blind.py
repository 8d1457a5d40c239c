"""A labelling file of two models' completions on the same problems, without the models' names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reasoner.label.labels import LabelError, rows_of
from verifiers import JSON

FILES = ("eval_rollouts.jsonl", "rollouts.jsonl")


def completions(place: Path) -> dict[tuple[str, int], Mapping[str, JSON]]:
    """Return the completions of a file or run folder, by (problem, sample); of several evaluations the last one's.

    Raises:
        LabelError: there are none, or a row is incomplete.
    """
    candidates = [place] if place.is_file() else [place / name for name in FILES]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise LabelError(f"{place} must be a file of completions or a folder with {' or '.join(FILES)}; it is neither.")
    found: dict[tuple[str, int], Mapping[str, JSON]] = {}
    for number, row in rows_of(file, growing=file.name in FILES):
        sample = row.get("sample", 0)
        if row.get("prompt") is None or row.get("completion") is None or not isinstance(sample, int):
            raise LabelError(f"{file} line {number} must have problem (or id), prompt, completion and a whole sample.")
        texts: dict[str, JSON] = {"completion": str(row["completion"]), "prompt": str(row["prompt"])}
        found[str(row.get("problem", row.get("id"))), sample] = row | texts
    return found


def blind_pairs(first: Path, second: Path) -> list[dict[str, JSON]]:
    """Return the rows of a labelling file: both models' completions of common problems; equal texts are left out.

    Raises:
        LabelError: they have no different completions of common problems, or a problem has different prompts.
    """
    ours, theirs = completions(first), completions(second)
    rows: list[dict[str, JSON]] = []
    for key in sorted(set(ours) & set(theirs)):
        one, other = ours[key], theirs[key]
        if one["prompt"] != other["prompt"]:
            raise LabelError(f"problem {key[0]!r} has different prompts in {first} and {second}: not the same data.")
        if one["completion"] == other["completion"]:
            continue
        rows.append(
            {
                "id": f"{key[0]}/{key[1]}",
                "prompt": one["prompt"],
                "first": one["completion"],
                "second": other["completion"],
                "category": str(one.get("task") or ""),
            }
        )
    if not rows:
        raise LabelError(f"{first} and {second} must have differing completions of common problems; they have none.")
    return rows
