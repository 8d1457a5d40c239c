"""The parts of the code verifier that run nothing: references, extraction, encoding, comparison."""

from __future__ import annotations

import importlib.metadata
import json
import time
from pathlib import Path

import jsonschema
import pytest

from sandbox import SandboxUnavailable
from verifiers import BadOption, BadReference, get_verifier
from verifiers.code.answers import extract_program, fenced_blocks, literal_arguments, predicted
from verifiers.code.compare import NOTHING, alike, equal, holds, stand_ins
from verifiers.code.grading import KEPT, Memory
from verifiers.code.guest import wire
from verifiers.code.output import EXACT, OutputRule, read_tolerance, same_output
from verifiers.code.references import SCHEMA, read_reference
from verifiers.code.verifier import program_of
from verifiers.verdict import JSON

CASES = Path(__file__).parents[3] / "cases"


def rows(name: str) -> list[dict[str, JSON]]:
    return [json.loads(line) for line in (CASES / name).read_text().split("\n") if line]


BAD_REFERENCES: list[tuple[JSON, str]] = [
    (None, "must be an object"),
    ({}, "the reference has none of cases"),
    ({"cases": []}, "cases must be a non-empty list"),
    ({"cases": [{"input": "1"}]}, "every case must have input and output"),
    ({"cases": [{"input": 1, "output": "2"}]}, "a text input and a text output"),
    ({"cases": [{"input": "1", "output": "2"}], "speed": "x"}, "may not have 'speed'"),
    ({"entry_point": "f", "calls": []}, "calls must be a non-empty list"),
    ({"entry_point": "f", "calls": [{"args": [1]}]}, "must have an expected value"),
    ({"entry_point": "f g", "calls": [{"expected": 1}]}, "entry_point must be the name"),
    ({"entry_point": "f", "calls": [{"expected": {"$nonsense": 1}}]}, "cannot be read"),
    ({"entry_point": "f", "calls": [{"expected": 1}], "tolerance": -1}, "tolerance must be"),
    ({"entry_point": "f", "oracle": "def f(:", "inputs": [[1]]}, "oracle must be Python source"),
    ({"entry_point": "f", "oracle": "def f(): 1", "inputs": [1]}, "must be a list of arguments"),
    ({"tests": []}, "tests must be a non-empty list"),
    ({"tests": ["assert f(1) =="]}, "a test must be Python source"),
    ({"tests": ["assert f(1) == 1"], "check": "check", "entry_point": "f"}, "must define check"),
    ({"tests": ["def check(c): pass"], "check": "check"}, "entry_point must be"),
    ({"pytest": "def helper(): pass"}, "no test function"),
    ({"code": "def f(): 1", "entry_point": "f", "input": "", "output": "1", "predict": "both"}, "input or output"),
    ({"code": "def f(): 1", "entry_point": "f", "input": "", "output": "1 +", "predict": "input"}, "output must be"),
]


@pytest.mark.parametrize(("reference", "message"), BAD_REFERENCES)
def test_a_bad_reference_says_what_is_wrong(reference: JSON, message: str) -> None:
    with pytest.raises(BadReference) as caught:
        read_reference(reference)
    assert message in str(caught.value)


def test_good_references_are_read_and_match_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(dict(SCHEMA))
    validator = jsonschema.Draft202012Validator(dict(SCHEMA))
    for row in rows("code_references.jsonl"):
        read_reference(row["reference"])
        validator.validate(row["reference"])
    # what only reading the source tells is beyond a schema
    beyond = ("Python source", "must define", "test function", "cannot be read", "output must be")
    for reference, message in BAD_REFERENCES:
        assert validator.is_valid(reference) == any(part in message for part in beyond), reference


