"""Composed rewards: the deciding part says whether a completion is right, and a part that outweighs it is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reasoner.observe.analysis.audit import audit_findings, audited
from reasoner.observe.explain import Level, findings
from reasoner.storage.history import History
from tests.unit.reasoner.runs import make_history, make_records
from verifiers import Outcome, Verdict

Part = Callable[[np.random.Generator], float]


def chance(share: float) -> Part:
    return lambda rng: float(rng.random() < share)


def composed(
    weights: dict[str, float], *, accuracy: Callable[[int], float] = lambda step: 0.3 + 0.03 * step, own: str = "exact",
    steps: int = 12, **parts: Part,
) -> Callable[..., History]:  # fmt: skip
    """Make a run whose reward is the weighted sum of `own`, which decides, and other parts drawn at random."""

    def add(row: dict, rng: np.random.Generator) -> None:
        mark = row["verdict"]["reward"]
        values = {own: mark, **{name: part(rng) for name, part in parts.items()}}
        verdict = Verdict(
            outcome=Outcome.CORRECT if mark else Outcome.INCORRECT,
            reward=sum(weights[name] * value for name, value in values.items()),
            answer=row["verdict"]["answer"],
            components=values,
            weights=weights,
            decided_by=own,
            verifier="weighted",
        )
        specs = [{"verifier": own if name == own else "length", "name": name} for name in values]
        row |= {"verifier": "weighted", "verifier_options": {"parts": specs}, "verdict": verdict.to_json()}
        row |= {"components": values, "reward": verdict.reward}

    made = make_records(accuracy=accuracy, change=add, steps=steps)
    return lambda **config: make_history(made, **config)


HEALTHY = {
    "1 + 1": composed({"exact": 1.0, "format": 1.0}, format=chance(0.9)),
    "1 + 0.2 + 0.1": composed(
        {"math": 1.0, "format": 0.2, "fresh": 0.1}, own="math", format=chance(0.8), fresh=chance(1)
    ),
    "1 + brevity 0.1": composed({"exact": 1.0, "brevity": 0.1}, brevity=lambda rng: rng.random()),
    "1 + brevity 1": composed({"exact": 1.0, "brevity": 1.0}, brevity=lambda rng: rng.random()),
    "1 - 0.5": composed({"exact": 1.0, "long": -0.5}, long=chance(0.3)),
    "full format, nearly solved": composed(
        {"exact": 1.0, "format": 1.0}, format=chance(1), accuracy=lambda step: min(1.0, 0.5 + step / 30), steps=24
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_of_composed_rewards_raise_no_alarm(name: str) -> None:
    history = HEALTHY[name]()
    done = audited(history, sample=40)
    found = [*findings(history), *audit_findings(done)]
    assert [finding.code for finding in found if finding.level is not Level.NOTE] == []
    assert len(done) == 40, "right answers are audited, whatever else is rewarded"
    assert {item.verdict.verifier for item in done} == {"exact" if "math" in history.rows[0].components else "math"}


def test_the_faults_of_a_verifier_are_seen_through_what_else_is_rewarded() -> None:
    def accept(row: dict, rng: np.random.Generator) -> None:
        row["verdict"]["reward"], row["verdict"]["outcome"] = 1.0, "correct"

    made = make_records(change=accept)
    for row in made.rollouts:
        parts = {"exact": 1.0, "format": 1.0}
        row["verdict"] |= {"reward": 2.0, "components": parts, "weights": parts, "decided_by": "exact"}
        row |= {"components": parts, "reward": 2.0}
    assert "wrong-answer-accepted" in [finding.code for finding in findings(make_history(made))]


def test_right_answers_whose_rewards_differ_are_no_lack_of_signal() -> None:
    def always(step: int) -> float:
        return 1.0

    differing = composed({"exact": 1.0, "brevity": 1.0}, brevity=lambda rng: rng.random(), accuracy=always)()
    (said,) = [finding for finding in findings(differing) if finding.code == "all-right"]
    assert said.level is Level.NOTE
    assert "no gradient" not in " ".join(said.evidence)
    equal = composed({"exact": 1.0, "format": 1.0}, format=chance(1), accuracy=always)()
    assert findings(equal)[0].code == "all-right"
    assert findings(equal)[0].level is Level.WARNING


def test_wrong_answers_in_the_right_format_are_all_wrong() -> None:
    history = composed({"exact": 1.0, "format": 1.0}, format=chance(0.5), accuracy=lambda step: 0.0)()
    first = findings(history)[0]
    assert (first.code, first.level) == ("all-wrong", Level.WARNING)
    assert "their rewards still differ" in first.evidence[0]
    alone = findings(composed({"exact": 1.0, "format": 1.0}, format=chance(1), accuracy=lambda step: 0.0)())[0]
    assert "without differing rewards" in alone.evidence[0]


@pytest.mark.parametrize("rows", ["steps", "rows"])
def test_old_records_without_the_deciding_part_lack_no_signal_either(rows: str) -> None:
    history = composed({"exact": 1.0, "brevity": 10.0}, brevity=lambda rng: rng.random())()
    for row in history.rows:
        row.outcome, row.decided_by, row.weights = "scored", None, {}
    if rows == "rows":
        history.metrics = []
    else:
        history.metrics = [{**line, "groups/all_right": 1.0, "groups/all_wrong": 0.0} for line in history.metrics]
    assert "all-right" not in [finding.code for finding in findings(history) if finding.level is not Level.NOTE]


def test_a_part_that_outweighs_the_right_answer_is_named() -> None:
    heavy = composed(
        {"exact": 1.0, "brevity": 10.0, "format": 1.0}, brevity=lambda rng: rng.random(), format=chance(0.9)
    )
    first = findings(heavy())[0]
    assert (first.code, first.level) == ("component-outweighs-answer", Level.WARNING)
    assert "'brevity'" in first.title
    assert "weight 10 against 1 of 'exact'" in " ".join(first.evidence)
    codes = [finding.code for finding in findings(heavy(algorithm={"normalize_components": True}))]
    assert "component-outweighs-answer" in codes, "normalized, it still counts ten times"
    light = composed({"exact": 1.0, "brevity": 1.0}, brevity=lambda rng: 50 * rng.random())
    assert "component-outweighs-answer" in [finding.code for finding in findings(light())]
    normalized = findings(light(algorithm={"normalize_components": True}))
    assert "component-outweighs-answer" not in [finding.code for finding in normalized]


def test_a_part_that_rises_alone_is_named_unless_it_is_the_right_answer() -> None:
    def run(accuracy: Callable[[int], float], rises: float) -> list[str]:
        calls = iter(range(10_000))

        def part(rng: np.random.Generator) -> float:
            return float(rng.random() < 0.2 + rises * (next(calls) // 48) / 24)

        history = composed({"exact": 1.0, "format": 0.5}, format=part, accuracy=accuracy, steps=24)()
        return [finding.code for finding in findings(history) if finding.level is not Level.NOTE]

    assert run(lambda step: 0.5, 0.7) == ["one-component-dominates"]
    assert run(lambda step: 0.2 + 0.025 * step, 0.0) == []
    assert run(lambda step: 0.2 + 0.025 * step, 0.7) == []


def test_a_function_that_gives_more_than_one_is_told_of_its_full_marks() -> None:
    def doubled(row: dict, rng: np.random.Generator) -> None:
        row |= {"verifier": "trl", "reward": 2 * row["reward"]}
        outcome = "scored" if row["reward"] else "incorrect"
        row["verdict"] |= {"outcome": outcome, "reward": row["reward"], "verifier": "trl"}

    found = {finding.code: finding for finding in findings(make_history(make_records(change=doubled)))}
    assert "full=2 " in found["no-full-marks"].change

    def learned(row: dict, rng: np.random.Generator) -> None:
        doubled(row, rng)
        row["verifier"] = "reward-model"

    assert "no-full-marks" not in [finding.code for finding in findings(make_history(make_records(change=learned)))]


def test_right_answers_that_become_fewer_are_told_though_the_reward_stays_up() -> None:
    def falls(step: int) -> float:
        return max(0.05, 0.6 - 0.025 * step)

    kept_up = composed({"exact": 1.0, "format": 3.0}, format=chance(1.0), accuracy=falls, steps=24)()
    codes = [finding.code for finding in findings(kept_up)]
    assert "right-answers-fall" in codes
    assert "reward-falls" not in codes
    alone = composed({"exact": 1.0, "format": 0.01}, format=chance(1.0), accuracy=falls, steps=24)()
    codes = [finding.code for finding in findings(alone)]
    assert "reward-falls" in codes, "the reward itself says it"
    assert "right-answers-fall" not in codes
    steady = composed({"exact": 1.0, "format": 3.0}, format=chance(1.0), accuracy=lambda step: 0.5, steps=24)()
    assert "right-answers-fall" not in [finding.code for finding in findings(steady)]


@pytest.mark.parametrize("method", ["pairs", "constitutional"])
def test_stages_that_train_nothing_get_no_advice_on_training(method: str) -> None:
    made = make_records(accuracy=lambda step: 0.0)
    assert findings(make_history(made))[0].code == "all-wrong"
    codes = {finding.code for finding in findings(make_history(made, method=method))}
    assert not codes & {"all-wrong", "all-right", "no-progress", "no-movement", "loss-near-zero", "rises"}


# ---------------------------------------------------------------------------------------------------------- audits

PICKY = """
from verifiers import Outcome, fixed

