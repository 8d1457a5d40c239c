"""The readers of code sets: the rows they accept, the rows they refuse, and the table of the docs."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tasks.base import TaskError
from tasks.code_sets import contests, unpickled
from tasks.code_sets.rows import Row
from tasks.code_sets.sets import REFUSED, SETS, code_set_of, table
from tasks.code_sets.unpickled import unpacked_tests
from tasks.inputs.formats import UnfitRow, format_named, recognise
from tasks.registry import get_task
from verifiers.code.references import KINDS, read_reference

BY_NAME = {one.name: one for one in SETS}
DOCS = Path(__file__).parents[4] / "docs" / "code.md"


def packed(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def with_(name: str, **columns: object) -> Row:
    return {**BY_NAME[name].example, **columns}


def test_the_table_of_the_docs_is_the_table_of_the_code() -> None:
    assert table() in DOCS.read_text(), "write what tasks.code_sets.sets.table() gives into docs/code.md"


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
def test_every_example_is_told_read_and_usable(one: object) -> None:
    from tasks.code_sets.sets import CodeSet

    assert isinstance(one, CodeSet)
    told = code_set_of(one.example)
    assert told is not None
    assert told.name == one.name.removesuffix("_input")
    found = one.read(one.example)
    read_reference(found.reference)
    shaped = format_named(one.name, "problems").read(one.example)
    assert shaped["reference"] == found.reference
    assert shaped["prompt"] == found.prompt
    assert code_set_of(shaped) is None, "a row that has its reference is our own already"


def test_formats_are_recognised_before_looser_ones() -> None:
    for one in SETS:
        if one.by_itself:
            found = recognise([one.example] * 3, use="problems")
            assert found is not None
            assert (found.format.name, found.format.verifier) == (one.name, "code")


def test_a_file_of_raw_rows_is_a_task(tmp_path: Path) -> None:
    rows = [with_("livecodebench", question_id=str(number)) for number in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options: list[dict[str, str]] = [{}, {"format": "livecodebench"}]
    for option in options:
        task = get_task("dataset", path=str(tmp_path / "rows.jsonl"), verifier="code", held_out_share=0, **option)
        problems = task.problems("train")
        assert len(problems) == 12
        assert problems[0].reference == BY_NAME["livecodebench"].read(rows[0]).reference
        assert str(problems[0].prompt).startswith("Read n and print 2n.")


def test_rows_that_cannot_be_graded_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [with_("apps", problem_id=number, **({"input_output": ""} if number % 3 else {})) for number in range(12)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = get_task("dataset", path=str(path), verifier="code", held_out_share=0)
    assert len(task.problems("train")) == 4
    assert "8 of 12 rows are left out: row 1 has no tests: column 'input_output' is empty." in " ".join(task.notes)
    path.write_text((json.dumps(with_("apps", input_output="")) + "\n") * 12)
    with pytest.raises(TaskError, match=r"12 of 12 rows are left out.* None is left"):
        get_task("dataset", path=str(path), verifier="code", held_out_share=0).problems("train")
    path.write_text((json.dumps(with_("apps", input_output="{")) + "\n") * 12)
    with pytest.raises(TaskError, match="no row of format apps: it has no JSON"):
        get_task("dataset", path=str(path), verifier="code", held_out_share=0).problems("train")


@pytest.mark.parametrize("one", REFUSED, ids=lambda one: one.name)
def test_sets_of_many_packages_are_refused_by_name(one: object) -> None:
    from tasks.code_sets.sets import Refused

    assert isinstance(one, Refused)
    row = dict.fromkeys([*one.columns, "prompt", "canonical_solution", "task_id"], "x")
    told = code_set_of(row)
    assert told is one
    with pytest.raises(UnfitRow, match=rf"is one of {one.title}.*verifier_options.image"):
        one.read(row)


class Bomb:
    """An object whose pickle would run code if it may name things."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit",))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (packed(Bomb()), "names builtins.exec; no name is allowed"),
        (packed({"a": Path("x")}), "no name is allowed"),
        (packed(["[]"]), "has a list instead of text"),
        (packed(None), "has a NoneType instead of text"),
        (base64.b64encode(zlib.compress(b"\x80\x04K")).decode(), "pickle"),
        (base64.b64encode(zlib.compress(b"")).decode(), "damaged pickle"),
        (base64.b64encode(b"[]").decode(), "nor base64 of zlib"),
        ("[{'input'", "nor base64 of zlib"),
        ("", "damaged pickle"),
    ],
)
def test_packed_tests_can_run_nothing(value: str, message: str) -> None:
    with pytest.raises(UnfitRow, match=message):
        unpacked_tests(value)


def test_packed_tests_have_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickled, "MOST_BYTES", 1 << 20)
    with pytest.raises(UnfitRow, match="of more than 1 MiB, unpacked"):
        unpacked_tests(packed("x" * (1 << 21)))
    assert unpacked_tests(packed("[]")) == "[]"


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        (with_("codeforces", input_mode="file"), "files", {"input": "input.txt", "output": "output.txt"}),
        (with_("code_contests", input_file="a.in"), "files", {"input": "a.in"}),
        (with_("codeforces", generated_checker="print(1)"), "checker", "print(1)"),
    ],
)
def test_files_and_checkers_are_asked_for_or_the_row_is_left_out(
    monkeypatch: pytest.MonkeyPatch, row: Row, field: str, value: object
) -> None:
    told, cases = code_set_of(row), KINDS["cases"]
    assert told is not None
    monkeypatch.setattr(contests, "KINDS", {"cases": cases | {field}})
    reference = told.read(row).reference
    assert isinstance(reference, dict)
    assert reference[field] == value
    monkeypatch.setattr(contests, "KINDS", {"cases": cases - {field}})
    with pytest.raises(UnfitRow, match="is not supported"):
        told.read(row)


