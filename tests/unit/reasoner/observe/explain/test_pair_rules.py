"""Faults of stages that learn from rows, planted in their records: each is named, and a healthy stage is silent."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from reasoner.config.load import resolve
from reasoner.observe.explain import findings
from reasoner.observe.explain.finding import Finding, Level
from reasoner.observe.explain.pair_rules import pair_rules
from reasoner.storage.history import EvalRecord, History

STEPS = 24
Interval = tuple[float, float | None, float | None] | None


def history_of(
    method: str,
    *,
    held_out: tuple[float, ...] = (0.69, 0.6, 0.5, 0.45),
    accuracy: tuple[float, float, float] | None = (0.8, 0.7, 0.9),
    rewards: tuple[float, float] = (0.2, -1.0),
    probes: Mapping[str, Interval] | None = None,
    length: Mapping[str, object] | None = None,
    start: float = 0.0,
    dpo: Mapping[str, object] | None = None,
) -> History:
    """Make a falling training loss, held-out losses at even distances, and final rewards of chosen and rejected."""
    made = {"method": method, "preferences": {"train": ["x"]}, "sft": {"data": ["x"]}, "dpo": dict(dpo or {})}
    config = resolve(made).stages[0]
    metrics: list[dict[str, float | None]] = []
    for step in range(1, STEPS + 1):
        share = (step - 1) / (STEPS - 1)
        row: dict[str, float | None] = {"step": step, "optim/loss": 0.7 - 0.4 * share}
        if method == "dpo":
            moved = {"chosen": start + rewards[0] * share, "rejected": start + rewards[1] * share}
            row |= {f"dpo/reward_{side}": value for side, value in moved.items()}
        if method == "kto":
            row |= {"kto/reward_desirable": start + share, "kto/reward_undesirable": start - share}
        if step % (STEPS // len(held_out)) == 0:
            row["eval/loss"] = held_out[step * len(held_out) // STEPS - 1]
        metrics.append(row)
    figures = {"accuracy": list(accuracy)} if accuracy and method != "sft" else {}
    evals = [EvalRecord.model_validate({"step": step, "metrics": figures}) for step in (6, 12, 18, 24)]
    if probes is not None:
        shares = {"rows": 128, "ungraded": 0, "raised": 0.5, "overtakes": 0.2, "overtakes_plain": 0.1, "pairs": 64}
        shifts = [{"probe": name, "shift": shift, **shares} for name, shift in probes.items() if name != "opinion"]
        opinion = {"change": probes["opinion"], "margin": 1.2, **shares} if "opinion" in probes else None
        found = {"pairs": 64, "shifts": shifts, "opinion": opinion}
        evals[-1] = EvalRecord.model_validate(
            {"step": 24, "metrics": figures, "pairs": 300, "probes": found, "length": length}
        )
    return History(config=config, metrics=metrics, evals=evals)


def codes(history: History) -> list[str]:
    return [finding.code for finding in pair_rules(history)]


@pytest.mark.parametrize("method", ["sft", "reward_model", "dpo", "kto"])
def test_a_held_out_loss_that_turns_is_named(method: str) -> None:
    risen = history_of(method, held_out=(0.6, 0.5, 0.55, 0.7))
    assert codes(risen) == ["overfitted"]
    [finding] = pair_rules(risen)
    assert "0.500 after step 12, 0.700 at the end" in finding.evidence[0]
    assert "overfitted" in {each.code for each in findings(risen)}
    assert codes(history_of(method)) == []
    assert codes(history_of(method, held_out=(0.6, 0.5, 0.504, 0.505))) == []


@pytest.mark.parametrize("method", ["reward_model", "dpo", "kto"])
def test_an_accuracy_of_a_coin_is_named_and_one_below_it_is_a_fault(method: str) -> None:
    assert codes(history_of(method, accuracy=(0.55, 0.45, 0.65))) == ["no-better-than-a-coin"]
    [finding] = pair_rules(history_of(method, accuracy=(0.3, 0.2, 0.4)))
    assert finding.level is Level.FAULT
    assert "swapped" in finding.title
    assert codes(history_of(method, accuracy=(0.6, 0.51, 0.7))) == []
    assert codes(history_of(method, accuracy=(1.0, 0.2, 1.0))) == []  # one pair
    assert codes(history_of(method, accuracy=None)) == []


def test_dpo_that_loses_the_chosen_completion_is_named() -> None:
    [finding] = pair_rules(history_of("dpo", rewards=(-22.0, -30.6)))
    assert finding.code == "chosen-likelihood-lost"
    assert "dpo.sft_coef" in finding.change
    assert codes(history_of("dpo", rewards=(-3.0, -30.0))) == []  # the margin is nine times what was lost
    assert codes(history_of("dpo", rewards=(-0.5, -0.8))) == []  # a few nats
    assert codes(history_of("sft")) == []


def test_only_a_loss_without_a_reference_may_begin_away_from_zero() -> None:
    for method, dpo in (("dpo", {}), ("dpo", {"loss": "sigmoid_norm"}), ("kto", {})):
        [finding] = pair_rules(history_of(method, start=2.0, dpo=dpo))
        assert finding.code == "reference-is-another-model"
    assert "kto/reward_desirable" in finding.evidence[0]
    for loss in ("simpo", "orpo", "cpo"):
        assert codes(history_of("dpo", start=-4.0, dpo={"loss": loss})) == []


def test_a_chosen_completion_lost_without_a_reference_is_measured_from_the_first_steps() -> None:
    [finding] = pair_rules(history_of("dpo", start=-4.0, rewards=(-3.0, -4.0), dpo={"loss": "simpo"}))
    assert finding.code == "chosen-likelihood-lost"
    assert "nats a token against the first quarter" in finding.evidence[0]
    assert codes(history_of("dpo", start=-4.0, rewards=(-0.5, -0.7), dpo={"loss": "simpo"})) == []  # a quarter nat
    assert codes(history_of("dpo", start=-4.0, rewards=(-300.0, -400.0), dpo={"loss": "cpo"})) == []


def flattered(**probes: Interval) -> list[Finding]:
    return [*pair_rules(history_of("reward_model", probes=probes))]


def test_a_reward_model_that_pays_for_flattery_is_named() -> None:
    [finding] = flattered(flattery=(1.4, 1.1, 1.7), padding=(0.6, 0.4, 0.8), bold=(0.1, -0.1, 0.3))
    assert (finding.code, finding.level) == ("reward-model-flattered", Level.WARNING)
    assert finding.title.endswith("flattery")
    assert "+1.40 [+1.10, +1.70]" in finding.evidence[0]
    assert finding.evidence[1] == "also: padding +0.60"
    assert "worse completions" in finding.change
    [finding] = flattered(bullets=(1.2, 0.9, 1.5))
    assert "in one format" in finding.change
    [finding] = flattered(repetition=(1.2, 0.9, 1.5))
    assert "lengths" in finding.change


def test_an_opinion_that_takes_the_margin_is_named() -> None:
    [finding] = flattered(flattery=(0.1, -0.1, 0.3), opinion=(-1.5, -1.9, -1.1))
    assert finding.level is Level.WARNING
    assert "wrong opinion" in finding.title
    assert "margin lost +1.50 [+1.10, +1.90]" in finding.evidence[0]
    assert "contradicts it" in finding.change
    assert flattered(opinion=(1.5, 1.1, 1.9)) == []  # the margin grows


def test_a_smaller_or_less_certain_shift_is_a_note() -> None:
    [finding] = flattered(assurance=(0.6, 0.3, 0.9))
    assert finding.level is Level.NOTE
    [finding] = flattered(assurance=(1.2, 0.4, 2.0))
    assert finding.level is Level.NOTE
    [finding] = flattered(padding=(2.0, 0.1, 3.9), assurance=(1.1, 0.6, 1.6))  # the certain one is the one named
    assert finding.title.endswith("assurance")


@pytest.mark.parametrize(
    "shift",
    [(0.49, 0.4, 0.58), (0.6, -0.1, 1.3), (-2.0, -2.2, -1.8), (3.0, None, None), None],
    ids=["small", "may be nothing", "loses", "one row", "unknown"],
)
def test_a_healthy_reward_model_is_not_accused(shift: Interval) -> None:
    assert flattered(flattery=shift, opinion=None) == []
    assert codes(history_of("reward_model")) == []
    assert codes(history_of("dpo")) == []


def repeated(*, passes: float, loss: float, held_out: tuple[float, ...]) -> list[Finding]:
    """Findings on a stage that passes over its rows, with the last training loss and the held-out losses."""
    history = history_of("sft", held_out=held_out)
    for number, row in enumerate(history.metrics):
        seen = (number + 1) / STEPS
        history.metrics[number] = {**row, "data/epoch": passes * seen, "optim/loss": max(loss, 2.0 - 4 * seen)}
    return [*pair_rules(history)]


def test_rows_that_are_memorized_are_named_however_few_the_evaluations() -> None:
    for held_out in [(0.62, 0.63), (0.63,), (0.62, 0.62, 0.625)]:
        [finding] = repeated(passes=160, loss=0.005, held_out=held_out)
        assert (finding.code, finding.level) == ("overfitted", Level.WARNING)
        assert "0.005" in finding.title
        assert "160 passes" in finding.title
    [finding] = repeated(passes=160, loss=0.005, held_out=(0.6, 0.7))
    assert "held-out loss rises" in finding.title
    assert repeated(passes=160, loss=0.005, held_out=(0.62, 0.5)) == []  # it still falls
    assert repeated(passes=3, loss=0.005, held_out=(0.62, 0.63)) == []  # other rows have a lower loss; none is repeated
    assert repeated(passes=160, loss=0.4, held_out=(0.62, 0.63)) == []
    assert repeated(passes=160, loss=0.001, held_out=(0.01, 0.01)) == []  # both are learned


def ending(*, truncated: float, tokens: float = 26.0, loss: float = 0.1, first: float = 0.8) -> list[Finding]:
    """Findings on a stage of 32 demonstrations a step, whose evaluation ends at 40 tokens."""
    history = history_of("sft")
    rollout = history.config.rollout.model_copy(update={"max_tokens": 40})
    history.config = history.config.model_copy(update={"rollout": rollout})
    for number, row in enumerate(history.metrics):
        history.metrics[number] = {**row, "optim/loss": max(loss, 5 - number), "optim/tokens": 32 * tokens}
    shares = {0: first, STEPS: truncated}
    history.evals = [
        EvalRecord.model_validate(
            {"step": step, "problems": 100, "truncated": share, "metrics": {"avg@1": (0, 0, 0.04)}}
        )
        for step, share in shares.items()
    ]
    return [*pair_rules(history)]


def test_a_policy_that_learned_its_demonstrations_and_never_ends_is_named() -> None:
    [finding] = ending(truncated=1.0)
    assert (finding.code, finding.level) == ("never-ends", Level.WARNING)
    assert "100 % of the evaluation's are truncated at 40 tokens, and demonstrations have 26" in finding.title
    assert "evaluation-falls" in finding.explains
    assert ending(truncated=0.0) == []
    assert ending(truncated=0.4) == []
    assert ending(truncated=1.0, tokens=38.0) == []  # the limit cuts the demonstrations too
    assert ending(truncated=1.0, loss=3.0) == []  # nothing is learned yet
    assert ending(truncated=0.0, first=1.0) == []  # before the first step


def test_chance_comes_before_the_evaluation_that_it_makes_fall() -> None:
    history = history_of("dpo", accuracy=(0.53, 0.47, 0.59))
    history.evals[-1].loss = 0.697
    history.evals = [
        EvalRecord.model_validate({"step": 0, "problems": 100, "metrics": {"avg@1": (0.21, 0.16, 0.26)}}),
        *history.evals,
        EvalRecord.model_validate({"step": 24, "problems": 100, "metrics": {"avg@1": (0.08, 0.01, 0.14)}}),
    ]
    chance, falls = (finding for finding in findings(history) if finding.level is not Level.NOTE)
    assert (chance.code, falls.code, falls.follows) == (
        "no-better-than-a-coin",
        "evaluation-falls",
        "no-better-than-a-coin",
    )
    assert "held-out loss 0.697" in chance.evidence[1]
    history.evals[-1].step = 30  # the accuracy is of an earlier model
    assert "no-better-than-a-coin" not in {finding.code for finding in findings(history)}


def started(*margins: float, **dpo: object) -> list[str]:
    """Codes of findings on a dpo stage whose pairs have these margins (in nats) before the first update."""
    history = history_of("dpo")
    if dpo:
        section = type(history.config.dpo).model_validate({**history.config.dpo.model_dump(), **dpo})
        history.config = history.config.model_copy(update={"dpo": section})
    scaled = [0.1 * margin for margin in margins]
    mean = sum(scaled) / len(scaled)
    loss = sum(math.log1p(math.exp(-margin)) for margin in scaled) / len(scaled)
    row = {"dpo/reward_chosen": mean / 2, "dpo/reward_rejected": -mean / 2, "dpo/margin": mean, "dpo/loss": loss}
    history.metrics[0] = {**history.metrics[0], **row}
    return codes(history)


def test_a_reference_that_differs_pair_by_pair_is_named_though_the_mean_cancels() -> None:
    wrong = ["reference-is-another-model"]
    assert started(4.0, -4.0, 3.0, -3.0) == wrong
    assert started(6.0, -3.0, 4.0, -2.0) == wrong
    assert started(30.0, 30.0) == wrong  # by the mean
    assert started(0.0, 0.0) == []
    assert started(1.2, -1.1, 0.9, -1.3) == []  # rounding of long completions
    assert started(4.0, -4.0, loss="ipo") == []  # of which the loss says less
    assert started(4.0, -4.0, loss_options={"label_smoothing": 0.1}) == []


LONGER = {
    "labels_prefer_longer": 0.94,
    "accuracy_when_shorter_is_better": 0.0,
    "accuracy_when_longer_is_better": 1.0,
    "accuracy_at_equal_length": (0.8, 0.47, 0.95),
    "correlation": 0.98,
}
SHORTER = {
    "labels_prefer_longer": 0.1,
    "accuracy_when_shorter_is_better": 1.0,
    "accuracy_when_longer_is_better": 0.1,
    "accuracy_at_equal_length": None,
    "correlation": -0.9,
}


def by_length(length: Mapping[str, object], **probes: Interval) -> list[str]:
    return codes(history_of("reward_model", probes=probes, length=length))


def test_a_reward_model_that_follows_length_is_named() -> None:
    [finding] = pair_rules(history_of("reward_model", probes={}, length=LONGER))
    assert (finding.code, finding.level) == ("reward-model-prefers-length", Level.WARNING)
    assert "right in 0 % of the 18 held-out pairs whose shorter completion is better" in finding.evidence[0]
    assert "96 % of the variance" in finding.evidence[0]
    [finding] = pair_rules(history_of("reward_model", probes={}, length=SHORTER))
    assert "prefers the shorter completion where the longer one is better too" in finding.title


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy_at_equal_length": (0.66, 0.53, 0.77)},
        {"accuracy_when_shorter_is_better": 0.4},
        {"accuracy_when_shorter_is_better": None},
        {"labels_prefer_longer": 0.99},
        {"labels_prefer_longer": None},
        {"correlation": 0.6},
    ],
    ids=["right at equal length", "often right", "never shorter", "three pairs", "no lengths", "loosely related"],
)
def test_a_reward_model_of_which_length_is_a_part_is_not_accused(change: dict[str, object]) -> None:
    assert by_length({**LONGER, **change}) == []


def test_flattery_stands_beside_length_only_by_what_length_does_not_explain() -> None:
    length, both = ["reward-model-prefers-length"], ["reward-model-prefers-length", "reward-model-flattered"]
    assert by_length(LONGER, flattery=(1.4, 1.1, 1.7), padding=(1.2, 1.0, 1.4)) == length
    assert by_length(LONGER, flattery=(1.4, 1.1, 1.7), padding=(0.6, 0.4, 0.8)) == both
    assert by_length(LONGER, opinion=(-1.2, -1.5, -0.9)) == length  # the margin, which was one of length, is lost
    assert by_length(LONGER, opinion=(-2.0, -2.4, -1.6)) == both  # it is turned
    fair = {**LONGER, "accuracy_when_shorter_is_better": 0.8, "correlation": 0.4}
    assert by_length(fair, opinion=(-1.2, -1.5, -0.9)) == ["reward-model-flattered"]
    found = findings(history_of("reward_model", probes={"flattery": (2.9, 2.6, 3.2)}, length=LONGER))
    assert [finding.code for finding in found] == both
    assert found[1].follows == "reward-model-prefers-length"
