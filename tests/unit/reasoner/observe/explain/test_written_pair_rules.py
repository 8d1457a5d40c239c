"""What the stages `pairs` and `constitutional` write: ties, one side, length, revisions. Half are near misses."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from reasoner.observe.explain import findings
from tests.unit.reasoner.runs import Made, make_history


def codes(folder: Path, *, method: str, pairs: list[dict] | None = None, told: list[dict] | None = None) -> list[str]:
    for name, rows in (("pairs.jsonl", pairs), ("transcripts.jsonl", told)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows or []))
    history = make_history(Made([], [], []), method=method)
    history.folder = folder
    return [finding.code for finding in findings(history)]


def made_pairs(kind: str, *, count: int = 60, seed: int = 0) -> list[dict]:
    rng = random.Random(seed)
    rows: list[dict] = []
    for number in range(count):
        first, second = ("a" * rng.randint(5, 40) + str(number), "b" * rng.randint(5, 40) + str(number))
        label = rng.choice(["first", "second"])
        if kind == "ties" and rng.random() < 0.8:
            label = "tie"
        if kind == "some ties" and rng.random() < 0.4:
            label = "tie"
        if kind == "one side" and rng.random() < 0.95:
            label = "first"
        if kind == "more of one side" and rng.random() < 0.2:
            label = "first"
        if kind == "length" or (kind == "often length" and rng.random() < 0.6):
            label = "first" if len(first) >= len(second) else "second"
        rows.append({"id": str(number), "prompt": f"ask {number}", "first": first, "second": second, "label": label})
    if kind == "both ways":
        rows += [row | {"label": "second" if row["label"] == "first" else "first"} for row in rows[:20]]
    if kind == "twice":
        rows += rows[:20]
    return rows


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("ties", "pairs-mostly-ties"),
        ("one side", "pairs-one-sided"),
        ("length", "pairs-are-length"),
        ("both ways", "pairs-contradict"),
        ("some ties", None),
        ("more of one side", None),
        ("often length", None),
        ("twice", None),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_pairs(kind: str, code: str | None, seed: int, tmp_path: Path) -> None:
    assert codes(tmp_path, method="pairs", pairs=made_pairs(kind, seed=seed)) == ([code] if code else [])


def test_few_pairs_say_nothing(tmp_path: Path) -> None:
    assert codes(tmp_path, method="pairs", pairs=made_pairs("one side", count=10)) == []


def revised(kind: str, number: int, rng: random.Random) -> dict:
    answer = f"answer {number}"
    revision = f"better answer {number}"
    if kind == "unchanged" and rng.random() < 0.9:
        revision = answer
    if kind == "some unchanged" and rng.random() < 0.4:
        revision = answer
    if kind == "alike" and rng.random() < 0.5:
        revision = "I am sorry, I cannot help."
    return {"step": 1, "group": number, "prompt": f"ask {number}", "answer": answer, "rounds": [], "revision": revision}


@pytest.mark.parametrize(
    ("kind", "code"),
    [("unchanged", "revisions-unchanged"), ("alike", "revisions-alike"), ("some unchanged", None), ("good", None)],
)
def test_revisions(kind: str, code: str | None, tmp_path: Path) -> None:
    rng = random.Random(0)
    told = [revised(kind, number, rng) for number in range(50)]
    assert codes(tmp_path, method="constitutional", told=told) == ([code] if code else [])


@pytest.mark.parametrize(("biased", "code"), [(0.8, "order-decides"), (0.3, None)])
def test_the_order_of_answers(biased: float, code: str | None, tmp_path: Path) -> None:
    rng = random.Random(1)
    told = []
    for number in range(80):
        better = rng.choice([0.8, 0.2])
        chances = [0.9, 0.1] if rng.random() < biased else [better, better]
        sides = {"first": f"x {number}", "second": f"y {number}", "chances": chances, "label": "tie"}
        told.append({"step": 1, "group": number, "prompt": "ask", **sides})
    assert codes(tmp_path, method="constitutional", told=told) == ([code] if code else [])


def test_the_last_line_of_a_killed_stage_may_be_cut(tmp_path: Path) -> None:
    rows = made_pairs("one side")
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"id": "61", "prom')
    history = make_history(Made([], [], []), method="pairs")
    history.folder = tmp_path
    assert [finding.code for finding in findings(history)] == ["pairs-one-sided"]
