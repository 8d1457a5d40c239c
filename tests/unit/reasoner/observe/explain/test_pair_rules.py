"""Faults of stages that learn from rows, planted in their records: each is named, and a healthy stage is silent."""

from __future__ import annotations

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
        opinion = {"change": probes["opinion"], **shares} if "opinion" in probes else None
        found = {"pairs": 64, "shifts": shifts, "opinion": opinion}
        evals[-1] = EvalRecord.model_validate({"step": 24, "metrics": figures, "probes": found})
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
