from __future__ import annotations

import pytest

from reasoner.config.sections import AlgorithmSection
from reasoner.monitoring.no_signal import SilentSteps, no_signal_advice
from tests.unit.reasoner.monitoring.test_metrics import HALF, RIGHT, WRONG, group

LEARNED = (
    "no group has signal: every graded group is all right, so there is nothing left to learn from it; without differing"
    " rewards there is no gradient. Try: use harder problems."
)
MODEL = "start from a model that solves some of it (an sft stage, an instruct model)"


def test_all_right_wants_harder_problems_whatever_else_is_there() -> None:
    assert no_signal_advice({"groups/all_right": 1.0}) == LEARNED
    mixed = {"groups/all_right": 0.6, "groups/all_wrong": 0.4, "completion/truncated": 0.9, "outcome/no_answer": 0.4}
    assert no_signal_advice(mixed) == LEARNED.replace("every graded group is", "60% of the groups are")


def test_equal_rewards_that_are_neither_right_nor_wrong_are_no_sign_of_hard_problems() -> None:
    said = no_signal_advice({"groups/signal": 0.0, "groups/all_right": 0.0, "groups/all_wrong": 0.0})
    assert "neither all right nor all wrong" in said
    assert "easier" not in said


@pytest.mark.parametrize(
    ("metrics", "cause", "tries"),
    [
        ({"groups/all_wrong": 1.0}, "100% of the groups are all wrong", [MODEL]),
        ({"groups/all_wrong": 0.5, "groups/all_right": 0.5}, "50% of the groups are all wrong", [MODEL]),
        (
            {"groups/all_wrong": 0.75, "completion/truncated": 0.2, "outcome/no_answer": 0.2},
            "75% of the groups are all wrong, 20% of the rollouts give no answer that the verifier can find,"
            " 20% stop at rollout.max_tokens",
            [MODEL],
        ),
        (
            {"groups/all_wrong": 1.0, "completion/truncated": 0.3},
            "100% of the groups are all wrong, 30% stop at rollout.max_tokens",
            ["raise rollout.max_tokens", MODEL],
        ),
        (
            {"groups/all_wrong": 1.0, "completion/truncated": 0.3, "outcome/no_answer": 0.9},
            "100% of the groups are all wrong, 90% of the rollouts give no answer that the verifier can find,"
            " 30% stop at rollout.max_tokens",
            [
                "say in prompt.system or prompt.template how the answer must be written",
                "raise rollout.max_tokens",
                MODEL,
            ],
        ),
        (
            {"groups/all_wrong": 1.0, "completion/truncated": 0.7, "turns/cut": 0.6},
            "100% of the groups are all wrong, 10% stop at rollout.max_tokens, 60% in a turn that reaches"
            " rollout.turn_tokens",
            ["teach the policy to end its turns with a stop string, or raise rollout.turn_tokens", MODEL],
        ),
    ],
    ids=["nothing known", "as many right as wrong", "some of each", "cut off", "cut off and no answer", "long turns"],
)
def test_all_wrong_names_its_causes_and_the_nearest_remedy_first(
    metrics: dict[str, float], cause: str, tries: list[str]
) -> None:
    advice = "; ".join([*tries, "use easier problems", "raise rollout.group_size"])
    assert no_signal_advice(metrics) == (
        f"no group has signal: {cause}; without differing rewards there is no gradient. Try: {advice}."
    )


def told(section: AlgorithmSection, **metrics: float) -> str | None:
    named = {name.replace("_", "/", 1): value for name, value in metrics.items()}
    return SilentSteps(section).advice({"groups/signal": 1.0, **named}, [group(HALF, WRONG, HALF, WRONG)])


def test_a_step_of_rejection_sampling_that_accepts_nothing_says_so_with_its_threshold() -> None:
    section = AlgorithmSection(advantage="rejection")
    assert told(section, groups_rows_acting=0.0) == (
        "no rollout reaches algorithm.advantage_options.threshold=1 (the best of 4 has 0.5): every advantage is 0, and"
        " the step changes nothing. Set algorithm.advantage_options.threshold=0.5, which the best quarter of them has,"
        " or compare rewards instead (algorithm.advantage=grpo)."
    )
    assert told(section, groups_rows_acting=1.0) is None
    lower = AlgorithmSection(advantage="rejection", advantage_options={"threshold": 0.75})
    assert "threshold=0.75 (the best of 4 has 0.5)" in (told(lower, groups_rows_acting=0.0) or "")


def test_equal_rewards_below_the_threshold_have_no_threshold_to_be_set() -> None:
    silent = SilentSteps(AlgorithmSection(advantage="rejection"))
    said = silent.advice({"groups/signal": 0.0}, [group(WRONG, WRONG)])
    assert said is not None
    assert "Set algorithm" not in said
    assert said.endswith("Compare rewards instead (algorithm.advantage=grpo).")


@pytest.mark.parametrize(("name", "watched"), [("grpo", True), ("reinforce_pp", False), ("gae", False)])
def test_an_estimator_that_compares_within_groups_wants_signal(name: str, watched: bool) -> None:
    silent = SilentSteps(AlgorithmSection(advantage=name))
    metrics = {"groups/signal": 0.0, "groups/all_right": 1.0, "groups/rows_acting": 0.0}
    said = [silent.advice(metrics, [group(RIGHT, RIGHT)]) for _ in range(12)]
    assert [line is not None for line in said] == [watched and at in (0, 10) for at in range(12)]
    assert silent.advice({"groups/signal": 0.5}, [group(RIGHT, WRONG)]) is None
