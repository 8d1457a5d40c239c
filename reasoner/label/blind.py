"""Two models on the same problems, as a labelling file that does not say which is which."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reasoner.label.labels import LabelError, rows_of
from verifiers import JSON

FILES = ("eval_rollouts.jsonl", "rollouts.jsonl")


def completions(place: Path) -> dict[tuple[str, int], Mapping[str, JSON]]:
    """The completions of a file or run folder, by (problem, sample); of several evaluations the last one's.

    Raises:
        LabelError: there is none.
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
    """Rows of a labelling file: what both models wrote on the problems that both have; equal texts are left out.

    Raises:
        LabelError: they have no problem in common, or the same problem has other prompts.
    """
    ours, theirs = completions(first), completions(second)
    rows: list[dict[str, JSON]] = []
    for key in sorted(set(ours) & set(theirs)):
        one, other = ours[key], theirs[key]
        if one["prompt"] != other["prompt"]:
            raise LabelError(f"problem {key[0]!r} has another prompt in {second} than in {first}: not the same data.")
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
