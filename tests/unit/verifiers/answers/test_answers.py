"""The built-in verifiers of answers: near misses, odd references, hostile text."""

from __future__ import annotations

import pytest

from verifiers import get_verifier
from verifiers.kit.conformance import check_verifier
from verifiers.registry import verifier_class

OWN = "choice countdown exact format json_schema length logic numeric regex repetition".split()


@pytest.mark.parametrize("name", OWN)
def test_examples_of_every_built_in_verifier_are_graded_as_labelled(name: str) -> None:
    cls = verifier_class(name)
    made = get_verifier(name, **cls.example_options)
    assert made.examples
    for example in made.examples:
        verdict = made.verify_batch([example.row])[0]
        assert verdict.outcome is example.outcome, (example, verdict)


@pytest.mark.parametrize("name", ["length", "format"])
def test_the_kit_accepts_built_in_verifiers(name: str) -> None:
    report = check_verifier(name)
    assert not report.failures, report.failures
