"""The documented example of process rewards: rewards at the ends of steps, through the GAE of the trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reasoner.algorithm.advantage import gae, get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.data.encode import batch_of
from reasoner.data.rows import Encoded
from reasoner.model.load import byte_tokenizer

EXAMPLE = Path(__file__).parents[4] / "benchmarks" / "step_rewards.py"
WRITTEN = ["1+9+0=10\n5+2+1=07\n#### 70", "é\n5+2+1=08\n0+0+0=00\n#### 79"]
"""One right and one wrong step; two bytes in the first line, a right step and one too many."""


@pytest.fixture
def batch() -> Batch:
    tokenizer = byte_tokenizer()
    rows = [
        Encoded(
            id="0", prompt_ids=tuple(tokenizer.encode("51+29=?\n")), completion_ids=ids, loss_mask=(True,) * len(ids)
        )
        for ids in (tuple(tokenizer.encode(text)) for text in WRITTEN)
    ]
    made = batch_of(rows, rewards=[0.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    return replace(made, values_N=torch.rand(len(made.row_N), generator=generator))


def test_returns_are_the_rewards_to_come(batch: Batch) -> None:
    """With gamma and lambda 1 a return is the sum of all rewards from its token on, whatever the values are."""
    found = get_estimator(f"{EXAMPLE}:step_gae")
    assert found.needs == {"values"}
    done = found.function(batch, step_reward=0.25, lam=1.0)
    assert done.returns_N is not None
    expected: list[float] = []
    for text, last, labels in ((WRITTEN[0], 0.0, [1, -1]), (WRITTEN[1], 1.0, [-1, 1, -1])):
        rewards = [0.0] * len(text.encode())
        ends = [place for place, byte in enumerate(text.encode()) if byte == ord("\n")]
        for end, label in zip(ends, labels, strict=True):
            rewards[end] += 0.25 * label
        rewards[-1] += last
        expected += [sum(rewards[place:]) for place in range(len(rewards))]
    assert done.returns_N.tolist() == pytest.approx(expected, abs=1e-6)


def test_without_a_step_reward_it_is_the_trainers_own(batch: Batch) -> None:
    ours = get_estimator(f"{EXAMPLE}:step_gae").function(batch, step_reward=0.0, gamma=0.99, lam=0.9)
    theirs = gae(batch, gamma=0.99, lam=0.9)
    assert ours.advantages_N is not None
    assert theirs.advantages_N is not None
    assert torch.equal(ours.advantages_N, theirs.advantages_N)
