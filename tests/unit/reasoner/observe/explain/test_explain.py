from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reasoner.monitoring.glossary import table
from reasoner.observe.analysis.audit import audit_findings, audited
from reasoner.observe.explain import Finding, Level, explain, findings, ordered
from reasoner.observe.explain.during_run import Watch
from reasoner.observe.report import write_report
from reasoner.storage.files import RunError
from reasoner.storage.history import History, config_before, row_of
from tests.unit.reasoner.runs import Made, make_history, make_records, nucleus, softmax, stage, write_run


def alarms(found: list[Finding]) -> list[str]:
    return [finding.code for finding in found if finding.level is not Level.NOTE]


@pytest.mark.parametrize("seed", range(10))
def test_a_run_whose_tokens_are_drawn_as_reported_raises_no_alarm(seed: int) -> None:
    made = make_records(seed=seed, accuracy=lambda step: 0.1 + 0.02 * step * (seed % 4))
    assert alarms(findings(make_history(made))) == []


@pytest.mark.parametrize("top_p", [0.95, 0.8, 0.5])
def test_a_nucleus_is_named_by_ratios_that_lie_on_one_side(top_p: float) -> None:
    made = make_records(sampled=lambda logits: nucleus(softmax(logits), top_p))
    first = findings(make_history(made))[0]
    assert first.code == "top-p-unaccounted"
    assert first.level is Level.FAULT


@pytest.mark.parametrize("temperature", [0.5, 0.7, 0.9, 0.98, 1.02, 1.3])
def test_a_temperature_is_named_by_the_slope(temperature: float) -> None:
    made = make_records(sampled=lambda logits: softmax(logits, temperature))
    first = findings(make_history(made))[0]
    assert first.code == "temperature-mismatch"
    slope = float(re.findall(r"slope (\d\.\d+)", first.evidence[0])[0])
    assert slope == pytest.approx(temperature, abs=0.1 * abs(1 - temperature) + 0.06)


def test_sampling_that_is_sharper_than_reported_is_named_by_its_surprisal() -> None:
    made = make_records(sampled=lambda logits: softmax(logits, 0.6), reported=softmax)
    assert findings(make_history(made))[0].code == "sampling-sharper"


@pytest.mark.parametrize("drift", [0.1, 0.5])
def test_weights_that_fall_behind_are_named_by_the_first_step_that_agrees(drift: float) -> None:
    made = make_records(drift=lambda step: drift * (step - 1))
    first = findings(make_history(made))[0]
    assert first.code == "weights-not-synced"
    assert "do not reach" in first.title


def test_weights_that_arrive_now_and_then() -> None:
    made = make_records(drift=lambda step: 0.2 * ((step - 1) % 4))
    first = findings(make_history(made))[0]
    assert first.code == "weights-not-synced"
    assert "falls behind" in first.title


def aged(made: Made, *, mixed: bool) -> History:
    """Records whose rollouts began three updates before their step; with `mixed` the second half of each is its own."""
    for row in made.rollouts:
        row["policy_version"] = max(0, row["step"] - 4)
        half = len(row["token_ids"]) // 2
        if mixed:
            row["versions"] = [[row["policy_version"], 0, half], [row["step"] - 1, half, len(row["token_ids"])]]
    for figures in made.metrics:
        figures["policy/version"] = float(figures["step"])
    history = make_history(made)
    ahead = history.config.rollout.model_copy(update={"ahead": 3, "during_update": "go_on"})
    history.config = history.config.model_copy(update={"rollout": ahead})
    return history


