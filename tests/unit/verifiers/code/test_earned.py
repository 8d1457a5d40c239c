"""Passes that were not earned, and honest programs similar to them; tests run in another process than the program.

The programs of tests/cases/code_earned.jsonl are known to be harmless; on the isolated backends they are run by
tests/integration/test_code_earned.py.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from verifiers import BadReference, Verifier, get_verifier
from verifiers.code.compare import comparable, same
from verifiers.code.guest import checks, classes, wire
from verifiers.code.output import EXACT
from verifiers.code.references import read_reference
from verifiers.verdict import JSON

CASES = Path(__file__).parents[3] / "cases" / "code_earned.jsonl"
ROWS: list[dict[str, JSON]] = [json.loads(line) for line in CASES.read_text().split("\n") if line]
CORE = 4
"""The short suite runs one case out of this number, of those without pytest."""


@cache
def opened(process: str) -> Verifier:
    return get_verifier("code", sandbox="unsafe-host", block="whole", process=process)


def marks(number: int, row: dict[str, JSON]) -> tuple[pytest.MarkDecorator, ...]:
    core = row.get("core") or (not row.get("slow") and number % CORE == 0)
    return () if core else (pytest.mark.slow,)


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=str(row["id"]), marks=marks(n, row)) for n, row in enumerate(ROWS)]
)
def test_a_pass_is_earned_and_an_honest_program_has_it(row: dict[str, JSON]) -> None:
    options = row.get("options") or {}
    assert isinstance(options, dict)
    verdict = opened(str(options.get("process", "separate"))).verify(
        completion=str(row["program"]), reference=row["reference"]
    )
    assert verdict.outcome == row["outcome"], verdict


@pytest.mark.parametrize(
    "reference",
    [
        {"tests": ["r = g()"]},
        {"tests": ["print(g())"]},
        {"tests": ['def h():\n    """\n    >>> g(1)\n    2\n    """']},
        {"pytest": "from solution import g\ndef test_a():\n    g()\n"},
    ],
)
def test_tests_without_a_comparison_are_refused_when_they_are_read(reference: JSON) -> None:
    with pytest.raises(BadReference, match="contain no comparison"):
        read_reference(reference)


def nested(depth: int) -> list[object]:
    found: list[object] = []
    for _ in range(depth):
        found = [found]
    return found


def test_deep_shared_and_cyclic_values_cross() -> None:
    text = wire.dumps(wire.encode(nested(5_000)))
    back = wire.decode(json.loads(text))
    for _ in range(5_000):
        (back,) = back
    assert back == []
    loop: list[object] = [1]
    loop.append(loop)
    back = wire.decode(json.loads(wire.dumps(wire.encode(loop))))
    assert back[0] == 1
    assert back[1] is back
    row = [0]
    back = wire.decode(json.loads(wire.dumps(wire.encode([row, row]))))
    assert back[0] is back[1]
    assert same(nested(3_000), nested(3_000), tolerance=EXACT, sequences_alike=False)
    assert not same(nested(3_000), nested(2_999), tolerance=EXACT, sequences_alike=False)


@pytest.mark.parametrize(
    "tree",
    [
        {"$graph": [{"$ref": 1}, [[]]]},
        {"$graph": [{"$ref": 0}, [{"$tuple": [{"$ref": 0}]}]]},
        {"$graph": [{"$ref": 0}, [{"$graph": [1, []]}]]},
        {"$graph": [{"$ref": 0}, [{"$set": [{"$ref": 1}]}, []]]},
        {"$ref": 0},
        {"$deque": [1]},
        {"$date": [2020, 13, 1]},
        {"$array": ["O8", [1], 3]},
        {"$array": ["<f8", [1 << 40], {"$bytes": "00"}]},
        {"$named": ["P", ["x", "import"], [1, 2]]},
        {"$named": ["P" * 5_000, ["x"], [1]]},
        {"$dict_keys": [[1]]},
        {"$counter": [[{"$int": format(k * ((1 << 61) - 1), "x")}, 1] for k in range(1, 20_000)]},
    ],
    ids=lambda tree: str(tree)[:40],
)
def test_hostile_standard_values_are_refused(tree: JSON) -> None:
    with pytest.raises(wire.CannotCross):
        wire.decode(tree)


def test_a_field_cannot_stand_for_a_method() -> None:
    class Point:
        x = 0

        def same(self, other: object) -> bool:
            return other is self

    for name in ("same", "__class__", "__dict__"):
        with pytest.raises(wire.CannotCross):
            wire.decode({"$object": ["Point", [[name, {"$type": "bool"}]]]}, {"Point": Point})
    assert wire.decode({"$object": ["Point", [["x", 3]]]}, {"Point": Point}).x == 3


def test_what_an_oracle_returns_is_compared_or_refused() -> None:
    assert comparable({"$opaque": ["re.Match", True]}) == ""
    assert (
        comparable([1, {"$tuple": [{"$opaque": ["builtins.function", True]}]}]) == "a value of type builtins.function"
    )
    assert comparable({"$object": ["Thing", []]}) == "an instance of Thing without fields"
    assert comparable({"$object": ["Thing", [["a", 1]]]}) == ""


def test_arguments_that_the_oracle_changes_count_but_not_where_evalplus_compares() -> None:
    oracle = "def f(rows):\n    rows.sort()\n    return rows\n"
    reference = {"entry_point": "f", "oracle": oracle, "inputs": [[[3, 1, 2]], [[2, 1]]]}
    returns_anew = "def f(rows):\n    return sorted(rows)\n"
    host = get_verifier("code", sandbox="unsafe-host", block="whole")
    assert host.verify(completion=oracle, reference=reference).right
    assert not host.verify(completion=returns_anew, reference=reference).right
    for compare in ("evalplus", "set"):
        as_evalplus = {**reference, "compare": compare}
        assert host.verify(completion=returns_anew, reference=as_evalplus).right
        assert not host.verify(completion="def f(rows):\n    return rows[1:]\n", reference=as_evalplus).right


def flow(source: str, *names: str) -> checks.Flow:
    import ast

    return checks.Flow([ast.parse(source)], names)


def test_which_names_of_the_program_tests_treat_as_classes() -> None:
    assert classes.classes(flow("s = Solution()\nassert abs(s.f(2.0) - 4) < 1", "Solution")) == {"Solution"}
    assert classes.classes(flow("assert abs(Fib(7) - 13) < 1e-9", "Fib")) == set()
    assert classes.classes(flow("r = Solve(3)\nassert 10 in r\nassert r.count(10) == 1", "Solve")) == set()
    assert classes.classes(flow("s = Set2()\ns.add(3)\nassert 3 in s", "Set2")) == {"Set2"}
    assert classes.classes(flow("v = Vec(1) + Vec(2)\nassert v.x == 3", "Vec")) == {"Vec"}
    assert classes.classes(flow("def s():\n    return stack()\ndef test_a(s):\n    s.push(1)", "stack")) == {"stack"}


def test_which_comparisons_mix_a_result_with_a_changed_argument() -> None:
    import ast

    for source, mixes in (
        ("a = [1]\nr = f(a)\nassert r == sorted(a)", True),
        ("a = [1]\nr = f(a)\nwant = sum(a)\nassert abs(r - want) < 1", True),
        ("a = [1]\nk = f(a)\nassert a[:k] == [1]", False),
        ("a = [1]\nf(a)\nassert a == [1, 1]", False),
    ):
        found = flow(source, "f")
        last = ast.parse(source).body[-1]
        assert found.mixes(last) is mixes, source
