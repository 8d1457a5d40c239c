"""Programs in other languages than Python, and checkers, in the real sandboxes with toolchains of Debian packages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox import SandboxError
from sandbox.image import ensure_root
from tests.backends import ISOLATED
from verifiers import Verifier, get_verifier
from verifiers.code.languages import LANGUAGES
from verifiers.errors import VerifierError
from verifiers.verdict import JSON

pytestmark = pytest.mark.integration
CASES = Path(__file__).parents[1] / "cases"
QUICK = frozenset(
    {
        "another right answer",
        "a wrong answer",
        "a checker that always fails",
        "files",
        "files, one is left of an earlier run",
    }
)


def rows(name: str) -> list[dict[str, JSON]]:
    return [json.loads(line) for line in (CASES / name).read_text().split("\n") if line]


def opened(backend: str, **options: JSON) -> Verifier:
    """Return a verifier, or skip the test and say what is missing."""
    try:
        return get_verifier("code", sandbox=backend, **options)  # type: ignore[arg-type]
    except (SandboxError, VerifierError) as error:
        pytest.skip(str(error))


def with_programs(backend: str, language: str, **options: JSON) -> Verifier:
    """Return a verifier with a language's toolchain, which has to be downloaded once."""
    try:
        ensure_root((), LANGUAGES[language].system)
    except SandboxError as error:
        pytest.skip(str(error))
    return opened(backend, language=language, **options)


def check(verifier: Verifier, row: dict[str, JSON]) -> None:
    verdict = verifier.verify(completion=str(row["completion"]), reference=row["reference"])
    assert verdict.outcome in str(row["outcome"]).split("|"), verdict
    assert str(row["says"]) in verdict.reason


@pytest.mark.parametrize("backend", ISOLATED)
def test_checkers_and_files_in_python(backend: str) -> None:
    verifier = opened(backend)
    for row in rows("code_checkers.jsonl"):
        if str(row["id"]) in QUICK:
            check(verifier, row)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ISOLATED)
def test_checkers_and_files(backend: str) -> None:
    with_programs(backend, "cpp")
    verifier = opened(backend, system=["g++"])
    for row in rows("code_checkers.jsonl"):
        check(verifier, row)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ISOLATED)
def test_programs_in_cpp(backend: str) -> None:
    verifier = with_programs(backend, "cpp", cpu_seconds=1.5, memory_mb=256)
    for row in rows("code_languages.jsonl"):
        check(verifier, row)


PROGRAMS = rows("code_four_programs.jsonl")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ISOLATED)
@pytest.mark.parametrize("language", sorted({str(row["language"]) for row in PROGRAMS}))
def test_a_right_a_wrong_a_broken_and_an_endless_program(backend: str, language: str) -> None:
    verifier = with_programs(backend, language, cpu_seconds=2.0)
    for row in PROGRAMS:
        if row["language"] == language:
            check(verifier, row)