def test_the_age_of_weights_that_is_recorded_is_no_gap() -> None:
    def engine_lags(made: Made) -> Made:
        """The first half of the tokens has the gap of older weights."""
        for update, row in zip(made.updates, made.rollouts, strict=True):
            if scored := update.get("trainer_logprobs"):
                half = len(scored) // 2
                update["trainer_logprobs"] = scored[:half] + [
                    round(value, 5) for value in row["rollout_logprobs"][half:]
                ]
        return made

    drifting = {"drift": lambda step: 0.5 * min(3, step - 1)}
    codes = [finding.code for finding in findings(aged(engine_lags(make_records(**drifting)), mixed=True))]
    assert "weights-not-synced" not in codes
    assert "engine-trainer-gap" not in codes
    assert findings(aged(make_records(**drifting), mixed=True))[0].code == "weights-not-synced", (
        "of its own weights too"
    )
    assert "weights-not-synced" not in [one.code for one in findings(aged(make_records(**drifting), mixed=False))]


def test_a_gap_of_no_known_cause_is_called_one() -> None:
    made = make_records(drift=lambda step: 0.8)
    assert findings(make_history(made))[0].code == "engine-trainer-gap"


def test_equal_evaluations_of_a_policy_that_moved() -> None:
    history = make_history(make_records())
    rows = [row for row in make_history(make_records()).rows if row.step == 1]
    later = [row for row in make_history(make_records()).rows if row.step == 1]
    for row in rows:
        row.step = 0
    for row in later:
        row.step = 12
    history.eval_rows = [*rows, *later]
    assert findings(history)[0].code == "weights-not-synced"
    later[3].completion += "!"
    assert "weights-not-synced" not in [finding.code for finding in findings(history)]


def test_flipped_advantages_are_read_off_the_records() -> None:
    assert findings(make_history(make_records(flip=True)))[0].code == "advantage-sign-flipped"


def test_updates_that_lower_their_objective() -> None:
    made = make_records()
    rng = np.random.default_rng(1)
    for row in made.metrics:
        row["policy/step_gain"] = -0.01 + 0.005 * float(rng.normal())
    assert findings(make_history(made))[0].code == "descends"


def test_one_long_step_does_not_hide_that_all_go_downhill() -> None:
    made = make_records()
    for row in made.metrics:
        row["policy/step_gain"], row["policy/step_kl"] = -0.01, 1e-3
    made.metrics[-1] |= {"policy/step_gain": -0.5, "policy/step_kl": 0.5}
    made.metrics[3]["policy/step_gain"] = 0.001
    assert "descends" in alarms(findings(make_history(made)))


def test_what_could_not_be_graded_is_the_cause_of_the_stop() -> None:
    def broken(row: dict, rng: np.random.Generator) -> None:
        if rng.random() < 0.14:
            row["reward"] = row["verdict"]["reward"] = None
            row["verdict"] |= {"outcome": "verifier_error", "answer": None}

    history = make_history(make_records(steps=3, change=broken))
    history.complete, history.failure = False, {"step": 2, "error": "UngradedError", "message": "14 %"}
    assert [finding.code for finding in findings(history)][:2] == ["ungraded", "stopped"]


def test_steps_that_are_too_large_explain_the_fall() -> None:
    made = make_records(accuracy=lambda step: 0.5 if step < 5 else 0.0)
    for row in made.metrics:
        row["policy/step_kl"] = 0.7
    found = findings(make_history(made))
    assert found[0].code == "learning-rate-too-high"
    assert all(f.follows or f.level is Level.NOTE for f in found[1:])


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_place_of_the_prompt_that_always_holds_the_gold(share: float) -> None:
    def leak(row: dict, rng: np.random.Generator) -> None:
        if hash(row["problem"]) % 100 < 100 * share:
            row["prompt"] = f"{row['prompt'].strip()} (hint: {row['reference']})"

    first = findings(make_history(make_records(change=leak, problems=12)))[0]
    assert first.code == "gold-in-prompt"
    assert "(hint: " in first.evidence[0] or "nt: " in first.evidence[0] or ": " in first.evidence[0]


