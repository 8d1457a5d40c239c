"""Process rewards for the task arithmetic (addition): each written step is rewarded at the token that ends it.

The label of a step is whether it is the right sum of that column (`1+9+0=10`), which the prompt alone decides. A
process reward model would take the place of `step_labels`. Used by name:

    algorithm: {advantage: benchmarks/step_rewards.py:step_gae, advantage_options: {step_reward: 0.2}}
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reasoner.algorithm.advantage import Estimator, gae_of, token_rewards
from reasoner.algorithm.batch import Batch
from reasoner.model.load import byte_tokenizer


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model from scratch; for another model, its own."""
    return byte_tokenizer()


def step_labels(prompt: str, completion: str) -> list[tuple[int, bool]]:
    """Return (characters up to the end of the step's line, True if it is right) for each step of an addition.

    A line beyond the last column is wrong, so that more lines earn nothing.

    Example:
        >>> step_labels("51+29=?", "1+9+0=10; 5+2+1=07; #### 70".replace("; ", chr(10)))
        [(9, True), (18, False)]
    """
    left, _, right = prompt.partition("=")[0].strip().partition("+")
    found: list[tuple[int, bool]] = []
    carry = end = 0
    for place, line in enumerate(completion.split("\n")[:-1]):
        a, b = (int(number[-1 - place]) if place < len(number) else 0 for number in (left, right))
        right_line = f"{a}+{b}+{carry}={a + b + carry:02}"
        found.append((end + len(line) + 1, place < max(len(left), len(right)) and line == right_line))
        carry = (a + b + carry) // 10
        end += len(line) + 1
    return found


def step_rewards(batch: Batch, *, step_reward: float) -> Tensor:
    """Return [N] rewards: +step_reward at the token that ends a right step, -step_reward at that of a wrong one."""
    rewards_N = torch.zeros(len(batch.row_N), dtype=torch.float64)
    starts = batch.row_starts()
    for row, ids in enumerate(batch.input_ids):
        split = int(batch.prompt_lengths_B[row])
        prompt, *pieces = (tokenizer().decode(part) for part in (ids[:split], *ids[split:, None]))
        ends: dict[int, int] = {}  # characters up to a token's end -> the token
        length = 0
        for place, piece in enumerate(pieces):
            length += len(str(piece))
            ends.setdefault(length, place)
        for end, right in step_labels(str(prompt), "".join(map(str, pieces))):
            rewards_N[starts[row] + ends[end]] = step_reward if right else -step_reward
    return rewards_N


def _step_gae(
    batch: Batch,
    *,
    step_reward: float = 0.2,
    gamma: float = 1.0,
    lam: float = 0.95,
    kl_coef: float = 0.0,
    whiten: bool = True,
) -> Batch:
    """Compute GAE of the row's reward on its last token and of the steps' rewards on theirs."""
    rewards_N = token_rewards(batch, kl_coef=kl_coef) + step_rewards(batch, step_reward=step_reward)
    return gae_of(batch, rewards_N, gamma=gamma, lam=lam, whiten=whiten)


step_gae = Estimator(_step_gae, needs=frozenset({"values"}), group_relative=False)
