"""Programs that try to look as if their tests had passed, graded by the code verifier in each of its ways."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verifiers import JSON, Verifier

_SUMS = ((1, 2, 3), (-1, 1, 0), (2, 5, 7))
ASKED: Mapping[str, JSON] = {
    "calls": {"entry_point": "add", "calls": [{"args": [a, b], "expected": c} for a, b, c in _SUMS]},
    "assertions": {"tests": [f"assert add({a}, {b}) == {c}" for a, b, c in _SUMS]},
    "check": {
        "tests": ["def check(candidate):\n" + "".join(f"    assert candidate({a}, {b}) == {c}\n" for a, b, c in _SUMS)],
        "check": "check",
        "entry_point": "add",
    },
    "loop": {"tests": [f"for a, b, c in {_SUMS!r}:\n    got = add(a, b)\n    assert got == c and type(got) is int"]},
    "pytest": {"pytest": "def test_add():\n" + "".join(f"    assert add({a}, {b}) == {c}\n" for a, b, c in _SUMS)},
    "output": {"cases": [{"input": f"{a} {b}\n", "output": f"{c}\n"} for a, b, c in _SUMS]},
}
"""References for one function, one for each kind of the code verifier."""
HONEST = (
    "```python\ndef add(a, b):\n    return a + b\n\nif __name__ == '__main__':\n"
    "    print(add(*map(int, input().split())))\n```"
)
HELD = frozenset({"incorrect", "no_answer", "limit_exceeded", "partial"})


@dataclass(frozen=True, slots=True)
class Forgery:
    """A program that tries to look as if its tests had passed."""

    name: str
    code: str


@cache
def forgeries() -> tuple[Forgery, ...]:
    """Return all forgeries of the manifest."""
    text = (resources.files("sandbox") / "forgeries.toml").read_text()
    return tuple(Forgery(entry["name"], entry["code"]) for entry in tomllib.loads(text)["forgery"])


def forged(verifier: Verifier, forgery: Forgery, kind: str) -> str:
    """Return "" if the verdict is that of a program that computes nothing; otherwise a text with the verdict."""
    verdict = verifier.verify(completion=f"```python\n{forgery.code}\n```", reference=ASKED[kind])
    if verdict.outcome in HELD and (verdict.reward or 0.0) < 1.0:
        return ""
    return f"{kind}: {verdict.outcome}: {verdict.detail}"