def test_answers_that_stand_in_prompts_by_design_are_no_leak() -> None:
    def choices(row: dict, rng: np.random.Generator) -> None:
        gold = "ABCD"[hash(row["problem"]) % 4]
        row["prompt"] = f"{row['prompt']}Choose: (A) one (B) two (C) three (D) four"
        row["reference"] = row["verdict"]["answer"] = gold

    assert "gold-in-prompt" not in [f.code for f in findings(make_history(make_records(change=choices)))]


def test_a_sum_that_stands_in_its_question_is_no_leak() -> None:
    def plus_nothing(row: dict, rng: np.random.Generator) -> None:
        row["prompt"] = f"0+{row['reference']}=?\n" if row["group"] % 2 else row["prompt"]

    assert "gold-in-prompt" not in [f.code for f in findings(make_history(make_records(change=plus_nothing)))]


@pytest.mark.parametrize("share", [0.15, 0.9])
def test_truncation(share: float) -> None:
    def cut(row: dict, rng: np.random.Generator) -> None:
        if rng.random() < share:
            row["finish_reason"] = "length"
            row["reward"] = row["verdict"]["reward"] = 0.0
            row["verdict"] |= {"outcome": "no_answer", "answer": None}
            row["completion"] = row["completion"][:12]

    found = findings(make_history(make_records(change=cut)))
    assert found[0].code == "truncated"
    assert "0 % of those were right" in found[0].title


def test_truncation_of_nearly_all_is_not_measured_by_the_few_that_ended() -> None:
    """One in six truncated completions is right, and none of the others: the limit is still the problem."""

    def cut(row: dict, rng: np.random.Generator) -> None:
        row["finish_reason"] = "length" if row["sample"] else "stop"
        right = bool(row["sample"]) and rng.random() < 1 / 6
        row["verdict"]["answer"] = str(row["reference"]) if right else "7"
        row["completion"] = f"7 and 7 and 7 make #### {row['verdict']['answer']}"
        judged(row, right=right)

    found = findings(make_history(make_records(change=cut)))
    assert (found[0].code, found[0].level) == ("truncated", Level.WARNING)
    assert "raise rollout.max_tokens" in found[0].change


def test_all_wrong_and_all_right() -> None:
    wrong = findings(make_history(make_records(accuracy=lambda step: 0.0)))
    assert wrong[0].code == "all-wrong"
    right = findings(make_history(make_records(accuracy=lambda step: 1.0)))
    assert right[0].code == "all-right"
    assert right[0].level is Level.WARNING
    solved = findings(make_history(make_records(steps=30, accuracy=lambda step: min(1.0, 0.2 + step / 15))))
    assert alarms(solved) == []


def test_a_teacher_gives_signal_and_signs_that_do_not_follow_from_the_rewards() -> None:
    taught = {"method": "distill", "teacher": "somewhere"}
    wrong = findings(make_history(make_records(accuracy=lambda step: 0.0), **taught))
    flipped = findings(make_history(make_records(flip=True), **taught))
    assert not {found.code for found in (*wrong, *flipped)} & {"all-wrong", "all-right", "advantage-sign-flipped"}


def test_wrong_references_show_in_what_the_samples_agree_on() -> None:
    def shifted(row: dict, rng: np.random.Generator) -> None:
        judged(row, right=False, answer=row["reference"])
        row["reference"] = str(1000 + int(row["reference"]))

    first = findings(make_history(make_records(change=shifted)))[0]
    assert first.code == "all-wrong"
    assert "most samples agree on one answer" in first.evidence[-1]


def test_ungraded_completions_are_counted_with_their_causes() -> None:
    def fail(row: dict, rng: np.random.Generator) -> None:
        if rng.random() < 0.1:
            row["reward"] = None
            row["verdict"] |= {"outcome": "verifier_error", "reward": None, "detail": {"reason": "no module named x"}}

    first = findings(make_history(make_records(change=fail)))[0]
    assert first.code == "ungraded"
    assert "no module named x" in first.evidence[0]


