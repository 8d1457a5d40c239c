"""Published decisions of judges, read and recounted."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score

from verifiers.judge.judgments import by_judge, read_judgment, read_marks

JUDGES = {
    "Skywork/Skywork-Reward-Llama-3.1-8B": 62.3,
    "Skywork/Skywork-Reward-Gemma-2-27B": 64.3,
    "Ray2333/GRM-Gemma-2B-rewardmodel-ft": 59.4,
    "internlm/internlm2-7b-reward": 59.4,
    "internlm/internlm2-20b-reward": 63.4,
}


def data(name: str) -> list[dict[str, Any]]:
    root = os.environ.get("REASONER_DATA_DIR")
    if not root:
        pytest.skip(f"set REASONER_DATA_DIR to the folder that holds rubric/{name}.jsonl.gz")
    with gzip.open(Path(root) / "rubric" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[A>B]]", "first"),
        ("so [[B>>A]].", "second"),
        ("[[ A=B ]]", "tie"),
        ("[[A<<B]]", "second"),
        ("[[A>B]] and again [[A>B]]", "first"),
        ("[[A>B]] or [[A>>B]]", None),
        ("[[B>A]] ... final verdict [[A>B]]", None),
        ("[[A>A]]", None),
        ("A is better", None),
        ("", None),
    ],
)
def test_marks(text: str, said: str | None) -> None:
    assert read_marks(text) == said


def test_judgebench_against_a_direct_recount() -> None:
    rows = data("judgebench_judgments")
    flip = {"A>B": "B>A", "B>A": "A>B", "A=B": "A=B", None: None}
    words = {"first": "A>B", "second": "B>A", "tie": "A=B", None: None}
    equal = 0
    for row in rows:  # every judge's decision, as the file's authors recorded it, or that there is none
        ours = words[read_judgment({**row, "order": "AB"}).decision]
        if row["scores"] and row["scores"][0] == row["scores"][1]:
            equal += 1
            assert ours == "A=B"  # recorded as B>A; two equal scores prefer nothing
        else:
            assert ours == row["decision"], row
    assert equal == 8
    records: dict[str, Any] = {record.judge: record.to_json() for record in by_judge(map(read_judgment, rows))}
    assert len(records) == 7
    for judge, found in records.items():
        mine = [row for row in rows if row["judge_model"] == judge]
        decided: dict[tuple[str, str], dict[str, Any]] = {}
        for row in mine:
            said = row["decision"]
            if row["scores"] and row["scores"][0] == row["scores"][1]:
                said = "A=B"
            frame = said if row["order"] == "AB" else flip[said]
            decided.setdefault((row["response_model"], row["pair_id"]), {"label": row["label"]})[row["order"]] = frame
        right = sum(pair["AB"] == pair["label"] for pair in decided.values())
        both = 0
        for pair in decided.values():
            votes = [pair["AB"], pair["BA"]]
            both += votes.count(pair["label"]) > votes.count(flip[pair["label"]])
        told = [pair for pair in decided.values() if pair["AB"] is not None and pair["BA"] is not None]
        same = sum(pair["AB"] == pair["BA"] for pair in told)
        assert found["accuracy_straight"][0] == right / len(decided)
        assert found["accuracy_both"][0] == both / len(decided)
        assert found["consistent"][0] == same / len(told)
        assert found["cannot_be_told"] == sum(row["decision"] is None for row in mine)
        if judge in JUDGES:
            assert 100 * found["accuracy_straight"][0] == pytest.approx(JUDGES[judge], abs=0.05)
            assert found["consistent"][0] == 1
        usable = [(p[o], p["label"]) for p in decided.values() for o in ("AB", "BA") if p[o] is not None]
        kappa = cohen_kappa_score([a for a, _ in usable], [b for _, b in usable])
        assert found["against_labels"]["kappa"][0] == pytest.approx(kappa)
    assert records["claude-3-haiku-20240307"]["cannot_be_told"] == 13