def test_a_pytest_file_becomes_one_test_for_each_set_of_parameters() -> None:
    source = (
        "import solution\nimport pytest\nLIMIT = 3\n"
        "@pytest.mark.parametrize(('b', 'a'), [(1, 2), (3, 4)])\ndef test_f(a, b): assert solution.f(a) == b\n"
        "class TestG:\n    def test_g(self): assert solution.g(LIMIT) == 1\n"
    )
    kind, reference = read_reference({"pytest": source})
    assert kind == "tests"
    tests = reference["tests"]
    assert isinstance(tests, list)
    assert [str(test).rpartition("\n")[2] for test in tests] == [
        "test_f(**dict(zip(['b', 'a'], (1, 2))))",
        "test_f(**dict(zip(['b', 'a'], (3, 4))))",
        "TestG().test_g()",
    ]
    assert "f(a) == b" in str(tests[0])
    assert "solution" not in "".join(map(str, tests))
    assert reference["setup"] == "import pytest\nLIMIT = 3"


@pytest.mark.parametrize(
    ("text", "block", "program"),
    [
        ("no code", "last", None),
        ("```python\na\n```\n```python\nb\n```", "last", "b\n"),
        ("```python\na\n```\n```python\nb\n```", "first", "a\n"),
        ("```python\na\n```\nIt prints\n```\n42\n```", "last", "a\n"),
        ("```\na\n```", "last", "a\n"),
        ("```bash\npip install x\n```", "last", None),
        ("<think>```python\nno\n```</think>```py\nyes\n```", "last", "yes\n"),
        ("<think>```python\nno\n```", "last", None),
        ("```python\nx = '''\n~~~\n'''\n", "last", "x = '''\n~~~\n'''\n"),
        ("  ```python\n  a\n    b\n  ```", "last", "a\n  b\n"),
        ("````python\ns = '''\n```\n'''\n````", "last", "s = '''\n```\n'''\n"),
        ("def f(): 1", "whole", "def f(): 1"),
    ],
)
def test_which_block_is_the_program(text: str, block: str, program: str | None) -> None:
    assert extract_program(text, block) == program


def test_a_block_that_only_uses_the_program_is_passed_over() -> None:
    text = "```python\ndef f(x): return x\n```\nFor example:\n```python\nassert f(1) == 1\nx = f(2)\n```"
    assert extract_program(text, "last", {"f", "set"}) == "def f(x): return x\n"
    assert extract_program(text, "first", {"f"}) == "def f(x): return x\n"
    assert extract_program(text, "last", {"g"}) == "assert f(1) == 1\nx = f(2)\n"
    assert extract_program(text + "\nBetter:\n```py\nf = abs\n```", "last", {"f"}) == "f = abs\n"


def test_extraction_is_linear_in_the_text() -> None:
    started = time.process_time()
    assert fenced_blocks("```python\n```\n" * 20_000)
    assert extract_program("```" * 100_000, "last") is None
    assert extract_program("```py\n" + "f" * 300_000 + "\n```", "last", {"f"})
    assert extract_program("```py\nf" + " " * 300_000 + ":" * 300_000 + "\n```", "last", {"f"})
    assert extract_program("<think>" * 50_000 + "```python\nx\n```", "last") is None
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "what", "value"),
    [
        ("so [ANSWER]assert f([1, 2]) == {3}[/ANSWER]", "output", "{3}"),
        ("[ANSWER]1[/ANSWER] no: [ANSWER]2[/ANSWER]", "output", "2"),
        ("[ANSWER]assert f([1, 2]) == {3}[/ANSWER]", "input", "f([1, 2])"),
        ("[ANSWER]'a', 1[/ANSWER]", "input", "f('a', 1)"),
        ("The answer is\n```python\nf(4) == 5\n```", "output", "5"),
        ("It returns\n`'x'`", "output", "'x'"),
        ("[ANSWER]import os[/ANSWER]", "output", None),
        ("", "output", None),
        ("(" * 5000, "output", None),
    ],
)
def test_the_predicted_value(text: str, what: str, value: str | None) -> None:
    assert predicted(text, "f", what) == value


def test_arguments_that_are_no_literals_are_not_evaluated_here() -> None:
    assert literal_arguments("f((1, 2), k={3})") == {"args": [{"$tuple": [1, 2]}], "kwargs": {"k": {"$set": [3]}}}
    assert literal_arguments("f(__import__('os').getpid())") is None
    assert literal_arguments("f(*[1])") is None