def test_an_empty_answer_that_is_accepted() -> None:
    def hack(row: dict, rng: np.random.Generator) -> None:
        if rng.random() < 0.03:
            row["completion"], row["reward"] = "\\boxed{}", 1.0
            row["verdict"] |= {"outcome": "correct", "reward": 1.0, "answer": ""}

    assert findings(make_history(make_records(change=hack)))[0].code == "empty-answer-accepted"


def test_one_answer_for_problems_with_different_references() -> None:
    def hack(row: dict, rng: np.random.Generator) -> None:
        if rng.random() < 0.1:
            row["completion"], row["reward"] = "#### anything", 1.0
            row["verdict"] |= {"outcome": "correct", "reward": 1.0, "answer": "anything"}

    history = make_history(make_records(change=hack))
    assert findings(history)[0].code == "one-answer-for-all"
    held = audit_findings(audited(history, sample=60, verifier="exact"), chosen=True)
    assert [finding.code for finding in held] == ["held-out-gap"]


def test_rewards_in_degrees_are_not_audited_as_right_or_wrong() -> None:
    def score(row: dict, rng: np.random.Generator) -> None:
        row["verifier"], row["reward"] = "reward-model", 2.0 * rng.random()
        row["verdict"] |= {"outcome": "scored", "reward": row["reward"], "answer": None}

    history = make_history(make_records(change=score))
    assert any(row.reward > 1 for row in history.graded)
    assert not any(row.right for row in history.graded)
    assert audited(history, sample=60) == []


def test_right_answers_that_are_rejected() -> None:
    def reject(row: dict, rng: np.random.Generator) -> None:
        if row["reward"] == 1 and rng.random() < 0.1:
            row["reward"] = 0.0
            row["verdict"] |= {"outcome": "incorrect", "reward": 0.0}

    codes = [finding.code for finding in findings(make_history(make_records(change=reject)))]
    assert codes[0] in ("right-answer-rejected", "inconsistent-verdicts")
    assert "right-answer-rejected" in codes


def test_answers_that_nobody_works_out_are_named() -> None:
    def leave_open(row: dict, rng: np.random.Generator) -> None:
        if row["reward"] == 0 and rng.random() < 0.3:
            row["verdict"] |= {"detail": {"reason": "undecided", "tier": "undecided"}}

    found = {finding.code: finding for finding in findings(make_history(make_records(change=leave_open)))}
    assert found["undecided-answers"].level is Level.WARNING
    assert found["undecided-answers"].rollouts
    assert "undecided-answers" not in {finding.code for finding in findings(make_history(make_records()))}


def test_another_prompt_than_the_model_was_trained_with() -> None:
    def lost(row: dict, rng: np.random.Generator) -> None:
        row["finish_reason"], row["completion"] = "length", "? ? ?"
        row["reward"] = row["verdict"]["reward"] = 0.0
        row["verdict"] |= {"outcome": "no_answer", "answer": None}

    history = make_history(make_records(change=lost), prompt={"chat": "always"})
    history.before = stage(method="sft", prompt={"chat": "never"})
    found = findings(history)
    assert found[0].code == "wrong-chat-template"
    assert {f.code for f in found if f.follows} >= {"truncated", "all-wrong"}


@pytest.mark.parametrize("kind", ["no-answer", "truncated"])
@pytest.mark.parametrize(("share", "first"), [(0.3, False), (0.8, True)])
def test_what_happens_to_a_part_does_not_explain_that_all_are_wrong(kind: str, share: float, first: bool) -> None:
    def wrong(row: dict, rng: np.random.Generator) -> None:
        row["reward"] = row["verdict"]["reward"] = 0.0
        row["verdict"]["outcome"] = "incorrect"
        row["verdict"]["answer"] = answer = str(int(row["reference"]) + int(rng.integers(1, 60)))
        row["completion"] = f"that makes #### {answer}"
        if rng.random() < share:
            row["verdict"] |= {"outcome": "no_answer", "answer": None}
            row["completion"] = "that makes"
            row["finish_reason"] = "length" if kind == "truncated" else "stop"

    found = [finding.code for finding in findings(make_history(make_records(change=wrong)))]
    assert (found[0] == kind) == first
    assert first or found[0] == "all-wrong"


