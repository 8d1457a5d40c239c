"""Columns by dotted and indexed names."""

from __future__ import annotations

import pytest

from verifiers.columns import NoColumn, column_of, has_column

ROW: dict[str, object] = {
    "plain": 1,
    "null": None,
    "reward_model": {"ground_truth": "42", "style": "rule"},
    "reward_model.style": "literal",
    "choices": {"text": ["a", "b"], "label": ["A", "B"]},
    "listed": [{"text": "a", "n": {"m": 1}}, {"text": "b", "n": {"m": 2}}],
    "resps": [["said", "more"], ["third"]],
    "a.b": {"c": 1},
    "a": {"b": {"c": 2, "d": 3}, "b.c": 4},
    "0": "zero",
    "json": '{"x": 1}',
    "empty": [],
    "mixed": [{"text": "a"}, {"other": "b"}],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plain", 1),
        ("null", None),
        ("reward_model.ground_truth", "42"),
        ("reward_model.style", "literal"),
        ("choices.text", ["a", "b"]),
        ("choices.text.1", "b"),
        ("listed.text", ["a", "b"]),
        ("listed.n.m", [1, 2]),
        ("listed.1.text", "b"),
        ("listed.-1.text", "b"),
        ("resps.0.0", "said"),
        ("resps.1.-1", "third"),
        ("a.b.c", 1),
        ("a.b.d", 3),
        ("0", "zero"),
    ],
)
def test_a_name_reaches(name: str, value: object) -> None:
    assert column_of(ROW, name) == value
    assert has_column(ROW, name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("plian", "has no column 'plian'. It has: plain, null, .* and 5 more.* Did you mean 'plain'"),
        ("reward_model.truth", "'reward_model' has ground_truth, style in it"),
        ("reward_model.ground_truth.x", "'reward_model.ground_truth' is str and contains no columns"),
        ("null.x", "'null' is null and contains no columns"),
        ("resps.2", r"'resps' is a list of 2; its keys are the numbers 0 to 1"),
        ("resps.-3", "'resps' is a list of 2"),
        ("resps.x", "'resps' is a list of 2"),
        ("empty.0", "'empty' is empty"),
        ("mixed.text", "'mixed' is a list of 2"),
        ("json.x", "paths do not reach into text. A format may parse it"),
        ("resps.99999999999999999999", "'resps' is a list of 2"),
        ("", "has no column ''"),
        (".", "has no column '.'"),
        ("plain.", "'plain' is int"),
        (".plain", "has no column '.plain'"),
        ("resps.0.", "'resps.0' is a list of 2"),
    ],
)
def test_a_name_that_leads_nowhere_says_where_it_ends(name: str, says: str) -> None:
    assert not has_column(ROW, name)
    with pytest.raises(NoColumn, match=says):
        column_of(ROW, name)
