"""Small statistics shared by the rules."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Change(NamedTuple):
    """Change of a curve from its first part to its last."""

    first: float
    last: float
    z: float
    """(last - first) in standard errors, from the spread of the steps within each part."""


def change(values: NDArray[np.float64], *, parts: int = 4) -> Change | None:
    """Compare the means of the first and last 1/parts of a curve; None if these have fewer than two steps.

    Example:
        >>> change(np.array([0.0, 0.1, 0.0, 0.1, 0.9, 1.0, 0.9, 1.0])).z > 5
        True
    """
    size = len(values) // parts
    if size < 2:
        size = len(values) // 2
    if size < 2:
        return None
    head, tail = values[:size], values[-size:]
    error = float(np.sqrt(head.var(ddof=1) / size + tail.var(ddof=1) / size))
    difference = float(tail.mean() - head.mean())
    return Change(float(head.mean()), float(tail.mean()), difference / max(error, 1e-9))


def t_value(values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> float:
    """Return the (weighted) mean divided by its standard error; 0 for fewer than three values.

    Example:
        >>> round(t_value(np.array([1.0, 1.2, 0.8, 1.0])), 1)
        12.2
    """
    if len(values) < 3:
        return 0.0
    share = np.full(len(values), 1 / len(values)) if weights is None else weights / weights.sum()
    mean = float(values @ share)
    spread = float(share**2 @ (values - mean) ** 2) / max(1 - float(share @ share), 1e-9)
    return mean / max(float(np.sqrt(spread)), 1e-12)


def percent(share: float) -> str:
    """Format a share with at most two digits: 37 %, 0.4 %.

    Example:
        >>> percent(0.371), percent(0.004), percent(0.0)
        ('37 %', '0.4 %', '0 %')
    """
    value = 100 * share
    return f"{value:.0f} %" if value >= 2 or value == 0 else f"{value:.2g} %"