def test_a_finding_stands_behind_its_cause() -> None:
    cause = Finding(code="cause", level=Level.FAULT, cost=0.1, title="c", explains=frozenset({"symptom"}))
    symptom = Finding(code="symptom", level=Level.FAULT, cost=0.9, title="s")
    other = Finding(code="other", level=Level.WARNING, cost=1.0, title="o")
    found = ordered([symptom, other, cause])
    assert [f.code for f in found] == ["cause", "symptom", "other"]
    assert found[1].follows == "cause"


def test_warnings_while_it_runs_are_said_once() -> None:
    made = make_records(flip=True)
    watch = Watch(stage())
    said: list[str] = []
    for step in range(1, 13):
        for name, rows in (("rollouts", made.rollouts), ("updates", made.updates), ("metrics", made.metrics)):
            watch.heard(f"{name}.jsonl", [row for row in rows if row["step"] == step])
        said += [finding.code for finding in watch.look(step)]
    assert said == ["advantage-sign-flipped"]
    assert {row.step for row in watch.last_rows} == {12}


def test_other_prompts_than_the_model_was_trained_with_are_told_while_it_runs(tmp_path: Path) -> None:
    trained = write_run(tmp_path / "sft", make_records(), prompt={"chat": "never"})
    made = make_records(accuracy=lambda step: 0.1)
    watch = Watch(stage(model={"path": str(trained / "final")}, prompt={"chat": "always"}))
    for name, rows in (("rollouts", made.rollouts), ("updates", made.updates), ("metrics", made.metrics)):
        watch.heard(f"{name}.jsonl", [row for row in rows if row["step"] <= 5])
    assert watch.look(5)[0].code == "wrong-chat-template"


def test_a_config_that_is_no_run_of_ours_says_nothing_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("of: another tool")
    assert config_before(stage(model={"path": str(tmp_path / "final")})) is None


