"""A batch's fields, weights, parts and micro-batches against numbers worked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from reasoner.algorithm.batch import Batch, row_rewards
from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.records import Completion, FinishReason, Rollout
from tasks import Problem
from verifiers import Outcome, Verdict, graded


def stage(*, portions: int = 1, **algorithm: object) -> StageConfig:
    raw: dict[str, object] = {
        "task": "arithmetic",
        "model": "x",
        "rollout": {"max_tokens": 10, "problems_per_step": 4, "group_size": 2},
        "grading": {"portions": portions},
        "algorithm": algorithm,
    }
    return resolve(raw).stages[0]


def rollout(
    verdict: Verdict, *, mask: Sequence[bool] = (True,), prompt: int = 1, shaping: float = 0.0, cut: bool = False
) -> Rollout:
    """One whose prompt is 100, 101, ... and whose completion is 0, 1, ..., each token's log-probability -id."""
    completion = Completion(
        text="x",
        token_ids=tuple(range(len(mask))),
        rollout_logprobs=tuple(-float(token) for token in range(len(mask))),
        loss_mask=tuple(mask),
        segments=(),
        finish_reason=FinishReason.LENGTH if cut else FinishReason.STOP,
        policy_version=0,
    )
    return Rollout(
        problem=Problem(id="p", prompt="q", reference="1", verifier="exact"),
        prompt_text="q",
        prompt_ids=tuple(range(100, 100 + prompt)),
        completion=completion,
        verdict=verdict,
        sample_index=0,
        step=1,
        shaping=shaping,
    )


def summed(reward: float, components: dict[str, float], weights: dict[str, float]) -> Verdict:
    outcome = Outcome.CORRECT if components["a"] == 1 else Outcome.INCORRECT
    return Verdict(outcome=outcome, reward=reward, components=components, weights=weights, decided_by="a")


