"""Every program of sandbox/forgeries.toml, graded in every way that the code verifier knows."""

from __future__ import annotations

import pytest

from reasoner.cli.forgery import ASKED, HONEST, Forgery, forged, forgeries
from tests.backends import ISOLATED, opened
from verifiers import Verifier, get_verifier

pytestmark = pytest.mark.integration
CORE = 6


@pytest.fixture(scope="module", params=ISOLATED)
def verifier(request: pytest.FixtureRequest) -> Verifier:
    opened(request.param, workers=1).close()
    return get_verifier("code", sandbox=request.param, cpu_seconds=2.0)


@pytest.mark.parametrize("kind", list(ASKED))
def test_an_honest_program_is_correct(verifier: Verifier, kind: str) -> None:
    verdict = verifier.verify(completion=HONEST, reference=ASKED[kind])
    assert verdict.outcome == "correct", verdict


@pytest.mark.parametrize(
    "forgery",
    [
        pytest.param(one, id=one.name, marks=() if n % CORE == 0 else pytest.mark.slow)
        for n, one in enumerate(forgeries())
    ],
)
def test_no_forgery_is_correct(verifier: Verifier, forgery: Forgery) -> None:
    for kind in ASKED:
        assert forged(verifier, forgery, kind) == "", (forgery.name, kind)