def test_reading_a_run_and_the_command(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_records())
    with (run / "rollouts.jsonl").open("a") as file:
        file.write('{"step": 13, "half a li')
    ((history, found),) = explain(run)
    assert len(history.rows) == 12 * 48
    assert found == findings(history)
    command = [
        sys.executable,
        "-c",
        "from reasoner.cli import main; main()",
        "explain",
        str(run),
        "--json",
        "--audit",
        "0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [f["code"] for f in json.loads(done.stdout)[0]["findings"]] == [f.code for f in found]


def test_the_glossary_in_the_docs_is_the_one_in_the_code() -> None:
    assert table() in (Path(__file__).parents[5] / "docs" / "metrics.md").read_text()


def judged(row: dict, *, right: bool, answer: str | None = None) -> None:
    row["reward"] = row["verdict"]["reward"] = float(right)
    row["verdict"] |= {"outcome": "correct" if right else "incorrect"}
    if answer is not None:
        row["verdict"]["answer"], row["completion"] = answer, f"way {row['sample']} makes #### {answer}"


def test_sampling_that_is_flatter_than_reported() -> None:
    made = make_records(sampled=lambda logits: softmax(logits, 2.0), reported=softmax)
    assert findings(make_history(made))[0].code == "sampling-flatter"


def test_weights_that_are_a_step_old_are_told_from_weights_that_never_arrive() -> None:
    made = make_records(drift=lambda step: 0.2 * (step > 1))
    for row in made.metrics:
        row["policy/step_kl"] = 0.02
    first = findings(make_history(made))[0]
    assert first.code == "weights-not-synced"
    assert "a step old" in first.title


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_wrong_numbers_that_are_accepted(share: float) -> None:
    def accept(row: dict, rng: np.random.Generator) -> None:
        if rng.random() < share:
            judged(row, right=True)

    found = findings(make_history(make_records(change=accept)))
    assert found[0].code in ("wrong-answer-accepted", "one-answer-for-all")
    assert "wrong-answer-accepted" in [finding.code for finding in found]


@pytest.mark.parametrize(
    ("reference", "answer"), [("0.5", "1/2"), ("1000", "$1,000"), ("0.333", "1/3"), ("25", "0.25")]
)
def test_equal_forms_of_a_number_are_no_wrong_answers(reference: str, answer: str) -> None:
    def same(row: dict, rng: np.random.Generator) -> None:
        row["reference"], row["verdict"]["answer"] = reference, answer

    codes = [finding.code for finding in findings(make_history(make_records(change=same)))]
    assert "wrong-answer-accepted" not in codes


def test_an_answer_with_a_huge_exponent_is_text() -> None:
    def huge(row: dict, rng: np.random.Generator) -> None:
        row["verdict"]["answer"] = "22e2222222222"

    assert findings(make_history(make_records(steps=3, change=huge)))


def test_a_reward_that_goes_with_length_alone() -> None:
    def long(row: dict, rng: np.random.Generator) -> None:
        row["completion"] += "!" * int(rng.integers(20))
        judged(row, right=len(row["completion"]) > 30)
        row["verdict"]["answer"] = None

    assert findings(make_history(make_records(change=long)))[0].code == "reward-is-length"


def test_right_answers_that_are_somewhat_longer_are_no_alarm() -> None:
    def longer(row: dict, rng: np.random.Generator) -> None:
        row["completion"] += "!" * int(rng.integers(20) + 8 * row["reward"])

    assert alarms(findings(make_history(make_records(change=longer)))) == []


def test_one_task_of_two_that_is_never_solved() -> None:
    def dead(row: dict, rng: np.random.Generator) -> None:
        if row["group"] % 2:
            row["task"] = "other"
            judged(row, right=False, answer="7")

    found = findings(make_history(make_records(change=dead)))
    assert found[0].code == "task-all-wrong"
    assert "'other'" in found[0].title


def test_advantages_without_a_baseline_and_of_other_rollouts() -> None:
    made = make_records()
    rewards = {(r["step"], r["group"], r["sample"]): r["reward"] for r in made.rollouts}
    for row in made.updates:
        if "advantage" in row:
            row["advantage"] = rewards[row["step"], row["group"], row["sample"]]
    assert findings(make_history(made, algorithm={"advantage": "mine:own"}))[0].code == "advantages-not-centred"
    made = make_records()
    given = [row for row in made.updates if "advantage" in row]
    values = [row["advantage"] for row in given]
    for row, value in zip(given, np.random.default_rng(0).permutation(values), strict=True):
        row["advantage"] = float(value)
    for name in ("grpo", "mine:own"):
        first = findings(make_history(made, algorithm={"advantage": name}))[0]
        assert first.code == "advantage-sign-flipped"
        assert "nothing to do with" in first.title


@pytest.mark.parametrize(("step_kl", "said"), [(1e-9, True), (1e-6, False)])
def test_a_policy_that_hardly_moves(step_kl: float, said: bool) -> None:
    """At 1e-6 a step changes the log-probabilities by 1.4e-3: a hundred steps are a useful change."""
    made = make_records(accuracy=lambda step: 0.4)
    for row in made.metrics:
        row["policy/step_kl"] = step_kl
    assert ("no-movement" in alarms(findings(make_history(made, steps=100)))) is said


def evaluated(
    made: Made,
    *,
    drift: float = 0.0,
    temperature: float = 1.0,
    length: int = 12,
    probe: float = 1e-6,
    told: bool = True,
) -> list[str]:
    """Return the codes of a run whose last evaluation repeats its first; `told`: with log-probabilities."""
    for row in made.metrics:
        row["policy/step_kl"], row["gap/probe"] = 0.01, probe
    rows = [
        {**row, "tokens": length, "rollout_logprobs": row["rollout_logprobs"][:length]} for row in made.rollouts[:48]
    ]
    later = [{**row, "step": 12, "rollout_logprobs": [x - drift for x in row["rollout_logprobs"]]} for row in rows]
    greedy = [{**row, "rollout_logprobs": [0.0] * length} for row in (*[{**r, "step": 0} for r in rows], *later)]
    history = make_history(made, eval={"temperature": temperature})
    listed = [*({**row, "step": 0} for row in rows), *later] if told else greedy
    history.eval_rows = [row_of(row) for row in listed]
    return [finding.code for finding in findings(history)]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, True),  # the same tokens with the same log-probabilities come from the same weights
        ({"temperature": 0.0}, True),
        ({"drift": 1e-3}, False),  # the same tokens, otherwise likely: the weights arrived
        ({"drift": 1e-3, "temperature": 0.0, "length": 2}, False),
        ({"told": False}, False),  # the probes passed
        ({"told": False, "probe": 1.0}, True),
        ({"told": False, "probe": 1.0, "length": 1}, False),  # too few tokens for one to change
        ({"told": False, "probe": 1.0, "temperature": 0.0}, False),
    ],
)
def test_an_evaluation_that_repeats_itself_is_weighed_by_its_log_probabilities(changes: dict, fault: bool) -> None:
    assert ("weights-not-synced" in evaluated(make_records(accuracy=lambda step: 0.4), **changes)) is fault


