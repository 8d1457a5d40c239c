"""The conformance kit accepts sound verifiers, and finds each fault that a verifier can have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.verifiers.scripted_judge import Body, ScriptedJudge, Sent, data_of, level
from verifiers import JSON, GradingRow, Outcome, get_verifier
from verifiers.kit.conformance import Report, check_verifier
from verifiers.pool import GradingPool
from verifiers.registry import BUILTIN

pytestmark = pytest.mark.integration
CARELESS = f"{Path(__file__).parents[1] / 'unit' / 'verifiers' / 'careless.py'}"


GRADES = ["choice", "instructions", "json_schema", "logic", "numeric"]
ALSO = sorted(set(BUILTIN) - {*GRADES, "code", "judge", "jury", "reasoning-gym"})
"""Names of the other verifiers, without those that need a sandbox, a model, or a missing package: they are tested
below.
"""


@pytest.mark.parametrize("name", GRADES)
def test_the_kit_accepts_built_in_verifiers(name: str) -> None:
    report = check_verifier(name)
    assert not report.failures, report.failures
    assert {attempt.trick for attempt in report.attempts} >= {
        "restates the question",
        "lists every answer",
        "an empty box",
        "trust me",
        "prompt injection",
    }
    assert max(attempt.reward or 0 for attempt in report.attempts) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ALSO)
def test_every_built_in_verifier_passes_by_examples_of_its_own(name: str) -> None:
    whole(check_verifier(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["code", "judge", "jury"])
def test_those_that_need_a_sandbox_or_a_model_pass_where_there_is_one(name: str) -> None:
    with ScriptedJudge(honest) as judge:
        asked: dict[str, JSON] = {"url": judge.url, "model": "judge"}
        other: dict[str, JSON] = {"verifier": "judge", "options": asked, "name": "other"}
        options: dict[str, dict[str, JSON] | None] = {
            "judge": asked,
            "jury": {"judges": [{"verifier": "judge", "options": asked}, other]},
        }
        whole(check_verifier(name, options=options.get(name)))


def test_a_verifier_whose_parts_are_graded_apart_says_the_same_in_a_pool() -> None:
    """Its version, and a reference that it cannot use, or that a part's key is not in."""
    with ScriptedJudge(honest) as judge, GradingPool(workers=1) as pool:
        asked: dict[str, JSON] = {"verifier": "judge", "options": {"url": judge.url, "model": "judge"}}
        for name, options in (
            ("jury", {"judges": [asked, {**asked, "name": "other"}]}),
            ("weighted", {"parts": [{**asked, "reference": "judged"}, {"verifier": "exact", "reference": "answer"}]}),
        ):
            made = get_verifier(name, **options)  # pyright: ignore[reportArgumentType]
            rows = [example.row for example in get_verifier("judge", url=judge.url, model="judge").examples]
            rows += [GradingRow(completion="#### 1", reference=reference) for reference in (0, None, {"judged": 1}, "")]
            for row in rows:
                alone, pooled = (
                    made.verify_batch([row])[0],
                    pool.submit(name, options, row).result(),  # pyright: ignore[reportArgumentType]
                )
                assert (pooled.outcome, pooled.version) == (alone.outcome, alone.version)
                assert pooled.outcome is not Outcome.VERIFIER_ERROR


def honest(body: Body, number: int) -> Sent:
    """Return the level that the completion gives Paris, whatever else it says."""
    said = data_of(body)
    return level(body, 3 if said == "The capital of France is Paris." else 1)


def whole(report: Report) -> None:
    """Nothing failed, and only checks that do not apply to shaping were skipped."""
    assert not report.failures, report.failures
    skipped = [finding for finding in report.findings if finding.passed is None]
    assert all(finding.detail.startswith("only shapes the reward") for finding in skipped), skipped


def test_a_check_over_nothing_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text("def bare(completion, reference):\n    return completion == reference\n")
    report = check_verifier(f"{tmp_path / 'bare.py'}:bare")
    results = {finding.check: finding.result for finding in report.findings}
    assert results["carries examples"] == "FAIL"
    assert results["accepts right examples and rejects wrong ones"] == "skipped"
    assert results["gives the same verdicts again, in another process and order"] == "skipped"
    assert results["grades a batch like its rows one by one"] == "skipped"
    assert results["rewards no trick"] == "skipped"
    assert results["rejects completions that are not text"] == "ok"
    assert not report.to_json()["passed"]
    assert len(report.failures) == 1


def test_examples_of_other_options_do_not_count() -> None:
    report = check_verifier("format", options={"tags": ["work"]})
    (missing,) = report.failures
    assert "labelled for other options" in missing.detail


@pytest.mark.parametrize(
    ("name", "check", "said"),
    [
        ("Unlabelled", "carries examples", "0 right, 0 wrong"),
        ("Wrong", "accepts right examples", "is incorrect, not correct"),
        ("Moody", "gives the same verdicts", "then"),
        ("Forgetful", "gives the same verdicts", "then"),
        ("Fragile", "never raises", "ValueError"),
        ("Picky", "uses any reference or raises", "TypeError"),
        ("Slow", "never raises", "longer than 1 s"),
        ("Gullible", "rewards no trick", "lists every answer"),
        ("Trusting", "rewards no trick", "trust me"),
        ("Uneven", "grades a batch like its rows one by one", "in a batch"),
        ("Raising", "grades a batch like its rows one by one", "raises TypeError: no such argument"),
    ],
)
def test_the_kit_finds(name: str, check: str, said: str) -> None:
    report = check_verifier(f"{CARELESS}:{name}")
    found = [finding for finding in report.failures if finding.check.startswith(check)]
    assert found, report.findings
    assert said in found[0].detail


def test_check_prints_what_each_trick_got_and_exits_1() -> None:
    command = [
        sys.executable,
        "-c",
        "from reasoner.cli import main; main()",
        "verifiers",
        "check",
        f"{CARELESS}:Trusting",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "FAIL     rewards no trick" in done.stdout
    assert "    1  correct        trust me\n" in done.stdout
