"""From a name to a verifier: every kind of name, and the messages for unknown ones."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from verifiers import (
    BadOption,
    Example,
    GradingRow,
    Outcome,
    UnknownVerifier,
    Verdict,
    Verifier,
    from_function,
    get_verifier,
    graded,
    installed,
    registry,
    verifier,
)
from verifiers.registry import BUILTIN, importable_target, load_attribute, option_names, restrict, verifier_class
from verifiers.serve.client import Remote

ONE = """
from verifiers import verifier

@verifier("loud-in-a-file")
def loud(*, completion, reference):
    return completion.isupper()

def plain(completion):
    return 0.5 if completion else 0.0
"""
TWO = (
    ONE
    + """
@verifier("quiet-in-a-file")
def quiet(*, completion, reference):
    return completion.islower()
"""
)
CLASS = """
from verifiers import Outcome, Verifier
from verifiers.verdict import fixed

class Mine(Verifier):
    def __init__(self, *, word: str = "yes", times: int = 1) -> None:
        if times < 1:
            raise ValueError(f"times must be at least 1; got {times}")
        self.word = word * times

    def grade(self, row):
        right = row.completion == self.word
        return fixed(Outcome.CORRECT if right else Outcome.INCORRECT, "as it is")

class Box:
    word = Mine
    number = 3
"""


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo everything that a test registers or restricts."""
    monkeypatch.setattr(registry, "_decorated", dict(registry._decorated))
    monkeypatch.setattr(registry, "_allowed", None)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    broken = {"needs": "import a_package_that_is_not_here.part", "syntax": "def (", "raises": "import sys\n1 / 0"}
    sources = {"one_of": ONE, "two_of": TWO, "class_of": CLASS, "none_of": "x = 1\n", **broken}
    for name, text in sources.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in sources:
        sys.modules.pop(name, None)


def reward(name: str, completion: str, **options: object) -> float | None:
    return get_verifier(name, **options).verify(completion=completion, reference=None).reward  # type: ignore[arg-type]


def test_every_built_in_name_leads_to_a_verifier_of_that_name() -> None:
    for name in BUILTIN:
        cls = verifier_class(name)
        assert issubclass(cls, Verifier), name
        assert cls.name == name
    assert {source.name for source in installed()} >= set(BUILTIN)
    assert installed() == sorted(installed())
    assert {source.origin for source in installed() if source.name in BUILTIN} == {"built in"}


@pytest.mark.parametrize(
    "name",
    ["one_of:loud", "{folder}/one_of.py:loud", "{folder}/one_of.py", "loud-in-a-file"],
    ids=["module", "file and name", "file alone", "registered"],
)
def test_a_function_is_found_by_any_name(files: Path, name: str) -> None:
    importlib.import_module("one_of")
    name = name.format(folder=files)
    assert (reward(name, "HI"), reward(name, "Hi")) == (1.0, 0.0)


def test_a_function_that_nobody_decorated_is_found_where_it_is_named(files: Path) -> None:
    for name in ("one_of:plain", f"{files}/one_of.py:plain"):
        verdict = get_verifier(name).verify(completion="x", reference=None)
        assert (verdict.reward, verdict.verifier) == (0.5, name)


@pytest.mark.parametrize("name", ["class_of:Mine", "class_of:Box.word", "{folder}/class_of.py"])
def test_a_class_is_made_with_its_options(files: Path, name: str) -> None:
    name = name.format(folder=files)
    assert (reward(name, "yes"), reward(name, "no")) == (1.0, 0.0)
    assert reward(name, "nono", word="no", times=2) == 1.0
    assert get_verifier(name).name == name, "a class without a name has the one that led to it"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("exakt", r"no verifier named 'exakt'\. Did you mean 'exact'\? Installed: all-of, .*choice, code,"),
        ("no_module:thing", r"cannot load 'no_module:thing': No module named 'no_module'"),
        ("no_module.part:thing", r"cannot load 'no_module\.part:thing': No module named 'no_module'"),
        ("needs:thing", r"cannot load 'needs:thing': it needs 'a_package_that_is_not_here', which is not installed"),
        ("syntax:thing", r"cannot load 'syntax:thing': "),
        ("class_of:Yours", r"cannot load 'class_of:Yours': .*has no attribute 'Yours'"),
        ("class_of:Box.number", r"class_of:Box\.number must be a Verifier class or a function; got int"),
        ("{folder}/nowhere.py", r"cannot load '.*nowhere\.py': no file "),
        ("{folder}/two_of.py", r"two_of\.py must define exactly one verifier; found loud, quiet\. Name one: .*:NAME"),
        ("{folder}/none_of.py", r"none_of\.py must define exactly one verifier; found none\."),
        ("{folder}/none_of.py:y", r"has no attribute 'y'"),
    ],
)
def test_a_name_that_leads_nowhere_says_why(files: Path, name: str, says: str) -> None:
    with pytest.raises(UnknownVerifier, match=says):
        get_verifier(name.format(folder=files))


def test_a_file_that_fails_is_read_again_and_one_that_does_not_is_read_once(files: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load_attribute(f"{files}/raises.py:x")
    cls = load_attribute(f"{files}/class_of.py:Mine")
    assert load_attribute(f"{files}/class_of.py:Mine") is cls
    (files / "class_of.py").write_text(CLASS.replace('"yes"', '"well"'))
    assert reward(f"{files}/class_of.py:Mine", "well") == 1.0, "a file that was changed"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"word": 3}, r"option 'word': .*string"),
        (
            {"sentence": "x"},
            r"unknown option 'sentence'\. It takes: word, times\.",
        ),
        ({"times": 0}, r"times must be at least 1; got 0\. It takes: word"),
    ],
)
def test_a_wrong_option_says_what_is_taken(files: Path, options: dict[str, object], says: str) -> None:
    with pytest.raises(BadOption, match=rf"verifier 'class_of:Mine': {says}"):
        get_verifier("class_of:Mine", **options)  # type: ignore[arg-type]