def test_a_warm_up_that_never_ends_is_why_the_policy_stands_still() -> None:
    made = make_records(accuracy=lambda step: 0.4)
    for row in made.metrics:
        row["policy/step_kl"] = 1e-9
    (short,) = [f for f in findings(make_history(made, steps=100)) if f.code == "no-movement"]
    (long,) = [
        f for f in findings(make_history(made, steps=100, optim={"warmup_steps": 400})) if f.code == "no-movement"
    ]
    assert short.change.startswith("raise optim.lr tenfold")
    assert long.change == "set optim.warmup_steps=10."


def partial(row: dict, rng: np.random.Generator) -> None:
    row["reward"] = row["verdict"]["reward"] = round(0.1 + 0.5 * float(rng.random()), 3)
    row["verdict"]["outcome"] = "partial"


@pytest.mark.parametrize(
    ("threshold", "code"), [(None, "none-accepted"), (0.9, "none-accepted"), (0.3, None), (0.05, "all-accepted")]
)
def test_rejection_sampling_names_a_threshold_that_sorts_nothing_out(threshold: float | None, code: str | None) -> None:
    made = make_records(change=partial)
    for row, update in zip(made.rollouts, made.updates, strict=True):
        update["advantage"] = float(row["reward"] >= (1.0 if threshold is None else threshold))
    options = {} if threshold is None else {"advantage_options": {"threshold": threshold}}
    found = {f.code: f for f in findings(make_history(made, algorithm={"advantage": "rejection", **options}))}
    assert found.keys() & {"none-accepted", "all-accepted"} == ({code} if code else set())
    if code:
        assert re.match(r"set algorithm\.advantage_options\.threshold=0\.[45]\d*, or compare", found[code].change)
        assert "no-progress" not in found or found["no-progress"].follows == code


def test_rejection_sampling_of_right_and_wrong_answers_is_no_finding() -> None:
    made = make_records(accuracy=lambda step: 0.4)
    for row, update in zip(made.rollouts, made.updates, strict=True):
        update["advantage"] = row["reward"]
    found = {f.code for f in findings(make_history(made, algorithm={"advantage": "rejection"}))}
    assert not found & {"none-accepted", "all-accepted"}


