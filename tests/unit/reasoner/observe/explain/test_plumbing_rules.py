"""What every run must keep, broken in its records: each is named, and near misses are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from reasoner.observe.explain import findings
from reasoner.observe.explain.evaluation_rules import evaluation_rules
from reasoner.observe.explain.finding import Finding, Level
from reasoner.observe.explain.plumbing_rules import plumbing_rules
from reasoner.observe.explain.schedule_rules import schedule_rules
from reasoner.storage.history import EvalRecord, History, row_of
from tests.unit.reasoner.runs import Made, make_history, make_records, rollout, sample_tokens, stage

NEW = (plumbing_rules, evaluation_rules, schedule_rules)


def codes(history: History) -> set[str]:
    return {finding.code for rule in NEW for finding in rule(history)}


def named(history: History, code: str) -> Finding:
    return next(finding for finding in findings(history) if finding.code == code)


def graded(row: dict, *, right: bool, answer: str | None = None) -> None:
    """Give a row a verdict, and an answer that stands in its completion."""
    said = answer or (row["reference"] if right else str(int(row["reference"]) + 3))
    row["completion"], row["reward"] = f"makes #### {said}", float(right)
    row["verdict"] |= {"outcome": "correct" if right else "incorrect", "reward": float(right), "answer": said}


@pytest.mark.parametrize("seed", range(6))
def test_a_healthy_run_breaks_nothing(seed: int) -> None:
    history = make_history(make_records(seed=seed, steps=20))
    history.metrics = [{**row, "data/epoch": 0.01 * (row["step"] or 0)} for row in history.metrics]
    history.eval_rows = evaluated(seed=seed)
    assert codes(history) == set()


def test_rows_that_reach_no_update() -> None:
    made = make_records()
    made.updates = [update for update in made.updates if update["group"] % 2]
    finding = named(make_history(made), "rollouts-unused")
    assert finding.title.startswith("50 %")
    dropped = make_records()
    dropped.updates = [{**u, "dropped": "no signal in its group", "advantage": None} for u in dropped.updates]
    assert "rollouts-unused" not in codes(make_history(dropped))
    unfinished = make_records()
    unfinished.updates = [update for update in unfinished.updates if update["step"] < 12]  # stopped in its last step
    assert "rollouts-unused" not in codes(make_history(unfinished))


@pytest.mark.parametrize(
    ("problems", "epoch", "said"), [(12, 0.0, True), (40, 0.5, True), (72, 0.5, False), (12, 6.0, False)]
)
def test_problems_that_come_again_before_the_pass_is_over(problems: int, epoch: float, said: bool) -> None:
    """72 draws: of a passed half epoch, of none at all, or of six passes over 12 problems."""
    made = make_records()
    for row in made.rollouts:
        row["problem"] = f"p{(6 * (row['step'] - 1) + row['group']) % problems}"
    for figures in made.metrics:
        figures["data/epoch"] = epoch * figures["step"] / 12
    assert ("problems-repeat" in codes(make_history(made))) is said
    assert "problems-repeat" not in codes(make_history(made, rollout={"sampling": "difficulty"}))


def test_samples_that_are_copies() -> None:
    first: dict[tuple[int, int], dict] = {}

    def copy(row: dict, rng: np.random.Generator) -> None:
        source = first.setdefault((row["step"], row["group"]), row)
        if row is not source and row["sample"] % 2:
            row.update({key: source[key] for key in ("token_ids", "rollout_logprobs", "completion", "reward")})

    assert "samples-not-independent" in codes(make_history(make_records(change=copy)))
    # a policy that is nearly certain writes equal samples, and says so in its log-probabilities
    sure = make_records(
        length=3, sampled=lambda logits: _softmax(40 * logits), reported=lambda logits: _softmax(40 * logits)
    )
    for rows in _groups(sure):
        for row in rows:
            row["token_ids"], row["rollout_logprobs"] = rows[0]["token_ids"], [-0.01, 0.0, 0.0]
    assert "samples-not-independent" not in codes(make_history(sure))


def _softmax(logits: np.ndarray) -> np.ndarray:
    scaled = np.exp(logits - logits.max(-1, keepdims=True))
    return scaled / scaled.sum(-1, keepdims=True)


def _groups(made: Made) -> list[list[dict]]:
    found: dict[tuple[int, int], list[dict]] = {}
    for row in made.rollouts:
        found.setdefault((row["step"], row["group"]), []).append(row)
    return [*found.values()]


@pytest.mark.parametrize("place", ["sample", "group"])
def test_rewards_by_position(place: str) -> None:
    def first(row: dict, rng: np.random.Generator) -> None:
        if row[place] == 0:
            graded(row, right=True)

    finding = named(make_history(make_records(change=first, steps=20)), "reward-by-position")
    assert f"{place} 0 is rewarded +" in finding.title
    # with a curriculum, or with several tasks, the place of a group may mean something
    alternating = make_history(make_records(change=first, steps=20), rollout={"shuffle": False})
    assert ("reward-by-position" in codes(alternating)) is (place == "sample")


def test_verdicts_one_row_late() -> None:
    late = make_records(steps=20)
    verdicts = [(row["verdict"], row["reward"]) for row in late.rollouts]
    for row, (verdict, reward) in zip(late.rollouts[1:], verdicts, strict=False):
        row["verdict"], row["reward"] = verdict, reward
    history = make_history(late)
    assert "1 rows before" in named(history, "verdicts-misplaced").evidence[0]
    assert findings(history)[0].code == "verdicts-misplaced"

    def rewritten(row: dict, rng: np.random.Generator) -> None:
        row["verdict"]["answer"] = f"Rational({row['verdict']['answer']}, 1)"

    assert "verdicts-misplaced" not in codes(make_history(make_records(change=rewritten)))


def wrong_references(share: float) -> Callable[[dict, np.random.Generator], None]:
    def change(row: dict, rng: np.random.Generator) -> None:
        a, b = map(int, row["problem"].removeprefix("add/").split("+"))
        shifted = np.random.default_rng(a * 100 + b).random() < share
        row["reference"] = str(a + b + (10 if shifted else 0))
        said = a + b if rng.random() < 0.95 else a + b + 1
        graded(row, right=str(said) == row["reference"], answer=str(said))

    return change


def test_references_that_whole_groups_contradict() -> None:
    finding = named(make_history(make_records(change=wrong_references(0.3), steps=20)), "references-doubtful")
    assert "the group says" in finding.evidence[0]
    assert "references-doubtful" not in codes(make_history(make_records(change=wrong_references(0.0), steps=20)))

    def stuck(row: dict, rng: np.random.Generator) -> None:  # one answer to everything is the policy's fault
        graded(row, right=row["group"] % 2 == 0, answer=row["reference"] if row["group"] % 2 == 0 else "0")

    assert "references-doubtful" not in codes(make_history(make_records(change=stuck, steps=20)))


def test_noise_on_rewards_in_degrees() -> None:
    def scored(noise: float) -> Callable[[dict, np.random.Generator], None]:
        def change(row: dict, rng: np.random.Generator) -> None:
            length = int(rng.integers(1, 4))
            row["problem"], row["prompt"], row["completion"] = f"p{row['group']}", f"say {row['group']}", "so " * length
            row["reward"] = length / 4 + noise * float(rng.normal())
            row["verdict"] |= {"outcome": "scored", "reward": row["reward"], "answer": None}

        return change

    finding = named(make_history(make_records(change=scored(0.3))), "inconsistent-verdicts")
    assert finding.level is Level.WARNING
    quiet = findings(make_history(make_records(change=scored(1e-4))))  # a batched model rounds in the last digits
    assert "inconsistent-verdicts" not in {each.code for each in quiet}


def test_token_ids_that_are_another_text(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    words = {"zero": 0, "one": 1, "two": 2, "three": 3}
    Tokenizer(WordLevel(words, unk_token="zero")).save(str(tmp_path / "final" / "tokenizer.json"))
    names = list(words)

    def spell(row: dict, rng: np.random.Generator) -> None:
        row["token_ids"] = [int(token) for token in rng.integers(0, 4, 12)]
        row["completion"] = " ".join(names[token] for token in row["token_ids"])
        row["prompt"], row["prompt_ids"] = "one two", [1, 2]

    history = make_history(make_records(change=spell))
    history.folder = tmp_path
    assert "ids-are-not-the-text" not in codes(history)
    for row in history.rows:
        row.token_ids = np.where(row.token_ids == 1, 2, row.token_ids)
    assert "of the completions decode to another text" in named(history, "ids-are-not-the-text").title


# ------------------------------------------------------------------------------------------------- evaluation


def evaluated(
    *,
    seed: int = 0,
    step: int = 20,
    accuracy: float = 0.8,
    change: Callable[[dict], None] = lambda row: None,
) -> list:
    rng = np.random.default_rng(1000 + seed)
    drawn = sample_tokens(rng, 64, 12)
    rows = [rollout(rng, step, group, 0, drawn, group, accuracy) for group in range(64)]
    for row in rows:
        row["problem"] = f"held-out/{row['group']}"
        row["prompt"] = f"held-out {row['group']}: " + row["prompt"]
        row["question"] = row["prompt"]
        change(row)
    return [row_of(row) for row in rows]


def asked(row: dict) -> None:
    row["question"], row["prompt"] = row["prompt"].strip(), f"Solve: {row['prompt'].strip()} Answer:"


def test_an_evaluation_with_another_form_of_prompt() -> None:
    history = make_history(make_records(steps=20, change=lambda row, rng: asked(row)))
    history.eval_rows = evaluated(change=asked)
    assert codes(history) == set()
    history.eval_rows = evaluated(accuracy=0.0)
    found = findings(history)
    assert found[0].code == "evaluation-prompts-differ"
    assert next(f for f in found if f.code == "evaluation-below-training").follows == "evaluation-prompts-differ"


def test_an_evaluation_on_training_problems() -> None:
    history = make_history(make_records(steps=20))
    trained = [row.prompt for row in history.rows][::8]

    def seen(row: dict) -> None:
        row["prompt"] = row["question"] = trained[row["group"] % len(trained)]

    history.eval_rows = evaluated(change=lambda row: seen(row) if row["group"] % 2 else None)
    assert "evaluation-overlaps" in codes(history)
    history.eval_rows = evaluated(change=lambda row: seen(row) if row["group"] < 2 else None)
    assert "evaluation-overlaps" not in codes(history)


def test_an_evaluation_far_below_training() -> None:
    history = make_history(make_records(steps=20, accuracy=lambda step: 0.9))
    history.eval_rows = evaluated(accuracy=0.3)
    assert "evaluation-below-training" in codes(history)
    history.eval_rows = evaluated(accuracy=0.75)  # the policy rises, and the problems differ a little
    assert "evaluation-below-training" not in codes(history)
    history.eval_rows = evaluated(accuracy=0.3, step=0)  # before training
    assert "evaluation-below-training" not in codes(history)
    greedy = make_history(make_records(steps=20, accuracy=lambda step: 0.9), eval={"temperature": 0.0})
    greedy.eval_rows = evaluated(accuracy=0.3)
    assert "evaluation-below-training" not in codes(greedy)


def test_an_evaluation_that_is_cut_short() -> None:
    def cut(row: dict) -> None:
        row["finish_reason"] = "length" if row["group"] % 2 else "stop"

    history = make_history(make_records(steps=20), eval={"max_tokens": 8})
    history.eval_rows = evaluated(change=cut)
    assert "evaluation at 8 tokens" in named(history, "evaluation-cut").evidence[0]

    def all_cut(row: dict, rng: np.random.Generator) -> None:
        row["finish_reason"] = "length"

    as_in_training = make_history(make_records(steps=20, change=all_cut))
    as_in_training.eval_rows = evaluated(change=cut)
    assert "evaluation-cut" not in codes(as_in_training)


# ------------------------------------------------------------------------------------------- schedule, reference


def measured(*, config: dict | None = None, steps: int = 20, **series: Callable[[int], float]) -> History:
    history = make_history(make_records(steps=steps), **(config or {}))
    named = {name.replace("__", "/"): value for name, value in series.items()}
    history.metrics = [
        {**row, **{name: value(int(row["step"] or 0)) for name, value in named.items()}} for row in history.metrics
    ]
    return history


def test_a_learning_rate_of_zero() -> None:
    optim = {"optim": {"lr": 1e-5}}
    assert "learning-rate-zero" in codes(measured(config=optim, optim__lr=lambda s: 1e-5 if s <= 5 else 0.0))
    assert codes(measured(config=optim, optim__lr=lambda s: 1e-5 * (1 - s / 20))) == set()


def test_a_warm_up_as_long_as_the_run() -> None:
    config = {"optim": {"lr": 1e-5, "warmup_steps": 18}}
    assert codes(measured(config=config, optim__lr=lambda s: 1e-5 * s / 18)) == {"warm-up-too-long"}
    short = {"optim": {"lr": 1e-5, "warmup_steps": 5}}
    assert codes(measured(config=short, optim__lr=lambda s: 1e-5 * min(1, s / 5))) == set()


def test_a_kl_penalty_that_ends_the_rise() -> None:
    def held(coef: float, kl: float, *, reward: float = 0.7, signal: float = 0.8, **algorithm: object) -> bool:
        history = measured(
            config={"algorithm": {"kl_coef": coef, **algorithm}},
            reward__mean=lambda s: 0.4 + (reward - 0.4) * min(1, s / 14) + 0.01 * (s % 2),
            reward__std=lambda s: 0.5,
            groups__signal=lambda s: signal,
            kl__penalty=lambda s: coef * kl * min(1, s / 14),
        )
        return "kl-coef-too-large" in {finding.code for finding in findings(history)}

    assert held(0.5, 0.57)
    assert not held(0.04, 0.9)
    assert not held(0.15, 0.8)
    assert not held(0.5, 0.57, signal=0.2)  # nothing is left to learn
    assert not held(0.5, 0.57, reward=0.4)  # nothing was gained: the penalty is of a drift
    assert not held(0.5, 0.57, kl_in="reward")
    assert not held(0.5, 0.57, advantage="reinforce_pp")
    assert held(0.5, 0.3, advantage="dr_grpo")  # its advantages have the unit of the reward


def test_references_that_are_not_the_start() -> None:
    config = {"algorithm": {"kl_coef": 0.01}}
    other = {"algorithm": {"kl_coef": 0.01, "reference": "another/model"}}
    risen = {"policy__kl_ref": lambda s: 1e-3 * (s - 1)}
    assert codes(measured(config=config, **risen)) == set()
    assert codes(measured(config=config, policy__kl_ref=lambda s: 2.7)) == {"reference-is-another-model"}
    assert codes(measured(config=other, policy__kl_ref=lambda s: 2.7)) == {"reference-is-another-model"}
    assert codes(measured(config=other, policy__kl_ref=lambda s: 0.2)) == set()  # chosen, and near
    assert codes(measured(config=config, policy__kl_ref=lambda s: 0.0)) == {"reference-moves"}
    still = {"policy__kl_ref": lambda s: 0.0, "policy__step_kl": lambda s: 0.0}
    assert codes(measured(config=config, **still)) == set()


@pytest.mark.parametrize(("share", "said"), [(0.25, True), (0.6, True), (0.97, False), (1.0, False)])
def test_tokens_that_no_mask_leaves_out_and_that_are_not_trained(share: float, said: bool) -> None:
    made = make_records(steps=20)
    history = make_history(made)
    for figures in made.metrics:
        rows = [row for row in history.by_step[figures["step"]] if row.trainer is not None and row.dropped is None]
        figures["optim/tokens"] = share * sum(len(row.policy_logprobs) for row in rows)
    assert ("tokens-not-trained" in codes(make_history(made))) is said
    assert "tokens-not-trained" not in codes(make_history(made, algorithm={"mask_truncated": True}))


def test_advantages_that_are_not_compared_with_their_own_group() -> None:
    made = make_records(steps=20)
    whole = {(u["step"], u["group"]): u for u in made.updates if u.get("advantage") is not None}
    for update in made.updates:  # the baseline is that of the batch
        if (update["step"], update["group"]) in whole:
            rewards = [row["reward"] for row in made.rollouts if row["step"] == update["step"]]
            place = (update["step"], update["group"], update["sample"])
            own = next(row for row in made.rollouts if (row["step"], row["group"], row["sample"]) == place)
            update["advantage"] = own["reward"] - float(np.mean(rewards))
    finding = named(make_history(made), "advantages-not-of-their-group")
    assert "the group's mean" in finding.evidence[0]
    # an estimator whose baseline is the batch is not held to it
    batch = make_history(made, algorithm={"advantage": "reinforce_pp"})
    assert "advantages-not-of-their-group" not in {one.code for one in findings(batch)}
    assert "advantages-not-of-their-group" not in {one.code for one in findings(make_history(make_records(steps=20)))}


@pytest.mark.parametrize(("finish", "advice"), [("length", "raise rollout.max_tokens"), ("stop", "stop strings")])
def test_answers_that_are_cut(finish: str, advice: str) -> None:
    def cut(row: dict, rng: np.random.Generator) -> None:
        row["reference"] = "1" + row["reference"]
        graded(row, right=rng.random() < 0.2)
        if not row["reward"]:
            graded(row, right=False, answer=row["reference"][:-1])
            row["finish_reason"] = finish

    finding = named(make_history(make_records(change=cut, steps=20)), "answers-cut")
    assert advice in finding.change

    def other(row: dict, rng: np.random.Generator) -> None:  # as short, but not the beginning of the reference
        cut(row, rng)
        if not row["reward"]:
            graded(row, right=False, answer="9" + row["reference"][1:-1])

    assert "answers-cut" not in {one.code for one in findings(make_history(make_records(change=other, steps=20)))}


@pytest.mark.parametrize(("temperature", "said"), [(0.2, True), (1.0, False)])
def test_an_evaluation_that_is_sampled_otherwise(temperature: float, said: bool) -> None:
    history = make_history(make_records(steps=20))
    drawn = sample_tokens(np.random.default_rng(5), 64, 12, sampled=lambda logits: _softmax(logits / temperature))
    history.eval_rows = evaluated()
    for place, row in enumerate(history.eval_rows):
        row.token_ids, row.logprobs = drawn.ids[place], drawn.engine[place].astype(np.float32)
    assert ("evaluation-sampled-otherwise" in codes(history)) is said
    colder = make_history(make_records(steps=20), eval={"temperature": 0.2})
    colder.eval_rows = history.eval_rows
    assert "evaluation-sampled-otherwise" not in codes(colder)


@pytest.mark.parametrize(
    ("values", "level"),
    [((0.6, 0.2), Level.WARNING), ((0.6, 0.4), Level.NOTE), ((0.6, 0.58), None), ((0.2, 0.6), None)],
)
def test_an_evaluation_that_falls_in_a_stage_of_demonstrations(values: tuple[float, ...], level: Level | None) -> None:
    def history(method: str) -> History:
        made = History(config=stage(method=method), complete=True)
        made.evals = [
            EvalRecord.model_validate({"step": n, "metrics": {"avg@1": [value, value - 0.04, value + 0.04]}})
            for n, value in enumerate(values)
        ]
        return made

    found = {one.code: one.level for one in findings(history("sft"))}
    assert found.get("evaluation-falls") == level
    assert "evaluation-falls" not in {one.code for one in findings(history("grpo"))}


@pytest.mark.parametrize(("kl", "said"), [(-4.0, True), (-0.2, False), (4.0, False)])
def test_a_kl_below_zero(kl: float, said: bool) -> None:
    made = make_records(steps=20)
    for figures in made.metrics:
        figures["kl/ref"] = kl * figures["step"] / 20
    assert ("kl-negative" in codes(make_history(made, algorithm={"kl_coef": 0.1}))) is said


def test_copies_of_a_policy_that_samples_colder_than_it_says() -> None:
    """Samples of a group that are alike: sampled by the largest logit, or (a near miss) by equal seeds."""
    said = {}
    for name, sampled in (("colder", lambda logits: _softmax(9 * logits)), ("copies", _softmax)):
        made = make_records(steps=20, length=3, sampled=sampled, reported=_softmax)
        for rows in _groups(made):
            for row in rows:
                row["token_ids"], row["rollout_logprobs"] = rows[0]["token_ids"], rows[0]["rollout_logprobs"]
        said[name] = codes(make_history(made))
    assert "sampling-sharper" in said["colder"]
    assert "samples-not-independent" in said["copies"]
    assert "sampling-sharper" not in said["copies"]
