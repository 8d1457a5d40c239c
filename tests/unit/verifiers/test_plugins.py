"""Ways to a verifier: names, files, decorated functions, URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.verifiers.kit.test_files import run
from verifiers import BadOption, UnknownVerifier, get_verifier

PLUGIN = '''
from verifiers import Example, Outcome, Verifier, fixed, verifier

@verifier("%s", examples=[Example(completion="HI", reference=None)])
def shout(*, completion, reference):
    """All letters are capitals."""
    return completion.isupper()
'''


TWO = '''
from verifiers import Outcome, Verifier, fixed

class One(Verifier):
    """Always right, for an option."""

    def __init__(self, *, times: int):
        self.times = times

    def grade(self, row):
        return fixed(Outcome.CORRECT, "yes")

class Two(One):
    pass

def half(completion, **rest):
    return 0.5 if "prompt" in rest else 0.0

def wild(completion):
    return 7.0
'''


def test_ways_to_a_verifier(tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text(PLUGIN % "shout-for-this-test")
    (tmp_path / "two.py").write_text(TWO)
    alone = get_verifier(f"{tmp_path}/shout.py")
    assert alone.verify(completion="HI", reference=None).reward == 1
    assert get_verifier(f"{tmp_path}/shout.py:shout").verify(completion="hi", reference=None).reward == 0
    assert get_verifier("shout-for-this-test").examples
    assert get_verifier(f"{tmp_path}/two.py:One", times=2).verify(completion="", reference=1).reward == 1
    assert get_verifier(f"{tmp_path}/two.py:half").verify(completion="", reference=1).reward == 0.5
    with pytest.raises(ValueError, match=r"reward in \[0, 1\]"):
        get_verifier(f"{tmp_path}/two.py:wild").verify(completion="", reference=1)
    with pytest.raises(UnknownVerifier, match="exactly one verifier; found One, Two"):
        get_verifier(f"{tmp_path}/two.py")
    with pytest.raises(BadOption, match="unknown option 'time'"):
        get_verifier(f"{tmp_path}/two.py:One", time=2)
    with pytest.raises(UnknownVerifier, match="no file"):
        get_verifier(f"{tmp_path}/three.py:One")
    (tmp_path / "needs.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(UnknownVerifier, match="needs 'a_package_that_is_not_there', which is not installed"):
        get_verifier(f"{tmp_path}/needs.py:x")
    (tmp_path / "broken.py").write_text("def (\n")
    with pytest.raises(UnknownVerifier, match="invalid syntax"):
        get_verifier(f"{tmp_path}/broken.py:x")
    assert run("--verifier", f"{tmp_path}/shout.py", "--gold", "1", "--completion", "HI")[0] == 0


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.1:1", UnknownVerifier),
        ("http://user:secret@127.0.0.1:1/math", BadOption),
        ("http:///math", BadOption),
    ],
)
def test_urls_that_name_no_verifier(url: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        get_verifier(url)