def picky(*, completion, reference):
    if "####" not in completion:
        return fixed(Outcome.NO_ANSWER, "no declared answer")
    return completion.split()[-1] == reference
"""


def lenient_run(*, answer: str | None = None) -> History:
    def undeclared(row: dict, rng: np.random.Generator) -> None:
        said = row["completion"].split()[-1]
        row["completion"] = (
            f"I add them one after the other. Then I look at it once more. So one comes to {said}, I think."
        )
        row |= {"verifier": "math", "verifier_options": {"lenient": True}}
        if answer is not None:
            row["verdict"] |= {"outcome": "correct", "reward": 1.0, "answer": answer}
            row["reward"] = 1.0

    return make_history(make_records(change=undeclared))


def test_the_held_out_verifier_reads_answers_as_the_training_one_does() -> None:
    done = audited(lenient_run(), sample=30)
    assert {item.verdict.verifier for item in done} == {"exact"}
    assert all(item.verdict.right for item in done)
    assert audit_findings(done) == []


def test_a_stricter_reading_is_named_as_one_and_a_hole_as_a_hole(tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(PICKY)
    picky = f"{tmp_path / 'picky.py'}:picky"
    (strict,) = audit_findings(audited(lenient_run(), sample=30, verifier=picky), chosen=True)
    assert (strict.code, strict.level) == ("held-out-stricter", Level.NOTE)
    assert "gamed" not in strict.title
    assert "math; lenient: true" in strict.evidence[0]
    (hole,) = audit_findings(audited(lenient_run(answer=""), sample=30, verifier=picky), chosen=True)
    assert (hole.code, hole.level) == ("held-out-gap", Level.FAULT)


def test_one_task_in_degrees_does_not_switch_off_the_audit_of_another() -> None:
    def half(row: dict, rng: np.random.Generator) -> None:
        if row["group"] % 2:
            row |= {"task": "programs", "verifier": "code", "reward": 0.5}
            row["verdict"] |= {"outcome": "partial", "reward": 0.5, "verifier": "code"}

    done = audited(make_history(make_records(change=half)), sample=500)
    assert done
    assert {item.row.task for item in done} == {"arithmetic"}