def test_a_kl_penalty_that_holds_the_policy() -> None:
    made = make_records(accuracy=lambda step: 0.4)
    for row in made.metrics:
        row["policy/kl_ref"] = 1e-3
    assert alarms(findings(make_history(made, algorithm={"kl_coef": 5.0}))) == ["kl-coef-too-large"]
    assert alarms(findings(make_history(made, algorithm={"kl_coef": 0.01}))) == []


def test_the_same_text_early_and_late() -> None:
    def same(first: int) -> Callable[[dict, np.random.Generator], None]:
        def change(row: dict, rng: np.random.Generator) -> None:
            if row["step"] >= first and row["group"] < 4:
                judged(row, right=False, answer="1")
                row["completion"] = "#### 1"

        return change

    def codes(first: int) -> list[str]:
        return alarms(findings(make_history(make_records(change=same(first), accuracy=lambda step: 0.4))))

    assert "no-diversity" in codes(1)
    assert "entropy-collapse" in codes(7)


def test_problems_with_one_prompt() -> None:
    def copied(row: dict, rng: np.random.Generator) -> None:
        row["prompt"], row["reference"] = "1+1=?", row["verdict"]["answer"] if row["reward"] else "2"
        row["reference"] = "2"

    def cut(row: dict, rng: np.random.Generator) -> None:
        row["prompt"] = "=?"

    assert "duplicate-problems" in [f.code for f in findings(make_history(make_records(change=copied)))]
    assert findings(make_history(make_records(change=cut)))[0].code == "contradicting-references"


@pytest.mark.parametrize(
    ("prompt", "begins"),
    [
        ("<|im_start|>user\nhi<|im_end|>\n", ""),
        ("<|user|>hi", "assistant\n"),
    ],
)
def test_a_turn_that_is_not_opened(prompt: str, begins: str) -> None:
    def closed(row: dict, rng: np.random.Generator) -> None:
        row["prompt"], row["completion"] = prompt.replace("hi", row["prompt"]), begins + row["completion"]

    made = make_records(change=closed, accuracy=lambda step: 0.2)
    first = findings(make_history(made))[0]
    assert first.code == "wrong-chat-template"
    assert "opened" in first.evidence[0]


RECORDS = ("metrics.jsonl", "rollouts.jsonl", "updates.jsonl", "evals.jsonl", "environment.json", "done.json")


@pytest.mark.parametrize("name", RECORDS)
def test_a_run_is_read_wherever_one_of_its_files_was_cut(tmp_path: Path, name: str) -> None:
    file = write_run(tmp_path / "run", make_records(steps=2, problems=2)) / name
    whole = file.read_bytes()
    for end in {0, 1, len(whole) // 3, len(whole) // 2, max(0, len(whole) - 1)}:
        file.write_bytes(whole[:end])
        write_report(tmp_path / "run", tmp_path / "report.html", audit=0)
        if name == "rollouts.jsonl":
            assert len(explain(tmp_path / "run")[0][0].rows) == whole[:end].count(b"\n")


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("rollouts.jsonl", '{"step": 1', "must be JSON"),
        ("rollouts.jsonl", '{"step": 1, "group": 0}', "problem: Field required"),
        ("metrics.jsonl", "[]", "must be a JSON object; got list"),
        ("metrics.jsonl", '{"step": 2, "reward/mean": "high"}', "reward/mean must be a number; got 'high'"),
        ("metrics.jsonl", '{"reward/mean": 1.0}', "step must be a number"),
        ("updates.jsonl", '{"step": 1, "group": {}, "sample": 0}', "group: Input should be a valid integer"),
        ("evals.jsonl", "\x00", "must be JSON"),
    ],
)
def test_a_line_that_no_run_writes_is_named(tmp_path: Path, name: str, line: str, says: str) -> None:
    file = write_run(tmp_path, make_records(steps=2, problems=2)) / name
    first, rest = file.read_text().split("\n", 1)
    file.write_text(f"{first}\n{line}\n{rest}")
    with pytest.raises(RunError, match=rf"{name} line 2 is not a valid record .*({says})"):
        explain(tmp_path)
