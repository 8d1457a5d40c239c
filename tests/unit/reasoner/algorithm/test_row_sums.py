"""Sums and means over the trained tokens of a row."""

from __future__ import annotations

import pytest
import torch

from reasoner.algorithm.row_sums import row_mean, row_sum

ROWS = torch.tensor([0, 0, 0, 1, 2, 2])
MASK = torch.tensor([True, False, True, False, True, True])
VALUES = torch.tensor([1.0, 10.0, 2.0, 5.0, 0.5, -4.0])


def test_sums_and_means_by_hand() -> None:
    assert row_sum(VALUES, ROWS, MASK).tolist() == [3.0, 3.0, 3.0, 0.0, -3.5, -3.5]
    assert row_mean(VALUES, ROWS, MASK).tolist() == [1.5, 1.5, 1.5, 0.0, -1.75, -1.75]
    assert row_mean(VALUES[4:5], torch.tensor([0]), torch.tensor([True])).tolist() == [0.5]


def test_the_gradient_of_a_mean_is_one_over_the_trained_tokens() -> None:
    values_N = VALUES.clone().requires_grad_()
    row_mean(values_N, ROWS, MASK)[[0, 3, 4]].sum().backward()
    assert values_N.grad is not None
    assert values_N.grad.tolist() == [0.5, 0.0, 0.5, 0.0, 0.5, 0.5]


@pytest.mark.parametrize("function", [row_sum, row_mean])
def test_no_tokens_have_no_sums(function) -> None:
    none = torch.zeros(0)
    assert function(none, none.long(), none.bool()).tolist() == []
