"""Each token's share of a step's loss."""

from __future__ import annotations

import pytest
import torch

from reasoner.algorithm.token_weights import token_weights


def test_token_weights_by_hand() -> None:
    mask = torch.tensor([True, True, False, True, True, True])
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    token = token_weights(mask, rows, rows=2, mode="token", max_tokens=10)
    sequence = token_weights(mask, rows, rows=2, mode="sequence", max_tokens=10)
    constant = token_weights(mask, rows, rows=2, mode="constant", max_tokens=10)
    assert token.tolist() == pytest.approx([0.2, 0.2, 0, 0.2, 0.2, 0.2])
    assert sequence.tolist() == pytest.approx([0.25, 0.25, 0, 1 / 6, 1 / 6, 1 / 6])
    assert constant.tolist() == pytest.approx([0.05, 0.05, 0, 0.05, 0.05, 0.05])
