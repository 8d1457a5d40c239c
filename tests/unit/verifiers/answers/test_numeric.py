"""`numeric`: numbers as they are written, tolerances, references that are not numbers."""

from __future__ import annotations

import pytest

from verifiers import BadReference, get_verifier


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("0.5", "1/2", True),
        ("1,000", 1000, True),
        ("10,00", 1000, False),
        ("$3.50", "3.5", True),
        ("50%", "50", True),
        ("50%", "0.5", False),
        ("-0", "0", True),
        ("1e3", "1000", True),
        ("1e999999", "1000", False),
        ("3 or 4", "3", False),
        ("3,4", "3", False),
        ("٣", "3", False),
        ("0x10", "16", False),
        ("inf", "1", False),
        ("1/0", "1", False),
    ],
)
def test_numeric(answer: str, gold: str | int, right: bool) -> None:
    verdict = get_verifier("numeric").verify(completion=f"\\boxed{{{answer}}}", reference=gold)
    assert verdict.reward == right, verdict.reason


def test_numeric_tolerances_are_exact() -> None:
    made = get_verifier("numeric", absolute=0.125)
    assert [made.verify(completion=f"#### {x}", reference="1").reward for x in ("1.125", "0.875", "1.1251")] == [
        1,
        1,
        0,
    ]
    part = get_verifier("numeric", relative=0.25)
    assert [part.verify(completion=f"#### {x}", reference="-4").reward for x in ("-5", "-3", "-5.001")] == [1, 1, 0]


@pytest.mark.parametrize("reference", [None, True, "ten", "", [], {}, "1e999999999", float("nan")])
def test_numeric_refuses_golds_that_are_no_numbers(reference: object) -> None:
    with pytest.raises(BadReference):
        get_verifier("numeric").check_reference(reference)  # pyright: ignore
