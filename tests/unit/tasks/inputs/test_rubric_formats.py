"""Rubric sets as published: signs, categories, names, chats; from lines, parquet and JSON in text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.inputs.formats import format_named
from tasks.registry import get_task
from tasks.validate import Verifiers, unusable
from verifiers.rubric import parse_rubric

HEALTH: list[dict[str, Any]] = [
    {
        "prompt_id": f"id-{at}",
        "prompt": [
            {"role": "user", "content": f"I burnt my hand, {at}."},
            {"role": "assistant", "content": "How badly?"},
            {"role": "user", "content": "There is a blister."},
        ],
        "rubrics": [
            {"criterion": "Says to cool it under water.", "points": 7, "tags": ["level:example", "axis:accuracy"]},
            {"criterion": "Recommends butter.", "points": -6, "tags": ["level:example", "axis:accuracy"]},
            {"criterion": "Asks for the size of the burn.", "points": 3, "tags": ["axis:context_seeking"]},
        ],
        "example_tags": ["theme:context_seeking"],
        "ideal_completions_data": None,
        "canary": "not for training",
    }
    for at in range(4)
]


def read_reference_rubric(*rows: tuple[str, str, float]) -> list[Any]:
    rubric = [{"title": title, "description": said, "weight": weight} for title, said, weight in rows]
    found = format_named("reference_rubric", "problems").read({"question": "q", "rubric": rubric})["reference"]
    assert isinstance(found, list)
    parse_rubric(found)
    return found


@pytest.mark.parametrize(
    ("said", "statement", "points", "tag"),
    [
        ("Essential Criteria: Names the drug.", "Names the drug.", 5, "essential"),
        ("important criteria :  Says why.", "Says why.", 5, "important"),
        ("Optional Criterion: Is brief.", "Is brief.", 5, "optional"),
        ("Names the drug.", "Names the drug.", 5, None),
        ("The Essential Criteria: are named.", "The Essential Criteria: are named.", 5, None),
        ("Essentially Criteria: x", "Essentially Criteria: x", 5, None),
    ],
)
def test_the_category_becomes_a_tag(said: str, statement: str, points: float, tag: str | None) -> None:
    (found,) = read_reference_rubric(("t", said, 5))
    assert found["judged"] == {"statement": statement}
    assert found["points"] == points
    assert found.get("tags") == ([tag] if tag else None)


@pytest.mark.parametrize(
    ("said", "points"),
    [
        ("Pitfall Criteria: Does not mention the dose.", -2),
        ("Pitfall Criteria: Recommends butter.", -2),
        ("Pitfall Criteria: Fails to name the drug.", -2),
        ("Pitfall Criteria: Omits the units.", -2),
        ("Pitfall Criteria: Does not avoid jargon.", -2),
        ("Pitfall Criteria: Nevertheless names butter.", -2),
        ("Pitfall Criteria: Avoids rounding too early.", 2),
        ("Pitfall Criteria: The response avoids jargon.", 2),
        ("Pitfall Criteria: Does not incorrectly assume a constant mass.", 2),
        ("Pitfall Criteria: Does not confuse mass and weight.", 2),
        ("Pitfall Criteria: Must not name butter.", 2),
        ("Pitfall Criteria: Never names butter.", 2),
        ("Avoids jargon.", 2),
    ],
)
def test_a_pitfall_costs_where_it_names_the_fault_and_earns_where_it_names_its_avoidance(
    said: str, points: float
) -> None:
    *_, found = read_reference_rubric(("a", "Essential Criteria: Names it.", 5), ("t", said, -2))
    assert found["points"] == points


def test_titles_are_names_and_repeated_or_missing_ones_get_a_number() -> None:
    found = read_reference_rubric(("Dose", "a", 1), ("Dose", "b", 1), ("", "c", 1), ("Dose", "d", 1))
    assert [one["name"] for one in found] == ["Dose", "Dose (2)", "criterion 3", "Dose (3)"]


def written(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    if kind == "parquet":
        path = folder / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    path = folder / "rows.jsonl"
    if kind == "json in text":
        rows = [{**row, "rubrics": json.dumps(row["rubrics"])} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "json in text"])
def test_the_dataset_task_reads_them_from_any_file(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind, HEALTH)
    options = dict(format_named("healthbench", "problems").verifier_options)
    task = get_task("dataset", path=str(path), verifier="rubric", verifier_options=options, held_out_share=0)  # type: ignore[arg-type]
    problems = task.problems("train")
    assert len(problems) == 4
    assert unusable(problems, Verifiers()) == {}
    assert [turn["role"] for turn in problems[0].prompt] == ["user", "assistant", "user"]  # type: ignore[index]
    criteria = parse_rubric(problems[0].reference)
    assert [one.value for one in criteria] == [7, -6, 3]
    assert criteria[1].tags == ("level:example", "axis:accuracy")


def test_without_a_judge_every_row_says_what_to_set(tmp_path: Path) -> None:
    task = get_task("dataset", path=str(written(tmp_path, "jsonl", HEALTH)), verifier="rubric", held_out_share=0)
    faults = unusable(task.problems("train"), Verifiers())
    assert len(faults) == 4
    assert "Set the option judge" in faults[0].reason
