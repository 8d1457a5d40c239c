"""Whose verifier a name leads to, what a service leaves out, and which errors are the caller's."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from verifiers import BadOption, GradingRow, Outcome, UnknownVerifier, Verdict, Verifier, fixed, from_function, registry
from verifiers.errors import BadReference
from verifiers.registry import (
    get_verifier,
    importable_target,
    installed,
    is_plugin,
    leads_elsewhere,
    load_attribute,
    restrict,
    verifier_class,
)


class Own(Verifier):
    machine_options = frozenset({"path"})

    def __init__(self, *, path: str = "", word: str = "", fault: str = "") -> None:
        faults = {"type": TypeError, "value": ValueError, "zero": ZeroDivisionError, "deep": RecursionError}
        if fault in faults:
            raise faults[fault](f"a {fault} fault")
        if fault == "reference":
            raise BadReference("its own word")
        self.word = word

    def grade(self, row: GradingRow) -> Verdict:
        return fixed(Outcome.CORRECT, "why")


class Here(Own):
    in_process = True


OWN = f"{__name__}:Own"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three entry points, nothing decorated, nothing restricted."""
    points = [
        SimpleNamespace(name="named", value=OWN, dist=SimpleNamespace(name="a-package")),
        SimpleNamespace(name="other", value=f"{__name__}:Here", dist=None),
        SimpleNamespace(name="with:colon", value=OWN, dist=None),
    ]
    monkeypatch.setattr(registry, "entry_points_of", lambda group: points if group == "reasoner.verifiers" else [])
    monkeypatch.setattr(registry, "_decorated", {})
    monkeypatch.setattr(registry, "_allowed", None)


def test_an_installed_package_brings_names() -> None:
    assert (verifier_class("named"), verifier_class("other")) == (Own, Here)
    found = {source.name: (source.target, source.origin) for source in installed()}
    assert found["named"] == (OWN, "a-package")
    assert found["other"] == (f"{__name__}:Here", "unknown package")
    with pytest.raises(UnknownVerifier, match=r"no verifier named 'nam'\..*Installed: .*named, "):
        verifier_class("nam")


def test_a_name_with_a_colon_may_be_one_of_the_registrys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._decorated, "own:name", Own)
    names = ("exact", "named", "own:name", "with:colon", "a:b", "a.py", "a.py:b", "http://host/x", "nothing")
    assert [leads_elsewhere(name) for name in names] == [False] * 4 + [True] * 4 + [False]


def test_a_plugin_is_somebody_elses_and_graded_in_a_worker(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from verifiers.compose import AllOf\ndef mine(completion):\n    return 1.0\n")
    own = f"{tmp_path}/own.py"
    assert [is_plugin(name) for name in ("trl", "verl", f"{own}:mine", OWN, "named")] == [True] * 5
    # built in, a service, ours (not even looked for), graded in this process, ours by another's file
    others = ("exact", "https://host/x", "tasks.nowhere:x", "other", f"{own}:AllOf")
    assert [is_plugin(name) for name in others] == [False] * 5


def test_a_service_leaves_out_other_names_and_its_machines_options() -> None:
    assert isinstance(get_verifier(OWN, path="/", word="x"), Own)
    restrict([OWN])
    with pytest.raises(UnknownVerifier, match=f"verifier 'exact' is not served here. Served: {OWN}."):
        get_verifier("exact")
    with pytest.raises(BadOption, match="option 'path' can only be set by the operator of the service"):
        get_verifier(OWN, path="/")
    made = get_verifier(OWN, word="x")
    assert isinstance(made, Own)
    assert made.word == "x"


@pytest.mark.parametrize("fault", ["type", "value", "zero", "deep"])
def test_what_a_constructor_raises_is_an_error_of_its_options(fault: str) -> None:
    with pytest.raises(BadOption, match=rf"^verifier '{OWN}': a {fault} fault\. It takes: path: str = '', word"):
        get_verifier(OWN, fault=fault)


def test_an_error_of_our_own_stays_what_it_is() -> None:
    with pytest.raises(BadReference, match=r"^its own word$"):
        get_verifier(OWN, fault="reference")


def test_a_function_grades_where_it_is_given_more_than_the_completion() -> None:
    async def later(completion: str, reference: object) -> float:
        return 1.0

    made = [
        from_function(function, "f")()
        for function in (
            lambda completion: 1.0,
            lambda completion, reference: 1.0,
            lambda completion, *parts: 1.0,
            lambda **given: 1.0,
            later,
        )
    ]
    assert [one.grades for one in made] == [False, True, True, True, True]
    assert [one.batch_rows for one in made] == [0, 0, 0, 0, 16]
    rows = [GradingRow(completion=text, reference="r") for text in "ab"]
    assert [[verdict.reward for verdict in one.grade_batch(rows)] for one in made] == [[1.0, 1.0]] * 5


def test_only_a_function_of_completions_is_sent_to_the_verifier_of_trl() -> None:
    with pytest.raises(UnknownVerifier, match=r"it takes answer\.$"):
        from_function(lambda answer: True, "f")
    with pytest.raises(UnknownVerifier, match=r"it takes nothing\.$"):
        from_function(lambda: True, "f")
    with pytest.raises(UnknownVerifier, match=r"it takes completions\. For TRL reward functions"):
        from_function(lambda completions: True, "f")


def test_a_class_of_the_program_itself_is_named_by_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Main(Verifier):
        __module__, __qualname__ = "__main__", "Main"

    monkeypatch.setitem(registry._decorated, "main", Main)
    program = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", program)
    assert importable_target("main") == "__main__:Main", "typed in a shell"
    program.__file__ = "/a/program.py"
    assert importable_target("main") == "/a/program.py:Main"
    Main.__module__ = "a_module_that_is_gone"
    assert importable_target("main") == "a_module_that_is_gone:Main"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("from sys import nothing_of_that_name", "cannot load .*cannot import name 'nothing_of_that_name'"),
        ("raise ModuleNotFoundError('somehow')", r"cannot load .*: it needs '\?', which is not installed"),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UnknownVerifier, match=says):
        load_attribute(f"{tmp_path}/own.py:x")


def test_rows_of_a_plain_function_are_graded_one_by_one_and_those_of_an_asynchronous_one_together() -> None:
    calls: list[str] = []

    def plain(*, completion: str) -> bool:
        calls.append(completion)
        if completion == "bad":
            raise BadReference("no reference")
        return True

    given = [GradingRow(completion=text, reference=None) for text in ("a", "bad", "b")]
    found = from_function(plain, "plain")().verify_batch(given)
    assert [verdict.outcome for verdict in found] == [Outcome.CORRECT, Outcome.BAD_REFERENCE, Outcome.CORRECT]
    assert calls == ["a", "bad", "b"], "no row is graded twice because another one has a bad reference"

    waiting = 0
    most = 0

    async def asynchronous(*, completion: str) -> bool:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.01)
        waiting -= 1
        return True

    from_function(asynchronous, "asynchronous")().verify_batch([given[0], given[2]])
    assert most == 2
