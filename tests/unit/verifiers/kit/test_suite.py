"""Suites: many files, graded at once; suites that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.verifiers.kit.test_files import ROWS, read, run, write


def suite(folder: Path, parts: list[dict[str, object]], **more: object) -> str:
    import yaml

    (folder / "suite.yaml").write_text(yaml.safe_dump({"parts": parts, **more}))
    return str(folder / "suite.yaml")


def test_a_suite_grades_many_files(tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", ROWS[:2])
    write(tmp_path / "two.jsonl", [{"out": "#### 2.50", "gold": 2.5}])
    parts: list[dict[str, object]] = [
        {"name": "one", "file": "one.jsonl", "verifier": "exact", "min_accuracy": 0.5},
        {
            "name": "two",
            "file": "two.jsonl",
            "verifier": "numeric",
            "columns": {"completion": "out", "reference": "gold"},
        },
    ]
    code, said, _ = run(suite(tmp_path, parts, output="out"), "--json")
    assert code == 0
    one, two = json.loads(said)["parts"]
    assert (one["accuracy"], two["accuracy"], one["reached"]) == (0.5, 1.0, True)
    assert [row["id"] for row in read(tmp_path / "out" / "one.jsonl")] == ["a", "b"]
    parts[0]["min_accuracy"] = 0.6
    parts.append({"name": "three", "file": "missing.jsonl", "verifier": "exact"})
    code, _, error = run(suite(tmp_path, parts, output="again"))
    assert code == 1
    assert "one: accuracy is below 0.6" in error
    assert "three: " in error
    assert len(read(tmp_path / "again" / "two.jsonl")) == 1


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "parts"),
        ([{"name": "x", "file": "f", "verifer": "exact"}], "Extra inputs"),
        ([{"name": "x", "file": "f"}, {"name": "x", "file": "f"}], "'x' occurs twice"),
        ([{"name": "x", "file": "f", "verifier": "exat"}], "Did you mean 'exact'"),
    ],
)
def test_bad_suites(tmp_path: Path, parts: list[dict[str, object]], said: str) -> None:
    code, _, error = run(suite(tmp_path, parts))
    assert code in (1, 2)
    assert said in error
