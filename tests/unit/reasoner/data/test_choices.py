"""Rows with lists of completions, in every format; what cannot be compared is told."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from reasoner.config.sections import PreferenceSection
from reasoner.data.choices import choice_of, load_choices
from reasoner.data.preferences import load_pairs
from tasks import UnusableRow

SECTION = PreferenceSection()
ASK = [{"role": "user", "content": "hi"}]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "prompt", "chosen", "rejected", "subset"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b", "subset": "s"}, "p", ("a",), ("b",), "s"),
        ({"prompt": ASK, "chosen": "a", "rejected": "b", "category": "c"}, tuple(ASK), ("a",), ("b",), "c"),
        ({"prompt": "p", "chosen": ["a"], "rejected": ["b", "c", "d"]}, "p", ("a",), ("b", "c", "d"), ""),
        ({"prompt": ASK, "chosen": ["a"], "rejected": ["b"]}, tuple(ASK), ("a",), ("b",), ""),
        ({"prompt": "p", "chosen": "a", "rejected": ["b", "c"]}, "p", ("a",), ("b", "c"), ""),
        ({"prompt": ASK, "chosen": [[said("a")]], "rejected": [[said("b")], "c"]}, tuple(ASK), ("a",), ("b", "c"), ""),
        ({"prompt": "p", "first": "a", "second": "b", "label": "second"}, "p", ("b",), ("a",), ""),
        # without a count, text that looks like a list is text: a completion may be one
        ({"prompt": "p", "chosen": '["a"]', "rejected": '["b"]'}, "p", ('["a"]',), ('["b"]',), ""),
    ],
)
def test_rows_of_many_shapes(row: Any, prompt: Any, chosen: Any, rejected: Any, subset: str) -> None:
    found = choice_of(row, SECTION, where="f row 1")
    assert (found.prompt, found.chosen, found.rejected, found.subset) == (prompt, chosen, rejected, subset)
    assert (found.id, found.tie) == ("f row 1", False)


MANY = {"prompt": "p", "chosen": ["a"], "rejected": ["b", "c"]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_correct": 2}, "num_correct is 2, but chosen have 1 completions"),
        ({"total_completions": 4}, "total_completions is 4, but chosen and rejected have 3"),
        ({"rejected": []}, "rejected must have at least one completion"),
        ({"rejected": ["b", " "]}, "a rejected completion is empty"),
        ({"rejected": ["b", "a"]}, "the same text is chosen and rejected"),
        ({"rejected": ["b", 3]}, "must be a list of {role, content} messages; got '3'"),
        ({"rejected": None}, "column 'rejected'"),
        ({"prompt": None}, "has no value in column 'prompt'"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"chosen": "['a']", "num_correct": "1"}, "chosen has a count, but is not a list of completions"),
        ({"prompt": ASK, "chosen": [[{"role": "user", "content": "no"}, said("a")]]}, "must repeat the prompt"),
    ],
)
def test_unusable_rows_are_told(change: dict[str, object], reason: str) -> None:
    with pytest.raises(UnusableRow) as told:
        choice_of({**MANY, **change}, SECTION, where="x")
    assert reason in str(told.value)


ROWS: list[dict[str, Any]] = [
    {"id": "0", "prompt": "p", "chosen": ["a, \"b\""], "rejected": ["b", "c\nd", "é"], "num_correct": 1,
     "num_incorrect": 3, "total_completions": 4, "subset": "Math"},
    {"id": "tied:1", "prompt": "q", "chosen": ["x", "y"], "rejected": ["z"], "num_correct": 2, "num_incorrect": 1,
     "total_completions": 3, "subset": "Ties"},
]  # fmt: skip


def written(path: Path) -> str:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(ROWS), path)  # pyright: ignore
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*ROWS[0]])
            writer.writeheader()
            writer.writerows(
                {key: json.dumps(v) if isinstance(v, list) else v for key, v in row.items()} for row in ROWS
            )
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_the_same_rows_in_every_format(kind: str, tmp_path: Path) -> None:
    found = load_choices(PreferenceSection(train=[written(tmp_path / f"rows.{kind}")]))
    assert (found.bad, found.ties) == ([], 0)
    assert [(one.id, one.subset) for one in found.rows] == [("0", "Math"), ("tied:1", "Ties")]
    assert [(one.chosen, one.rejected) for one in found.rows] == [
        (tuple(row["chosen"]), tuple(row["rejected"])) for row in ROWS
    ]


def test_bad_rows_and_labelled_ties_are_counted_and_columns_may_be_named(tmp_path: Path) -> None:
    rows = [
        {"q": "p", "chosen": ["a"], "rejected": ["b"]},
        {"q": "p", "first": "a", "second": "b", "label": "tie"},
        {"q": "p", "chosen": ["a"], "rejected": ["a"]},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_choices(PreferenceSection(train=[str(tmp_path / "rows.jsonl")], columns={"prompt": "q"}))
    assert (len(found.rows), found.ties) == (1, 1)
    assert [(row.where.rpartition(" row ")[2], row.reason) for row in found.bad] == [
        ("3", "the same text is chosen and rejected")
    ]


def test_training_pairs_have_the_subset_as_category_and_an_id_of_0(tmp_path: Path) -> None:
    rows = [{"id": 0, "prompt": "p", "chosen": "a", "rejected": "b", "subset": "s"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (pair,) = load_pairs(PreferenceSection(train=[str(tmp_path / "rows.jsonl")], held_out_share=0)).train.pairs
    assert (pair.category, pair.id) == ("s", "0")