def rows() -> list[tuple[int, Rollout]]:
    """Three rows of 3, 2 and 1 completion tokens, of which 2, 2 and 1 are trained on."""
    right = summed(1.3, {"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 0.3})
    return [
        (7, rollout(graded(1.0, "r"), mask=(True, False, True), prompt=2, shaping=0.25)),
        (7, rollout(graded(0.0, "r"), mask=(True, True), shaping=-0.5)),
        (9, rollout(right, prompt=3)),
    ]


def batch_of(*lengths: int, config: StageConfig | None = None) -> Batch:
    """Rows of these lengths, one token of each the prompt's."""
    made = [(row, rollout(graded(1.0, "r"), mask=(True,) * (length - 1))) for row, length in enumerate(lengths)]
    return Batch.of_rollouts(made, config=config or stage())


def test_rollouts_as_rows_by_hand() -> None:
    made = Batch.of_rollouts(rows(), config=stage(aggregation="token"))
    assert len(made) == 3
    assert [ids.tolist() for ids in made.input_ids] == [[100, 101, 0, 1, 2], [100, 0, 1], [100, 101, 102, 0]]
    assert made.prompt_lengths_B.tolist() == [2, 1, 3]
    assert made.row_N.tolist() == [0, 0, 0, 1, 1, 2]
    assert made.row_starts() == [0, 3, 5, 6]
    assert made.loss_mask_N.tolist() == [True, False, True, True, True, True]
    assert made.reward_B.tolist() == [1.25, -0.5, 1.3]
    assert made.quality_B is not None
    assert made.quality_B.tolist() == [1.25, -0.5, 1.0], "the mark, whatever else the reward counts"
    assert made.group_B.tolist() == [7, 7, 9]
    assert made.rollout_logprobs_N.tolist() == [0.0, -1.0, -2.0, 0.0, -1.0, 0.0]
    assert made.weights_N.tolist() == pytest.approx([0.2, 0.0, 0.2, 0.2, 0.2, 0.2])


def test_a_truncated_completion_is_left_out_only_where_the_config_says_so() -> None:
    cut = [(0, rollout(graded(1.0, "r"), mask=(True, True), cut=True)), (0, rollout(graded(0.0, "r"), mask=(True,)))]
    for masked, kept in ((True, [False, False, True]), (False, [True, True, True])):
        assert Batch.of_rollouts(cut, config=stage(mask_truncated=masked)).loss_mask_N.tolist() == kept


def test_a_batch_is_built_by_name_and_never_changes() -> None:
    made = batch_of(2)
    with pytest.raises(FrozenInstanceError):
        made.group_B = made.reward_B  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        Batch(made.input_ids)  # type: ignore[call-arg,misc]
    assert not hasattr(made, "__dict__")


@pytest.mark.parametrize(
    ("aggregation", "weights", "scale"),
    [
        # 4 problems x 2 rollouts x 10 tokens = 80, of which 5 are there
        ("token", [1 / 80, 0, 1 / 80, 1 / 80, 1 / 80, 1 / 80], 80 / 5),
        ("sequence", [1 / 16, 0, 1 / 16, 1 / 16, 1 / 16, 1 / 8], 8 / 3),
        ("constant", [1 / 80, 0, 1 / 80, 1 / 80, 1 / 80, 1 / 80], 8 / 3),
    ],
)
def test_weights_of_a_portion_are_those_of_a_step_of_full_length(
    aggregation: str, weights: list[float], scale: float
) -> None:
    config = stage(portions=2, aggregation=aggregation)
    made = Batch.of_rollouts(rows(), config=config)
    assert made.weights_N.tolist() == pytest.approx(weights)
    assert made.whole_step_scale(config) == pytest.approx(scale)
    whole = stage(aggregation=aggregation)
    assert Batch.of_rollouts(rows(), config=whole).whole_step_scale(whole) == 1.0
    assert made.whole_step_scale(whole) == 1.0, "one portion is the whole step"
    untrained = replace(made, weights_N=torch.zeros(6))
    assert untrained.whole_step_scale(config) == 1.0


def test_joined_rows_are_those_of_the_batches_in_order() -> None:
    made = Batch.of_rollouts(rows(), config=stage())
    one, other = made.select([0, 1]), made.select([2])
    assert Batch.joined([one]) is one
    joined = Batch.joined([other, one, other])
    assert joined.row_N.tolist() == [0, 1, 1, 1, 2, 2, 3]
    assert joined.group_B.tolist() == [9, 7, 7, 9]
    assert joined.reward_B.tolist() == [1.3, 1.25, -0.5, 1.3]
    assert [ids.tolist() for ids in joined.input_ids] == [made.input_ids[row].tolist() for row in (2, 0, 1, 2)]
    assert joined.loss_mask_N.tolist() == [True, True, False, True, True, True, True]
    assert joined.advantages_N is None


def test_selected_rows_keep_their_tokens() -> None:
    made = Batch.of_rollouts(rows(), config=stage())
    part = made.select([2, 0])
    assert part.row_N.tolist() == [0, 1, 1, 1]
    assert part.rollout_logprobs_N.tolist() == [0.0, 0.0, -1.0, -2.0]
    assert part.prompt_lengths_B.tolist() == [3, 2]
    assert [ids.tolist() for ids in part.input_ids] == [[100, 101, 102, 0], [100, 101, 0, 1, 2]]
    none = made.select([])
    assert (len(none), none.row_N.tolist(), none.weights_N.tolist(), none.row_starts()) == (0, [], [], [0])


@pytest.mark.parametrize(
    ("lengths", "max_tokens", "parts"),
    [
        ((10, 10, 10, 10), 30, [[0, 1, 2], [3]]),  # full at 30 tokens, not before
        ((10, 40, 20), 1, [[1], [2], [0]]),  # longer than the budget: alone, the longest first
        ((40, 32, 31, 10), 320, [[0, 1], [2, 3]]),  # 32 is enough of 40, 31 is short; 31 tokens are no eighth of 320
        ((40, 10), 320, [[0], [1]]),  # an eighth of 320 is held
        ((36, 10), 320, [[0, 1]]),  # 36 tokens are less
        ((20, 20, 10), 320, [[0, 1], [2]]),  # an eighth by two rows
    ],
)
def test_micro_batches_end_where_they_are_full_or_the_next_row_is_short(
    lengths: tuple[int, ...], max_tokens: int, parts: list[list[int]]
) -> None:
    assert list(batch_of(*lengths).micro_rows(max_tokens)) == parts


def test_the_two_sides_of_a_pair_share_a_micro_batch() -> None:
    assert list(batch_of(5, 9, 3, 4, 9, 2).micro_rows(36, unit=2)) == [[0, 1, 4, 5], [2, 3]]
    assert list(batch_of(5, 9, 3, 4, 9, 2).micro_rows(35, unit=2)) == [[0, 1], [4, 5], [2, 3]]


def test_no_rows_are_no_micro_batch() -> None:
    assert list(batch_of(3).select([]).micro_rows(10)) == []


def test_rewards_of_components_are_normalized_within_their_group_and_shaping_is_added() -> None:
    weights = {"a": 1.0, "b": 0.5}
    # groups 0 and 1 alternate; in each a is 1, 1, 0, 0 and b is the same in group 0 and the opposite in group 1
    values = [(1.0, 1.0), (1.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.0, 1.0)]
    made = [
        (place % 2, rollout(summed(a + 0.5 * b, {"a": a, "b": b}, weights), shaping=0.125 * (place == 3)))
        for place, (a, b) in enumerate(values)
    ]
    expected = [1.5, 0.5, 1.5, 0.5 + 0.125, -1.5, -0.5, -1.5, -0.5]
    assert row_rewards(made, normalized=True) == pytest.approx(expected, abs=1e-5)
    sums = [1.5, 1.0, 1.5, 1.125, 0.0, 0.5, 0.0, 0.5]
    assert row_rewards(made, normalized=False) == pytest.approx(sums)
    config = stage(normalize_components=True)
    assert Batch.of_rollouts(made, config=config).reward_B.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_reward_that_is_no_sum_is_one_component() -> None:
    made = [(0, rollout(Verdict(outcome=Outcome.SCORED, reward=reward))) for reward in (3.0, 0.0, 0.0, 3.0)]
    assert row_rewards(made, normalized=True) == pytest.approx([1.0, -1.0, -1.0, 1.0], abs=1e-5)


def test_a_reward_of_0_is_normalized_as_0() -> None:
    # rewards 0, 0.5 and 1 without components: mean 0.5, population std sqrt(1 / 6)
    group = [(0, rollout(graded(reward, "r"))) for reward in (0.0, 0.5, 1.0)]
    std = (1 / 6) ** 0.5
    assert row_rewards(group, normalized=True) == pytest.approx([-0.5 / std, 0.0, 0.5 / std], abs=1e-4)
    assert row_rewards(group, normalized=False) == [0.0, 0.5, 1.0]