def test_options_are_listed_as_they_are_written() -> None:
    def given(a: int, *, b: str | None = None, **rest: object) -> None: ...

    assert option_names(given) == ["a: int", "b: str | None = None"]  # type: ignore[arg-type]
    assert option_names(lambda: None) == ["none"]  # type: ignore[arg-type]


def verdict_of(result: object) -> Verdict:
    cls = from_function(lambda *, completion, reference: result, "mine")  # type: ignore[arg-type, return-value]
    return cls().verify(completion="c", reference=None)


@pytest.mark.parametrize(
    ("result", "outcome", "value"),
    [
        (True, Outcome.CORRECT, 1.0),
        (False, Outcome.INCORRECT, 0.0),
        (1, Outcome.CORRECT, 1.0),
        (0.0, Outcome.INCORRECT, 0.0),
        (0.25, Outcome.PARTIAL, 0.25),
    ],
)
def test_what_a_function_returns_is_a_verdict(result: object, outcome: Outcome, value: float) -> None:
    verdict = verdict_of(result)
    assert (verdict.outcome, verdict.reward, verdict.verifier) == (outcome, value, "mine")
    assert verdict.reason == f"mine returned {result}"


def test_a_function_may_return_a_verdict_and_no_number_outside_0_and_1() -> None:
    own = graded(0.5, "by hand", answer="x")
    verdict = verdict_of(own)
    assert (verdict.reward, verdict.reason, verdict.answer) == (0.5, "by hand", "x")
    for result in (-0.01, 1.01, 2, math.nan):
        with pytest.raises(ValueError, match=r"mine must return a bool, a reward in \[0, 1\] or a Verdict; got"):
            verdict_of(result)


def test_a_function_is_given_what_it_asks_for() -> None:
    seen: list[dict[str, object]] = []

    def some(completion: str, info: dict[str, object]) -> bool:
        seen.append({"completion": completion, "info": info})
        return True

    def all_of_it(**given: object) -> bool:
        seen.append(given)
        return True

    row = {"completion": "c", "reference": [1], "prompt": "p", "info": {"k": 1}}
    for function in (some, all_of_it):
        from_function(function, "f")().grade(GradingRow(**row))  # type: ignore[arg-type]
    assert seen == [{"completion": "c", "info": {"k": 1}}, row]
    with pytest.raises(UnknownVerifier, match=r"f must be a function of completion and, .*; it takes answer\."):
        from_function(lambda answer: True, "f")


def test_a_decorated_verifier_has_its_name_and_examples_in_this_process() -> None:
    example = Example(completion="A", reference=None, outcome=Outcome.CORRECT)

    @verifier("shout", examples=[example])
    def shout(*, completion: str, reference: object) -> bool:
        """Capitals."""
        return completion.isupper()

    @verifier("whisper")
    class Whisper(Verifier):
        examples = (example,)

        def grade(self, row: GradingRow) -> Verdict:
            return graded(float(row.completion.islower()), "")

    assert shout(completion="A", reference=None) is True, "still the function that it was"
    assert (reward("shout", "HI"), reward("whisper", "HI")) == (1.0, 0.0)
    assert verifier_class("shout").examples == (example,)
    assert verifier_class("shout").__doc__ == "Capitals."
    assert (Whisper.name, verifier_class("whisper").examples) == ("whisper", (example,))
    assert {source.name: source.origin for source in installed()}["shout"] == "this process"


def test_another_process_finds_a_decorated_verifier_by_its_module_or_its_file(files: Path) -> None:
    importlib.import_module("one_of")
    assert importable_target("loud-in-a-file") == "one_of:loud"
    load_attribute(f"{files}/two_of.py:quiet")
    assert importable_target("quiet-in-a-file") == f"{files}/two_of.py:quiet"
    assert importable_target("exact") == "exact"


def test_a_url_is_a_verifier_of_a_service() -> None:
    found = get_verifier("http://127.0.0.1:1/math", batch=3)
    assert isinstance(found, Remote)
    assert (found.name, found.batch_rows) == ("http://127.0.0.1:1/math", 3)
    assert verifier_class("https://host/x") is Remote
    with pytest.raises(UnknownVerifier, match="must end in the name of a verifier there"):
        get_verifier("http://127.0.0.1:1")


def test_a_service_serves_the_names_it_is_given_and_no_option_of_its_machine() -> None:
    assert registry.allowed() is None
    assert isinstance(get_verifier("code", sandbox="unsafe-host"), Verifier)
    restrict(["exact", "code"])
    assert registry.allowed() == {"exact", "code"}
    assert isinstance(get_verifier("exact"), Verifier)
    with pytest.raises(UnknownVerifier, match=r"'numeric' is not served here\. Served: code, exact\."):
        get_verifier("numeric")
    with pytest.raises(
        BadOption, match=r"verifier 'code': option 'sandbox' can only be set by the operator of the service"
    ):
        get_verifier("code", sandbox="unsafe-host")
    assert isinstance(get_verifier("code"), Verifier)


def test_a_function_that_wants_what_it_is_not_given_is_refused_before_any_row() -> None:
    with pytest.raises(UnknownVerifier, match=r"it takes completions, kwargs, prompts.*use the verifier `trl`"):
        from_function(lambda prompts, completions, **kwargs: [1.0], "f")
    with pytest.raises(UnknownVerifier, match="it takes completion, weight"):
        from_function(lambda completion, weight: True, "f")
    verdict = from_function(lambda completion, weight=2: weight == 2, "f")().verify(completion="a", reference=None)
    assert verdict.reward == 1.0
