"""Records that contradict each other: each contradiction is named, and near misses are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reasoner.observe.explain import findings
from reasoner.observe.explain.finding import Finding
from reasoner.observe.explain.record_rules import record_rules
from reasoner.storage.history import EvalRecord, History, row_of
from tests.unit.reasoner.runs import Made, make_history, make_records, rollout, sample_tokens, stage

Change = Callable[[dict, np.random.Generator], None]


def codes(history: History) -> set[str]:
    return {finding.code for finding in record_rules(history)}


def named(history: History, code: str) -> Finding:
    return next(finding for finding in findings(history) if finding.code == code)


def say(row: dict, answer: str, *, right: bool, read: str | None = None) -> None:
    """Give a row an answer, and a verdict on `read`, by default the same."""
    row["completion"], row["reward"] = f"makes #### {answer}", float(right)
    row["verdict"] |= {
        "outcome": "correct" if right else "incorrect",
        "reward": float(right),
        "answer": answer if read is None else read,
    }


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_run_contradicts_nothing(seed: int) -> None:
    assert codes(make_history(make_records(seed=seed, steps=20))) == set()


def zeroed(made: Made, which: Callable[[dict, dict], bool]) -> Made:
    rows = {(row["step"], row["group"], row["sample"]): row for row in made.rollouts}
    for update in made.updates:
        if update.get("advantage") is not None and which(
            update, rows[update["step"], update["group"], update["sample"]]
        ):
            update["advantage"] = 0.0
    return made


def test_advantages_of_zero_beside_other_rewards() -> None:
    half = make_history(zeroed(make_records(steps=20), lambda update, row: update["group"] >= 3))
    assert "0 although their reward differs" in named(half, "advantages-zero").title
    clamped = make_history(zeroed(make_records(steps=20), lambda update, row: update["advantage"] < 0))
    assert "all of them are below the mean" in named(clamped, "advantages-zero").evidence[0]
    # a value model, or the mean of the step, may well give 0
    assert "advantages-zero" not in codes(make_history(half_made(), algorithm={"advantage": "reinforce_pp"}))


def half_made() -> Made:
    return zeroed(make_records(steps=20), lambda update, row: update["group"] >= 3)


@pytest.mark.parametrize(
    ("ratio", "clipped", "moved", "updates", "said"),
    [
        (0.0, 0.0, 0.02, 4, True),
        (1e-4, 0.0, 0.02, 4, False),  # the second update sees another policy
        (0.0, 0.1, 0.02, 4, False),
        (0.0, 0.0, 1e-7, 4, False),  # the policy does not move
        (0.0, 0.0, 0.02, 1, False),  # one update: the ratio is 1
    ],
)
def test_a_ratio_that_is_always_one(ratio: float, clipped: float, moved: float, updates: int, *, said: bool) -> None:
    made = make_records(steps=20)
    for figures in made.metrics:
        figures |= {"policy/ratio": 1 + ratio, "policy/clip_fraction": clipped, "policy/step_kl": moved}
    assert ("ratio-always-one" in codes(make_history(made, optim={"updates_per_step": updates}))) is said


def test_completions_that_go_on_after_the_end_token() -> None:
    end = 11

    def ended(share: float) -> Change:
        def change(row: dict, rng: np.random.Generator) -> None:
            row["token_ids"] = [min(one, end - 1) for one in row["token_ids"]]
            row["token_ids"][-1] = end
            if rng.random() < share:
                row["token_ids"][5], row["token_ids"][-1], row["finish_reason"] = end, 3, "length"

        return change

    finding = named(make_history(make_records(steps=20, change=ended(0.4))), "end-token-passed")
    assert "100 % of these end at the limit" in finding.evidence[0]
    assert "end-token-passed" not in codes(make_history(make_records(steps=20, change=ended(0.0))))
    stopped = make_history(make_records(steps=20, change=ended(0.4)), prompt={"stop": ["\n"]})
    assert "end-token-passed" not in codes(stopped)  # what ends a completion is a text


def test_answers_that_are_read_from_a_part_of_the_number() -> None:
    def cut(row: dict, rng: np.random.Generator) -> None:
        answer = "1" + row["reference"] if rng.random() < 0.5 else row["reference"] + "9"
        say(row, answer, right=False, read=answer[:-1])

    assert "such as" in named(make_history(make_records(steps=20, change=cut)), "answers-misread").evidence[0]

    def rewritten(row: dict, rng: np.random.Generator) -> None:
        value = int(row["reference"])
        form = [f"{value},000.50", f"{value}.50", f"{value} km", f"{value}", f"x={value}."][int(rng.integers(5))]
        read = f"{value}000.5" if form.endswith("000.50") else f"{value}.5" if form.endswith(".50") else f"{value}"
        say(row, form, right=rng.random() < 0.5, read=read)

    assert "answers-misread" not in codes(make_history(make_records(steps=20, change=rewritten)))


def test_verdicts_of_another_sample_of_the_problem() -> None:
    first: dict[tuple[int, int], dict] = {}

    def cached(row: dict, rng: np.random.Generator) -> None:
        source = first.setdefault((row["step"], row["group"]), row)
        if row is not source and rng.random() < 0.3:
            row["verdict"], row["reward"] = dict(source["verdict"]), source["reward"]

    finding = named(make_history(make_records(steps=20, change=cached)), "verdicts-misplaced")
    assert "another sample of the problem" in finding.title

    def canonical(row: dict, rng: np.random.Generator) -> None:  # the verifier writes answers in its own form
        row["verdict"]["answer"] = f"Integer({row['verdict']['answer']})"

    assert "verdicts-misplaced" not in codes(make_history(make_records(steps=20, change=canonical)))


def test_prompts_that_are_cut_at_a_limit() -> None:
    def long(limit: int) -> Change:
        def change(row: dict, rng: np.random.Generator) -> None:
            ids = [1, *range(20, 22 + row["group"]), 2]  # 2 ends every prompt
            row["prompt_ids"] = ids[:limit]
            row["prompt"] = "".join(map(chr, ids))[:limit] if len(ids) > limit else row["prompt"]

        return change

    finding = named(make_history(make_records(steps=20, change=long(6))), "prompts-end-otherwise")
    assert "cut at 6 tokens" in finding.title
    assert "prompts-end-otherwise" not in codes(make_history(make_records(steps=20, change=long(30))))


@pytest.mark.parametrize(("right", "said"), [(0.05, True), (0.6, False)])
def test_prompts_of_which_some_lost_their_last_newline(right: float, *, said: bool) -> None:
    def stripped(row: dict, rng: np.random.Generator) -> None:
        if row["group"] % 2:
            row["prompt"], row["prompt_ids"] = row["prompt"].strip(), row["prompt_ids"][:-1]
            good = rng.random() < right
            say(row, row["reference"] if good else "7", right=good)
        else:
            good = rng.random() < 0.6
            say(row, row["reference"] if good else "7", right=good)

    history = make_history(make_records(steps=20, change=stripped))
    assert ("prompts-end-otherwise" in codes(history)) is said


@pytest.mark.parametrize(("problems", "said"), [(6, True), (12, True), (60, False)])
def test_few_problems_again_and_again(problems: int, *, said: bool) -> None:
    made = make_records(steps=20)
    for row in made.rollouts:
        row["problem"] = f"p{(6 * (row['step'] - 1) + row['group']) % problems}"
    assert ("few-problems" in codes(make_history(made, rollout={"problems_per_step": 6}))) is said


@pytest.mark.parametrize(
    ("advantage", "scale", "said"), [("dr_grpo", 9, True), ("grpo", 9, False), ("dr_grpo", 1, False)]
)
def test_rewards_of_different_scales(advantage: str, scale: int, *, said: bool) -> None:
    def scaled(row: dict, rng: np.random.Generator) -> None:
        if row["reward"]:
            worth = float(scale if row["group"] % 3 == 0 else 1)
            row["reward"] = worth
            row["verdict"] |= {"reward": worth, "outcome": "scored"}

    history = make_history(make_records(steps=20, change=scaled), algorithm={"advantage": advantage})
    assert ("reward-scales-differ" in codes(history)) is said


def with_evaluations(told: float, *, other: int = 0, samples: int = 4) -> History:
    """A run with evaluations of 64 problems; `other` of the last one's problems are others."""
    history = make_history(make_records(steps=20))
    rng = np.random.default_rng(7)
    for step in (0, 20):
        drawn = sample_tokens(rng, 64 * samples, 12)
        for place in range(64 * samples):
            row = rollout(rng, step, place // samples, place % samples, drawn, place, 0.4)
            shift = 1000 if step and place // samples < other else 0
            row["problem"] = f"held-out/{place // samples + shift}"
            history.eval_rows.append(row_of(row))
    seen = float(np.mean([row.right for row in history.eval_rows if row.step == 20]))
    value = seen if told < 0 else told
    record = {"step": 20, "problems": 64, "metrics": {f"avg@{samples}": [value, value - 0.1, value + 0.1]}}
    history.evals = [EvalRecord.model_validate(record)]
    return history


def test_an_accuracy_that_is_not_that_of_the_completions() -> None:
    assert "avg@4 0.85" in named(with_evaluations(0.85), "evaluation-figures-differ").title
    assert "evaluation-figures-differ" not in codes(with_evaluations(-1))
    some = with_evaluations(0.85)  # only some of the completions were kept
    some.eval_rows = some.eval_rows[: len(some.eval_rows) * 3 // 4]
    assert "evaluation-figures-differ" not in codes(some)


@pytest.mark.parametrize(("other", "said"), [(64, True), (32, True), (2, False), (0, False)])
def test_evaluations_on_different_problems(other: int, *, said: bool) -> None:
    assert ("evaluation-sets-differ" in codes(with_evaluations(-1, other=other))) is said


def test_an_evaluation_that_accepts_other_numbers() -> None:
    history = with_evaluations(-1)
    assert "evaluation-accepts-wrong" not in {one.code for one in findings(history)}
    for row in history.eval_rows[::5]:
        row.outcome, row.verdict_reward, row.reward, row.verifier = "correct", 1.0, 1.0, "lenient"
        row.answer = str(int(str(row.reference)) + 7)
    finding = named(history, "evaluation-accepts-wrong")
    assert "lenient; training uses exact" in finding.evidence[0]


def test_accepted_texts_of_a_verifier_that_does_not_say_what_it_read() -> None:
    def silent(wrong: float) -> Change:
        def change(row: dict, rng: np.random.Generator) -> None:
            accepted = rng.random() < 0.5
            answer = row["reference"][:-1] if accepted and rng.random() < wrong else row["reference"]
            say(row, answer if accepted else "0", right=accepted)
            row["verdict"]["answer"] = None

        return change

    accepting = {one.code for one in findings(make_history(make_records(steps=20, change=silent(0.2))))}
    assert "wrong-answer-accepted" in accepting
    strict = {one.code for one in findings(make_history(make_records(steps=20, change=silent(0.0))))}
    assert "wrong-answer-accepted" not in strict

    def worked(row: dict, rng: np.random.Generator) -> None:  # the answer does not stand at the end
        silent(0.0)(row, rng)
        row["completion"] += " because 12 is even"

    other = {one.code for one in findings(make_history(make_records(steps=20, change=worked)))}
    assert "wrong-answer-accepted" not in other


@pytest.mark.parametrize(("by_problem", "said"), [(True, True), (False, False)])
def test_a_component_that_right_answers_of_some_problems_cannot_have(by_problem: bool, *, said: bool) -> None:
    def weighed(row: dict, rng: np.random.Generator) -> None:
        form = float(int(row["reference"]) // 2 % 2 if by_problem else rng.random() < 0.5)
        right = row["verdict"]["outcome"] == "correct"
        row["components"] = {"math": float(right), "format": form}
        row["verdict"] |= {
            "weights": {"math": 1.0, "format": 0.5},
            "decided_by": "math",
            "components": row["components"],
        }
        row["reward"] = float(right) + 0.5 * form

    found = {one.code for one in findings(make_history(make_records(steps=20, change=weighed)))}
    assert ("component-rejects-right" in found) is said


@pytest.mark.parametrize(("first", "said"), [(-1.7, True), (-0.02, False), (0.0, False)])
def test_a_reference_that_is_not_the_start_of_dpo(first: float, *, said: bool) -> None:
    rows = [{"step": n, "dpo/reward_chosen": 0.0, "dpo/reward_rejected": first - 0.2 * (n - 1)} for n in range(1, 21)]
    history = History(config=stage(method="dpo", preferences={"train": "pairs.jsonl"}), metrics=rows, complete=True)
    assert ("reference-is-another-model" in {one.code for one in findings(history)}) is said


@pytest.mark.parametrize(("moves", "said"), [(1e-7, True), (0.01, False)])
def test_a_value_model_that_stays_where_it_began(moves: float, *, said: bool) -> None:
    rows = [{"step": n, "value/before": moves * n, "value/returns": 0.4} for n in range(1, 21)]
    history = History(config=stage(method="ppo", task="gsm8k"), metrics=rows, complete=True)
    assert ("value-idle" in {one.code for one in findings(history)}) is said


@pytest.mark.parametrize(("train", "said"), [(0.01, True), (0.7, False)])
def test_a_held_out_loss_that_rises_by_noise_is_not_overfitting(train: float, *, said: bool) -> None:
    """The training loss falls in both; what is memorised has a lower loss than what is held out."""
    rows: list[dict] = [{"step": n, "optim/loss": 1.0 + (train - 1.0) * n / 40} for n in range(1, 41)]
    for step, loss in ((10, 0.66), (20, 0.66), (30, 0.49), (40, 0.59)):
        rows[step - 1]["eval/loss"] = loss
    history = History(config=stage(method="sft"), metrics=rows, complete=True)
    assert ("overfitted" in {one.code for one in findings(history)}) is said


@pytest.mark.parametrize(
    ("optim", "code"),
    [
        ({"weight_decay": 40.0, "lr": 2e-4}, "weight-decay-too-large"),
        ({"weight_decay": 0.1, "lr": 2e-4}, None),
        ({"weight_decay": 0.01, "lr": 1e-2}, None),
        ({"eps": 1e-2}, "epsilon-too-large"),
        ({"eps": 1e-5}, None),
    ],
)
def test_settings_of_the_optimizer_that_outweigh_the_gradient(optim: dict[str, float], code: str | None) -> None:
    made = make_records(steps=20)
    for figures in made.metrics:
        figures["optim/lr"] = optim.get("lr", 1e-5)
    found = {one.code for one in findings(make_history(made, optim=optim))}
    assert found & {"weight-decay-too-large", "epsilon-too-large"} == ({code} if code else set())


def test_evaluations_whose_prompts_change() -> None:
    history = with_evaluations(-1)
    assert "evaluation-prompts-change" in codes(with_prompts(history, every=1))
    assert "evaluation-prompts-change" not in codes(with_prompts(history, every=1000))


def with_prompts(history: History, *, every: int) -> History:
    """Give each problem one prompt in the first evaluation, and in the last one a stripped one."""
    for row in history.eval_rows:
        prompt = f"{row.problem}=?\n"
        changed = row.step == 20 and int(row.problem.rpartition("/")[2]) % every == 0
        row.prompt = prompt.strip() if changed else prompt
    return history


@pytest.mark.parametrize(("every", "said"), [(2, True), (40, False), (1000, False)])
def test_evaluations_of_which_some_prompts_change(every: int, *, said: bool) -> None:
    history = with_prompts(with_evaluations(-1), every=every)
    assert ("evaluation-prompts-change" in codes(history)) is (said and every < 64)


def test_a_gap_in_some_rollouts_is_described() -> None:
    """A quarter of the completions belong to other problems of their step."""
    references: dict[int, set[str]] = {}

    def is_swapped(row: dict) -> bool:
        return (7 * row["step"] + 5 * row["group"] + 3 * row["sample"]) % 4 == 1

    def swap(row: dict, rng: np.random.Generator) -> None:
        known = references.setdefault(row["step"], set())
        if is_swapped(row) and known - {row["reference"]}:
            say(row, sorted(known - {row["reference"]})[0], right=False)
        known.add(row["reference"])

    made = make_records(steps=20, change=swap)
    rng = np.random.default_rng(1)
    for update in made.updates:
        if "trainer_logprobs" in update and is_swapped(update):
            update["trainer_logprobs"] = [one + float(rng.normal(0, 2)) for one in update["trainer_logprobs"]]
    for figures in made.metrics:
        figures["gap/logprob_abs"] = 0.4
    finding = named(make_history(made), "engine-trainer-gap")
    assert "all of it in 2" in finding.title
    assert "belong to other prompts" in " ".join(finding.evidence)


@pytest.mark.parametrize(("share", "said"), [(0.08, True), (0.75, False), (1.0, False)])
def test_returns_that_do_not_have_the_reward(share: float, *, said: bool) -> None:
    rows = [
        {"step": n, "value/returns": 0.5 * share, "reward/mean": 0.5, "completion/length_mean": 13.0}
        for n in range(1, 21)
    ]
    history = History(config=stage(method="ppo", task="gsm8k"), metrics=rows, complete=True)
    assert ("returns-below-reward" in {one.code for one in findings(history)}) is said


@pytest.mark.parametrize(("loss", "solved", "said"), [(0.002, 0.44, True), (0.002, 0.97, False), (0.1, 0.44, False)])
def test_a_loss_of_nothing_in_a_model_that_solves_little(loss: float, solved: float, *, said: bool) -> None:
    rows = [{"step": n, "optim/loss": loss, "optim/tokens": 128.0} for n in range(1, 21)]
    evals = [EvalRecord.model_validate({"step": 0, "metrics": {"avg@1": [solved, solved - 0.02, solved + 0.02]}})]
    history = History(config=stage(method="sft"), metrics=rows, evals=evals, complete=True)
    assert ("loss-covers-little" in {one.code for one in findings(history)}) is said


def test_accuracies_of_pairs_are_not_compared_with_those_of_problems() -> None:
    """A dpo stage writes both: the ranking of held-out pairs, and the share of solved problems at the end."""
    config = stage(method="dpo", preferences={"train": "pairs.jsonl"})
    evals = [
        EvalRecord.model_validate({"step": step, "metrics": {name: [value, value - 0.05, value + 0.05]}})
        for step, name, value in ((0, "avg@1", 0.42), (10, "accuracy", 0.96), (20, "avg@1", 0.55))
    ]
    history = History(config=config, metrics=[{"step": 1}], evals=evals, complete=True)
    assert "evaluation-falls" not in {one.code for one in findings(history)}