VALUES: list[object] = [
    None, True, False, 0, -1, 10**14, -(10**14), 10**15, -(10**40), 0.0, -0.0, 1.5, 1e300, float("inf"), "", "ü\ud800",
    "$x", [], [1, [2.0]], (), (1, (2,)), {"a": 1}, {"$a": 1}, {1: 2, (3,): [4]}, {1, 2}, frozenset({(1,)}), b"\x00\xff",
    1 + 2j, range(0, 10, 3), int, str, list,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_crosses_unchanged(value: object) -> None:
    text = wire.dumps(wire.encode(value))
    back = wire.decode(json.loads(text))
    assert type(back) is type(value)
    assert repr(back) == repr(value)
    assert "\n" not in text


def test_subclasses_cross_as_their_content_and_their_methods_are_not_asked() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "41"

        __hash__ = int.__hash__
        __int__ = __index__ = __str__ = lambda self: 41  # type: ignore[assignment]

    assert wire.encode(Liar(12)) == 12

    class Names(dict):
        def items(self):
            return {"a": 41}.items()

    assert wire.encode(Names(a=1)) == {"a": 1}


HOSTILE: dict[str, JSON] = {
    "deep": json.loads("[" * 200 + "]" * 200),
    "unknown tag": {"$eval": "1"},
    "private attribute as a tag": {"$items": [1]},
    "two tags": {"$int": "1", "$float": "inf"},
    "a huge range": {"$range": [0, 10**12, 1]},
    "a huge integer": {"$int": "f" * 10**6},
    "a decimal bomb": {"$decimal": "1e999999999"},
    "a long fraction": {"$fraction": [{"$int": "f" * 90_000}, 7]},
    "a fraction over zero": {"$fraction": [1, 0]},
    "colliding members": {"$set": [{"$int": format(k * ((1 << 61) - 1), "x")} for k in range(1, 20_000)]},
    "colliding keys": {"$dict": [[{"$int": format(k * ((1 << 61) - 1), "x")}, 1] for k in range(1, 20_000)]},
    "an unhashable member": {"$set": [[1]]},
    "no list": {"$tuple": 4},
    "a class of nobody's": {"$object": ["Popen", [["args", "id"]]]},
    "no class": {"$type": "os.system"},
    "a handle to nothing": {"$handle": 1},
    "an opaque thing": {"$opaque": ["x", True]},
    "half a dict": {"$dict": [[1]]},
    "no float": {"$float": "1"},
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_values_are_refused_at_once(name: str) -> None:
    started = time.process_time()
    with pytest.raises(wire.CannotCross):
        wire.decode(HOSTILE[name])
    assert time.process_time() - started < 5


def case(op: str, expected: object = None, *, views: JSON = None, extra: object = None) -> dict[str, JSON]:
    return {"op": op, "views": views or [], "expected": wire.encode(expected), "extra": wire.encode(extra)}


@pytest.mark.parametrize(
    ("given", "value", "true"),
    [
        (case("eq", 1), True, True),  # as == has it between plain values
        (case("eq", 1), 1.0, True),
        (case("eq", [1]), (1,), False),
        (case("eq", {"a": 1, "b": 2}), {"b": 2, "a": 1}, True),
        (case("eq", float("nan")), float("nan"), False),
        (case("ne", 1), 2, True),
        (case("lt", 3), "2", False),
        (case("le", 3), 3, True),
        (case("in", [1, 2]), 2, True),
        (case("not_in", [1, 2]), 3, True),
        (case("is", None), None, True),
        (case("is", True), 1, False),
        (case("is_not", None), 0, True),
        (case("true"), [0], True),
        (case("true"), [], False),
        (case("false"), 0, True),
        (case("eq", {1, 2}, views=[["set"]]), [2, 1, 1], True),
        (case("eq", 3, views=[["len"]]), range(3), True),
        (case("eq", [1, 2], views=[["list"], ["sorted"]]), (2, 1), True),
        (case("eq", 1.23, views=[["round", 2]]), 1.2345, True),
        (case("within", 2.0, extra=0.1), 2.05, True),
        (case("closer", 2.0, extra=0.1), float("nan"), False),
        (case("isclose", 100.0, extra={"rel_tol": 0.01}), 100.5, True),
        (case("isclose", 100.0, extra={}), "100", False),
    ],
)
def test_a_case_holds_by_the_rules_of_plain_values(given: dict[str, JSON], value: object, true: bool) -> None:
    assert holds(given, {"value": wire.encode(value)}, {}) is true


def test_nothing_but_a_value_satisfies_a_case() -> None:
    for reply in (None, {}, {"raised": "ValueError"}, {"ok": True}, {"value": {"$opaque": ["x", True]}}):
        for op in ("eq", "ne", "lt", "ge", "in", "not_in", "is", "is_not"):
            assert not holds(case(op, []), reply, {}), (op, reply)
    assert holds(case("true"), {"value": {"$opaque": ["re.Match", True]}}, {})
    assert not holds(case("true"), {"value": {"$opaque": ["re.Match", 1]}}, {})
    assert holds(case("raises", "ValueError"), {"raised": "UnicodeError"}, {})
    for raised in ("TypeError", "SystemExit", "print", "", None, ["ValueError"]):
        assert not holds(case("raises", "ValueError"), {"raised": raised}, {})
    assert not holds(case("raises", "ValueError"), {"raised": "ValueError", "value": 1}, {})


def test_instances_are_equal_where_their_fields_are() -> None:
    known = stand_ins(["Pair", "Other"])
    expected = {"$object": ["Pair", [["a", 1], ["b", [2]]]]}
    given = {**case("eq"), "expected": expected}
    assert holds(given, {"value": {"$object": ["Pair", [["b", [2]], ["a", 1]]]}}, known)
    assert not holds(given, {"value": {"$object": ["Pair", [["a", 1]]]}}, known)
    assert not holds(given, {"value": {"$object": ["Other", [["a", 1], ["b", [2]]]]}}, known)
    assert not holds(given, {"value": {"$object": ["Pair", [["__class__", 1]]]}}, known)


def test_tolerance_and_sequences() -> None:
    assert equal(1.0000001, 1.0, tolerance=read_tolerance(1e-6))
    assert not equal(1.0000001, 1.0)
    assert not equal(1000000.5, 1000000, tolerance=read_tolerance(1e-6))  # an integer is exact
    assert not equal(True, 1.0000001, tolerance=read_tolerance(1e-6))
    assert equal({"$tuple": [1, {"$tuple": []}]}, [1, []], sequences_alike=True)
    assert not equal({"$tuple": [1]}, [1])
    assert not equal([1], {"$tuple": [1]}, sequences_alike=True)
    assert equal({"a": [0.1 + 0.2]}, {"a": [0.3]}, tolerance=read_tolerance(1e-9))
    assert not equal(NOTHING, NOTHING)
    assert alike({"$opaque": ["re.Match", True]}, {"$opaque": ["re.Match", True]}, tolerance=EXACT)
    assert not alike(None, {"$opaque": ["re.Match", True]}, tolerance=EXACT)
    assert not alike(NOTHING, {"$opaque": ["re.Match", False]}, tolerance=EXACT)


@pytest.mark.parametrize(
    ("got", "expected", "mode", "tolerance", "true"),
    [
        ("1\n2\n", "1\n2", "lines", 0, True),
        ("1 \n2\n\n\n", "1\n2", "lines", 0, True),
        ("1 2", "1\n2", "tokens", 0, False),
        ("1  2", "1 2", "tokens", 0, True),
        ("1  2", "1 2", "lines", 0, False),
        ("\n1", "1", "lines", 0, False),
        ("", "1", "tokens", 1.0, False),
        ("1", "", "lines", 0, False),
        ("", "\n", "lines", 0, True),
        ("", "\n", "exact", 0, False),
        ("0.3333333", "0.33333333333", "lines", 1e-6, True),
        ("1000000.1", "1000000", "lines", 1e-3, False),  # an integer is exact
        ("nan", "1.0", "tokens", 1e-6, False),
        ("inf", "1e400", "tokens", 1e-6, False),
        ("1_0.0", "10.0", "tokens", 1e-6, False),
        ("x 1.0", "y 1.0", "tokens", 1e-6, False),
        ("yes", "YES", "tokens", 0, False),
    ],
)
def test_printed_output(got: str, expected: str, mode: str, tolerance: float, true: bool) -> None:
    assert same_output(got, expected, OutputRule(mode, read_tolerance(tolerance))) is true


def test_a_completion_goes_on_with_its_prompt_or_stands_by_itself() -> None:
    reference: dict[str, JSON] = {"entry_point": "f", "prelude": "import math\n\ndef f(x):\n"}
    assert program_of("    return x\n", reference) == ("", "import math\n\ndef f(x):\n    return x\n")
    whole = program_of("from __future__ import annotations\ndef f(x): return x\n", reference)
    assert whole.code.startswith("from __future__")
    assert whole.prelude == "import math\n\ndef f(x):\n\n    pass\n"
    assert program_of("f = lambda x: x", reference).prelude
    assert program_of("def g(x): return x", {"entry_point": "f"}) == ("", "def g(x): return x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sandbox": "host"}, "sandbox must be one of auto, docker, bubblewrap, unsafe-host; got 'host'"),
        ({"reward": "half"}, "reward must be one of pass, fraction"),
        ({"cpu_seconds": 0}, "cpu_seconds must be above 0"),
        ({"memory_mb": 8}, "memory_mb must be from 32 to 1024"),
        ({"tolerance": -1.0}, "tolerance must be at least 0"),
        ({"blok": "last"}, "unknown option 'blok'"),
    ],
)
def test_bad_options_say_what_to_do(options: dict[str, JSON], message: str) -> None:
    with pytest.raises(BadOption) as caught:
        get_verifier("code", **options)
    assert message in str(caught.value)


