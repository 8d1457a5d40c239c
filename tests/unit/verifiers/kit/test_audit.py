"""Labelled files: what a case carries to the verifier, and the kit over cases that only say right or wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from verifiers import JSON, Example, Outcome, get_verifier
from verifiers.kit.audit import AuditError, read_cases, tally
from verifiers.kit.conformance import check_verifier

MENU: JSON = [{"name": "quotes", "citation": {"min": 1, "words": 2}}, {"name": "soup", "contains": "soup"}]
ASKED: JSON = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
OWNED: JSON = {"kind": "entailment", "premises": ["∀x (Cat(x) → Furry(x))", "Cat(tom)"], "claim": "Furry(tom)"}
CASES = {
    "instructions": [
        {"completion": "Owls hunt", "reference": ASKED, "expected": True},
        {"completion": "Owls, hunting", "reference": ASKED, "expected": False},
        {"completion": "", "reference": ASKED, "expected": False},
    ],
    "logic": [
        {"completion": "The answer is entailed.", "reference": OWNED, "expected": True},
        {"completion": "The answer is unknown.", "reference": OWNED, "expected": False},
        {"completion": "I would have to guess.", "reference": OWNED, "expected": False},
    ],
    "rubric": [
        {"completion": '"hot soup"', "reference": MENU, "prompt": "We have hot soup.", "expected": True},
        {"completion": '"cold soup"', "reference": MENU, "prompt": "We have hot soup.", "expected": False},
        {"completion": '"hot rice"', "reference": MENU, "prompt": "We have hot rice.", "expected": False},
    ],
}


def written(folder: Path, *rows: object) -> str:
    (folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "cases.jsonl")


@pytest.mark.parametrize("name", sorted(CASES))
def test_cases_are_graded_with_their_prompts(tmp_path: Path, name: str) -> None:
    cases = read_cases(written(tmp_path, *CASES[name]), {})
    verifier = get_verifier(name)
    verdicts = verifier.verify_batch([case.row for case in cases])
    found = tally((case, verdict.quality, verdict.reason) for case, verdict in zip(cases, verdicts, strict=True))
    assert found.mistakes == []
    assert (found.overall.accepted_right, found.overall.rejected_wrong, found.overall.ungraded) == (1, 2, 0)


def test_a_case_may_have_info_and_other_columns(tmp_path: Path) -> None:
    row = {"text": "7", "gold": "7", "ok": "incorrect", "info": {"kind": "number"}, "asked": "What is 3 + 4?"}
    names = {"completion": "text", "reference": "gold", "expected": "ok", "prompt": "asked"}
    (case,) = read_cases(written(tmp_path, row), names)
    assert (case.row.prompt, case.row.info, case.row.completion, case.row.reference) == (
        "What is 3 + 4?",
        {"kind": "number"},
        "7",
        "7",
    )
    assert (case.id, case.category, case.expected) == ("1", "all", False)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("prompt", ["a"], "prompt must be text"),
        ("info", "a", "info must be an object"),
        ("expected", 2, "true or false"),
    ],
)
def test_a_case_that_cannot_be_used_is_named(tmp_path: Path, column: str, value: object, said: str) -> None:
    row = {"completion": "7", "reference": "7", "expected": True} | {column: value}
    with pytest.raises(AuditError, match=rf"cases.jsonl line 1: .*{said}"):
        read_cases(written(tmp_path, row), {})


def test_a_case_that_is_wrong_may_get_any_outcome_but_correct() -> None:
    labelled = [
        Example(completion="The answer is Paris.", reference="Paris"),
        Example(completion="I do not know which town it is.", reference="Paris", outcome=Outcome.INCORRECT),
    ]
    for any_wrong in (False, True):
        found = check_verifier("exact", examples=labelled, any_wrong=any_wrong)
        assert [finding.detail for finding in found.failures if "no_answer" in finding.detail] == (
            [] if any_wrong else [found.findings[1].detail]
        )
    taken = [labelled[0], Example(completion="The answer is Paris.", reference="Paris", outcome=Outcome.INCORRECT)]
    found = check_verifier("exact", examples=taken, any_wrong=True)
    assert found.failures == (found.findings[1],)
    assert "is correct, not incorrect" in found.findings[1].detail
