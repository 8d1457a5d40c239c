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


@pytest.mark.parametrize("mode", ["token", "sequence"])
@pytest.mark.parametrize("trained", [0, 1])
def test_a_step_of_one_trained_token_or_none(mode: str, trained: int) -> None:
    mask, rows = torch.tensor([trained == 1, False]), torch.tensor([0, 0])
    found = token_weights(mask, rows, rows=1, mode=mode, max_tokens=10)
    assert found.tolist() == [float(trained), 0.0]
    assert token_weights(mask, rows, rows=1, mode="constant", max_tokens=1).tolist() == [float(trained), 0.0]


def test_some_rows_of_a_larger_step_weigh_what_they_would_in_all_of_it() -> None:
    mask, rows = torch.tensor([True, True, False, True]), torch.tensor([0, 0, 0, 1])
    part = {"rows": 8, "max_tokens": 10, "tokens": 40}
    assert token_weights(mask, rows, mode="token", **part).tolist() == pytest.approx([1 / 40, 1 / 40, 0, 1 / 40])
    assert token_weights(mask, rows, mode="sequence", **part).tolist() == pytest.approx([1 / 16, 1 / 16, 0, 1 / 8])
    assert token_weights(mask, rows, mode="constant", **part).tolist() == pytest.approx([1 / 80, 1 / 80, 0, 1 / 80])


def test_an_unknown_mode_suggests_the_closest() -> None:
    with pytest.raises(ValueError, match=r"tokens.*'token'"):
        token_weights(torch.tensor([True]), torch.tensor([0]), rows=1, mode="tokens", max_tokens=1)