TEST = {"input": "1\n", "output": "2\n", "testtype": "stdin"}
FN = {"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}


@pytest.mark.parametrize(
    ("row", "part"),
    [
        (with_("livecodebench", private_test_cases=packed(json.dumps([TEST]))), {"compare": "decimals"}),
        (
            with_("livecodebench", metadata='{"func_name": "f"}', public_test_cases="[]", private_test_cases=json.dumps(
                [{"input": '[1]\n"a"', "output": "[2]", "testtype": "functional"}])),
            {"calls": [{"args": [[1], "a"], "expected": [2]}], "compare": "outer", "seconds_per_case": 6.0},
        ),
        (with_("apps", input_output=json.dumps(FN)), {"calls": [{"args": [1, 2], "expected": [3]}]}),
        (with_("apps", input_output=FN), {"compare": "wrapped", "imports": "apps"}),
        (
            with_("apps", input_output={"inputs": [[{"1": 2}, 5]], "outputs": [{"3": 4}], "fn_name": "f"}),
            {"calls": [{"args": [{"$dict": [[1, 2]]}, 5], "expected": [{"$dict": [[3, 4]]}]}]},
        ),
        (
            with_("apps", input_output={"inputs": [[{"a": 2}]], "outputs": [{"b": 4}], "fn_name": "f"}),
            {"calls": [{"args": [{"a": 2}], "expected": {"b": 4}}]},
        ),
        (
            with_("taco", input_output={"inputs": [["1", "2"]], "outputs": [["3"]]}),
            {"cases": [{"input": "1\n2", "output": "3"}], "compare": "taco", "seconds_per_case": 4.0},
        ),
        (
            with_("eurus", reward_model={"ground_truth": json.dumps(
                {"inputs": ["1\n[2]"] * 12, "outputs": ["[3]"] * 12, "fn_name": "f"})}),
            {"calls": [{"args": [1, [2]], "expected": [3]}] * 10},
        ),
        (with_("cruxeval", code="def f(): return 1", input="", output="1"), {"input": "", "predict": "output"}),
        (with_("codeforces", time_limit=99.0), {"seconds_per_case": 30.0, "any_case": ["yes", "no"]}),
        (
            with_("synthetic1", verification_info={"language": "python", "test_cases": [
                {"type": "function_call", "fn_name": "f", "input": "[1, 'a']", "output": [True]}]}),
            {"calls": [{"args": [1, "a"], "expected": "[True]"}], "compare": "printed"},
        ),
        (
            with_("humaneval_plus", base_input=None, test="def check(candidate):\n    inputs = [[1, 2], [3, 4]]\n"
                  "    results = [3, 7]\n    for i, o in zip(inputs, results):\n"
                  "        assertion(candidate(*i), o, 0.01)\n"),
            {"inputs": [[1, 2], [3, 4]], "tolerance": {"absolute": 0.01, "relative": 1e-7}},
        ),
    ],
)  # fmt: skip
def test_what_a_row_becomes(row: Mapping[str, object], part: Mapping[str, object]) -> None:
    row = {name: value for name, value in row.items() if value is not None}
    told = code_set_of(row)
    assert told is not None
    reference = told.read(row).reference
    assert isinstance(reference, dict)
    read_reference(reference)
    assert {name: reference.get(name) for name in part} == part


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (with_("livecodebench", public_test_cases="[]", private_test_cases="[]"), "has no test in columns"),
        (with_("livecodebench", public_test_cases='[{"input": 1}]'), "without a text input and a text output"),
        (
            with_("livecodebench", metadata='{"func_name": "f"}', public_test_cases='[{"input": "x", "output": "1"}]'),
            "not JSON, with a line per argument",
        ),
        (with_("apps", input_output="{"), "has no JSON in input_output"),
        (with_("apps", input_output='{"inputs": ["1"], "outputs": []}'), "has no list, or an empty one"),
        (with_("apps", input_output='{"inputs": ["1"], "outputs": ["1", "2"]}'), "has 1 inputs and 2 outputs"),
        (with_("apps", input_output='{"inputs": [3], "outputs": ["1"]}'), "neither text nor a list of lines"),
        (with_("apps", input_output='{"inputs": ["3"], "outputs": [1], "fn_name": "f"}'), "not a list of arguments"),
        (with_("taco", input_output=""), "has no tests"),
        (
            with_("eurus", reward_model={"ground_truth": '{"inputs": [], "outputs": []}'}),
            "has no list, or an empty one",
        ),
        (with_("code_contests", private_tests={}, public_tests={}), "has no case in public_tests"),
        (with_("codeforces", interaction_format="the jury answers"), "is interactive"),
        (with_("codeforces", official_tests=[]), "has no tests"),
        (with_("synthetic1", verification_info={"language": "rust", "test_cases": [1]}), "asks for rust"),
        (with_("acecoder", test_cases=["assert"], question=""), "has no text in column 'question'"),
        (with_("humaneval_plus", canonical_solution=""), "has no text in column 'canonical_solution'"),
        (with_("kodcode", test=" "), "has no text in column 'test'"),
    ],
)
def test_a_row_that_cannot_be_read_says_why(row: Mapping[str, object], message: str) -> None:
    told = code_set_of(row)
    assert told is not None
    with pytest.raises(UnfitRow) as caught:
        told.read(row)
    assert message in str(caught.value)
    assert not str(caught.value).endswith(".")
