"""The tables of comparisons: printed output and returned values, with near misses for each rule."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from verifiers.code.compare import NOTHING
from verifiers.code.guest import wire
from verifiers.code.imports import IMPORTS
from verifiers.code.output import (
    COMPARISONS,
    EXACT,
    OutputRule,
    Tolerance,
    read_output_rule,
    read_tolerance,
    same_output,
)
from verifiers.code.references import read_reference
from verifiers.code.values import VALUES, ValueRule, same_value
from verifiers.errors import BadReference
from verifiers.verdict import JSON

DOCS = Path(__file__).parents[4] / "docs" / "code.md"
NEAR = Tolerance(1e-5, integers=True)


@pytest.mark.parametrize(
    ("rule", "expected", "right", "wrong"),
    [
        (OutputRule("exact"), "1 2\n", ["1 2\n"], ["1 2", "1  2\n", "1 2 \n"]),
        (OutputRule("lines"), "1 2\n3\n", ["1 2 \n3", "1 2\n3\n\n \n"], [" 1 2\n3", "1 2\n\n3", "1  2\n3", "\n1 2\n3"]),
        (OutputRule("trimmed"), "\n1 2\n\n3\n", [" 1 2\n\n 3 \n"], ["1 2\n3", "1  2\n\n3", "1 2\n\n\n3"]),
        (OutputRule("tokens"), "1 2\n3\n", [" 1  2\n3"], ["1 2 3", "1 2\n\n3", "12\n3", "1\n2\n3"]),
        (OutputRule("words"), "1 2\n3\n", ["1\n\n2 3", " 1 2 3 "], ["1 2", "1 2 3 3", "12 3", "1 2 4"]),
        (OutputRule("words"), "", ["", " \n"], ["0"]),
        (
            OutputRule("decimals"),
            "1.0 2\nyes\n",
            ["1 2.00\n yes", "1e0 2\nyes\n"],
            ["1 2\nYes", "1.0000001 2\nyes", "1 2 3\nyes", "1 2\n\nyes", "x 2\nyes", "1\nyes"],
        ),
        (OutputRule("decimals"), "50000000000000000\n", ["50000000000000000.0"], ["50000000000000001", "sNaN", "NaN"]),
        (OutputRule("words", any_case=True), "YES No\n", ["yes nO"], ["yes yes", "ye s no"]),
        (OutputRule("words", any_case=("yes", "no")), "YES Abc\n", ["yEs Abc"], ["yes abc", "yesAbc"]),
        (
            OutputRule("words", NEAR),
            "10 0.5\n",
            ["10.000001 .500001", "10 0.5"],
            ["10.00002 0.5", "10 0.5x", "x 0.5"],
        ),
        (OutputRule("words", Tolerance(1e-5)), "10 0.5\n", ["10 0.500009"], ["10.000001 0.5", "10 0.50002"]),
        (OutputRule("lines", read_tolerance(1e-6)), "1000000.0 x\n", ["1000000.5 x"], ["1000002.0 x", "1000000.5  x"]),
        (OutputRule("lines", any_order=True), "a b\nc\nc\n", ["c\na b\nc"], ["c\na b", "c\nb a\nc", "a b\na b\nc"]),
        (
            OutputRule("tokens", Tolerance(0.01), any_order=True),
            "2.0\n1.0\n",
            ["1.001\n2.001"],
            ["1.0\n1.0", "1.0\n3"],
        ),
        (OutputRule("apps"), "1 2\n3\n", ["3\n2 1", "1 2\n\n3", "3 3\n1 2 1"], ["1 2", "1 2 3", "1 2\n4"]),
        (OutputRule("apps"), "100000\n", ["100001", "100000.4"], ["100002", "x"]),
        (OutputRule("eurus"), "1 2\n3\n", [" 1 2 \n3", "1 2\n\n3"], [" 1 2\n\n3", "3\n1 2", "2 1\n3", "1 2\n3.0"]),
        (OutputRule("eurus"), "100000\n", ["100000.4", "100000"], ["100001"]),
        (OutputRule("taco"), "1 2\n3\n", ["\n1 2\n3  ", "12\n3"], ["1 2 \n3", "3\n1 2", "1 2\n\n4"]),
    ],
)
def test_what_counts_as_the_same_output(rule: OutputRule, expected: str, right: list[str], wrong: list[str]) -> None:
    for printed in right:
        assert same_output(printed, expected, rule), printed
    for printed in wrong:
        assert not same_output(printed, expected, rule), printed
    assert same_output(expected, expected, rule)


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("flood", ["\n", "1\n", "1 ", "1\x0b"], ids=["newlines", "lines", "words", "others"])
def test_a_flood_of_output_costs_little(name: str, flood: str) -> None:
    printed = flood * (1_000_000 // len(flood))
    tracemalloc.start()
    started = time.process_time()
    assert not same_output(printed, "1 2\n3 4", OutputRule(name))
    took, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * len(printed)
    assert took < 20


TUPLE: JSON = {"$tuple": [1, 2]}


@pytest.mark.parametrize(
    ("rule", "expected", "right", "wrong"),
    [
        (ValueRule("nested"), [[1, 2]], [[[1, 2]], [TUPLE], {"$tuple": [TUPLE]}], [[[1]], [1, 2], {"$set": []}]),
        (ValueRule("strict"), [1, 2], [[1, 2], [1.0, True + 1]], [TUPLE, [2, 1], "[1, 2]"]),
        (ValueRule("outer"), [1, 2], [[1, 2], TUPLE], [[2, 1], {"$set": [1, 2]}]),
        (ValueRule("outer"), [[1, 2]], [[[1, 2]]], [[TUPLE]]),
        (ValueRule("wrapped"), [5], [5, [5], {"$tuple": [5]}, 5.0], [[5, 0], [[5]], "5", [], None]),
        (ValueRule("wrapped"), [[[1, 2]]], [[[1, 2]], [TUPLE]], [[{"$tuple": [1, 3]}], [1, 2]]),
        (ValueRule("wrapped"), [], [[]], [0, None, [[]]]),
        (ValueRule("evalplus"), 0.5, [0.5, 0.5000005], [0.50001, 1, "0.5", [0.5]]),
        (
            ValueRule("evalplus"),
            [0.5, 1.5],
            [[0.5000001, 1.5]],
            [{"$tuple": [0.5000001, 1.5]}, [0.5], [0.5, 2.0]],
        ),
        (ValueRule("evalplus"), 3, [3, 3.0], [3.0000001, 4]),
        (ValueRule("evalplus", Tolerance(0.1)), 3, [3], [3.05, 4]),
        (ValueRule("evalplus", Tolerance(1.5)), 3, [3, 4], [5, "3"]),
        (ValueRule("set"), TUPLE, [[2, 1, 1], TUPLE, {"$set": [1, 2]}], [[1], [1, 2, 3], 12, None]),
        (ValueRule("not_none"), True, [1, "no", 0, [], True, {"$opaque": ["re.Match", True]}], [None, False, NOTHING]),
        (ValueRule("not_none"), False, [None, False], [0, True, {"$opaque": ["re.Match", True]}, NOTHING]),
        (ValueRule("printed"), "[1, 2]", [[1, 2], "[1, 2]"], [TUPLE, [1, 3], "[1,2]", None]),
        (ValueRule("printed"), "True", [True, "True"], [1, "true"]),
        (ValueRule("nested", read_tolerance(1e-6)), [0.1], [[0.1000000001]], [[0.11], ["0.1"]]),
    ],
)
def test_what_counts_as_the_same_value(rule: ValueRule, expected: JSON, right: list[JSON], wrong: list[JSON]) -> None:
    for returned in right:
        assert same_value(returned, expected, rule), returned
    for returned in wrong:
        assert not same_value(returned, expected, rule), returned
    assert not same_value(NOTHING, expected, rule)
    assert not same_value({"$opaque": ["object", True]}, expected, rule) or rule.compare == "not_none"


def test_a_tolerance_is_a_number_or_an_object() -> None:
    assert read_tolerance(0) == EXACT
    assert not EXACT
    assert read_tolerance(0.5).near(1.0, 2.0)
    assert not read_tolerance(0.5).near(1.0, 2.1)
    both = read_tolerance({"absolute": 0.1, "relative": 0.1, "integers": True})
    assert both.near(9.0, 10)
    assert not both.near(8.8, 10)
    for value in (float("inf"), float("nan")):
        assert not both.near(value, 1.0)
        assert not both.near(1.0, value)
    assert not both.near(10**400, 1.0)


CASE: JSON = {"input": "1", "output": "2"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compare": "fuzzy"}, "compare must be one of exact, lines"),
        ({"compare": ["lines"]}, "compare must be one of"),
        ({"any_case": "yes"}, "any_case must be true, false or a list of words"),
        ({"any_case": []}, "any_case must be"),
        ({"any_order": 1}, "any_order must be true or false"),
        ({"any_order": True, "compare": "words"}, "any_order concerns lines, which compare 'words' ignores"),
        ({"tolerance": {"abs": 1}}, "tolerance has no 'abs'"),
        ({"tolerance": {"absolute": -1}}, "must be a number of at least 0"),
        ({"tolerance": {"integers": 1}}, "integers must be true or false"),
        ({"tolerance": True}, "must be a number of at least 0"),
        ({"seconds_per_case": 0}, "seconds_per_case must be above 0 and at most 30"),
        ({"seconds_per_case": 31}, "at most 30"),
        ({"imports": "all"}, "imports must be one of typing, livecodebench"),
        ({"seconds": 3}, "may not have 'seconds'"),
    ],
)
def test_a_bad_rule_says_what_it_may_be(fields: dict[str, JSON], message: str) -> None:
    with pytest.raises(BadReference) as caught:
        read_reference({"cases": [CASE], **fields})
    assert message in str(caught.value)


def test_a_reference_s_own_rule_wins() -> None:
    default = OutputRule("tokens", any_case=True)
    assert read_output_rule({}, default) == default
    assert read_output_rule({"compare": "exact", "any_case": False}, default) == OutputRule("exact")


def test_what_is_imported_comes_before_the_prelude() -> None:
    given: dict[str, JSON] = {"entry_point": "Solution().f", "calls": [{"expected": 1}], "prelude": "x = 1\n"}
    _, reference = read_reference({**given, "imports": "typing"}, "livecodebench")
    assert reference["prelude"] == "from typing import *\nx = 1\n"
    assert (reference["entry_point"], "imports" in reference) == ("f", False)
    _, reference = read_reference(given, "livecodebench")
    assert str(reference["prelude"]).startswith("from string import *\n")
    assert read_reference({"pytest": "def test_f(): assert f() == 1"}, "typing")[1].get("prelude") is None


@pytest.mark.parametrize("name", IMPORTS)
def test_imports_run_and_leave_built_in_names_alone(name: str) -> None:
    space: dict[str, object] = {}
    limit = __import__("sys").getrecursionlimit()
    try:
        exec(IMPORTS[name], space)
    finally:
        __import__("sys").setrecursionlimit(limit)
    kept = ("open", "pow", "sum", "abs", "min", "exec", "compile")
    taken = [kind for kind in kept if kind in space and space[kind] is not getattr(__import__("builtins"), kind)]
    assert taken == []


def test_the_tables_of_the_docs_are_those_of_the_code() -> None:
    text = DOCS.read_text()
    rows: list[tuple[str, str]] = [(name, found.says) for name, found in COMPARISONS.items()]
    rows += [(f"{name} (default)" if name == "nested" else name, found.says) for name, found in VALUES.items()]
    assert [row for row in rows if f"| {row[0]} | {row[1]} |" not in text] == []


def test_values_of_any_kind_are_compared_without_raising() -> None:
    values = [None, 0, 1.5, "a", [1], {"a": 1}, {"$set": [1]}, {"$dict": [[1, 2]]}, {"$tuple": []}, {"$nonsense": 1}]
    holds: Callable[[JSON, JSON, ValueRule], bool] = same_value
    for name in VALUES:
        for got in values:
            for expected in values[:-1]:
                assert holds(got, expected, ValueRule(name)) in (True, False)
    assert wire.encode((1, 2)) == TUPLE
