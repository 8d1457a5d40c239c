"""The math verifier on real reference answers and real model solutions."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from verifiers.mathematics.verifier import Math

GOLDS = [
    ("math500.jsonl.gz", "answer", 500),
    ("aime24.jsonl", "answer", 30),
    ("amc23.jsonl", "answer", 40),
    ("college_math_ccby.jsonl.gz", "answer", 1260),
    ("gsm_hard.jsonl.gz", "target", 1319),
    ("svamp.jsonl.gz", "Answer", 1000),
]


def rows(path: Path) -> list[dict]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("name", "field", "count"), GOLDS)
def test_every_gold_parses_and_equals_itself(data_dir: Path, name: str, field: str, count: int) -> None:
    math = Math()
    golds = [row.get(field, row.get(field.lower())) for row in rows(data_dir / "math" / name)]
    assert len(golds) == count
    wrong = [
        gold
        for gold in golds
        if math.verify(completion=f"So the answer is \\boxed{{{gold}}}", reference=gold).reward != 1
    ]
    assert not wrong


def test_labelled_solutions_agree(data_dir: Path) -> None:
    math = Math()
    seen, wrong, right_by_model = 0, [], {}
    for row in rows(data_dir / "math_outputs" / "gsm8k_example_model_solutions.jsonl.gz"):
        gold = row["ground_truth"].rsplit("A:", 1)[-1].strip()
        for model, part in row.items():
            if not isinstance(part, dict):
                continue
            seen += 1
            right = math.verify(completion=part["solution"], reference=gold).reward == 1
            right_by_model[model] = right_by_model.get(model, 0) + right
            if right != part["is_correct"]:
                wrong.append((model, gold, part["solution"][-60:]))
    assert seen == 5276
    assert not wrong
    assert {model: round(count / 13.19, 1) for model, count in right_by_model.items()} == {
        "6b_finetuning": 21.7,
        "6b_verification": 39.0,
        "175b_finetuning": 34.7,
        "175b_verification": 56.3,
    }


def test_tora_reaches_its_published_accuracy(data_dir: Path) -> None:
    math = Math()
    traffic = rows(data_dir / "math_outputs" / "tora-70b-v1.0_gsm8k.jsonl.gz")
    right = sum(
        math.verify(completion=f"\\boxed{{{row['pred'][0]}}}", reference=str(row["gt"])).reward == 1 for row in traffic
    )
    assert round(100 * right / len(traffic), 2) == 84.31


def test_no_statement_of_nothing_is_right(data_dir: Path) -> None:
    """`0=0` and `x=x` are accepted for no reference but 0."""
    math = Math()
    golds = [row["answer"] for row in rows(data_dir / "math" / "college_math_ccby.jsonl.gz")]
    for empty in ("0=0", "x=x"):
        right = [g for g in golds if math.verify(completion=f"\\boxed{{{empty}}}", reference=g).reward == 1]
        assert all(math.verify(completion="\\boxed{0}", reference=gold).reward == 1 for gold in right), right