def test_a_missing_engine_is_an_error_when_the_verifier_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from verifiers.code import sandboxes

    monkeypatch.setattr(sandboxes, "_checked_backends", set())
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    for backend, names in (("docker", ["apt-get install docker.io"]), ("auto", ["docker: ", "bubblewrap: "])):
        with pytest.raises(SandboxUnavailable) as caught:
            get_verifier("code", sandbox=backend)
        assert all(name in str(caught.value) for name in names)


def test_what_is_remembered_is_bounded() -> None:
    memory: Memory[int] = Memory()
    for number in range(KEPT + 10):
        memory.put(str(number), value=number)
    assert memory.peek("0") is None
    assert memory.peek(str(KEPT)) == KEPT
    for number in range(5):
        memory.put("x" * 10_000_000 + str(number), value=number)
    assert memory.peek(str(KEPT)) is None
    assert memory.get("made", make=lambda: 7) == 7


TEST_FILE: JSON = {"pytest": "from solution import f\n\ndef test_f(tmp_path):\n    r = f(2)\n    assert r == 4\n"}
UNITTEST: JSON = {
    "tests": ["import unittest\nclass T(unittest.TestCase):\n    def test_f(self):\n        self.assertEqual(f(2), 4)"]
}


@pytest.mark.parametrize("reference", [TEST_FILE, UNITTEST], ids=["pytest", "unittest"])
def test_a_test_file_without_pytest_is_told_when_it_is_loaded(monkeypatch: pytest.MonkeyPatch, reference: JSON) -> None:
    verifier = get_verifier("code", sandbox="unsafe-host")
    verifier.check_reference(reference)

    def without(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without)
    with pytest.raises(SandboxUnavailable, match=r"pip install 'reasoner-rl\[code\]'"):
        verifier.check_reference(reference)
    verifier.check_reference({"tests": ["assert f(2) == 4"]})
    with pytest.raises(BadReference):
        verifier.check_reference({"pytest": "x = 1"})


def test_an_image_brings_its_own_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifiers.code.verifier.require", lambda backend: None)
    monkeypatch.setattr("verifiers.code.verifier.require_pytest", lambda: pytest.fail("asked"))
    get_verifier("code", sandbox="docker", image="mine").check_reference(TEST_FILE)
