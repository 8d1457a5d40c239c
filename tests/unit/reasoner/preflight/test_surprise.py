"""Where worked solutions are surprising, and what that says of prompts and form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reasoner.preflight.surprise import Surprise, calmest_half, surprising_part


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_the_calmest_half_and_the_surprising_part_are_the_best_of_all_pieces(size: int) -> None:
    nats = [*map(float, np.random.default_rng(size).gamma(0.5, 4, size))]
    half = max(1, size // 2)
    assert calmest_half(nats) == pytest.approx(min(np.mean(nats[at : at + half]) for at in range(size - half + 1)))
    pieces = [(a, b) for a, b in itertools.combinations(range(size + 1), 2)]
    best = max([0.0, *(sum(nats[a:b]) - (b - a) for a, b in pieces)])
    found = nats[surprising_part(nats)]
    assert sum(found) - len(found) == pytest.approx(best)


def test_nothing_is_surprising_in_nothing() -> None:
    assert calmest_half([]) == 0.0
    assert [0.1, 0.2][surprising_part([0.1, 0.2])] == []


def test_a_form_is_surprising_in_one_part_and_a_template_all_along() -> None:
    box = [0.01] * 18 + [12.7, 10.2, 10.7, 10.3, 7.3, 11.5, 9.9, 9.0, 7.3, 9.3]
    scattered = [
        9.7,
        5.5,
        4.0,
        0.6,
        1.9,
        0.0,
        0.0,
        0.1,
        1.0,
        4.0,
        0.0,
        5.1,
        0.0,
        4.4,
        7.2,
        1.2,
        5.2,
        0.5,
        1.4,
        0.0,
        0.0,
    ]
    assert surprising_part(box) == slice(18, 28)
    of_form, of_prompt = (
        Surprise(ways={"chat (the config)": float(np.mean(nats)), "plain": 9.0}, own=0.4, calm=calmest_half(nats))
        for nats in (box, scattered)
    )
    assert of_form.foreign
    assert of_form.of_form
    assert of_prompt.foreign
    assert not of_prompt.of_form


def test_the_ways_of_a_surprise() -> None:
    assert Surprise().ours is None
    assert not Surprise().foreign
    found = Surprise(ways={"chat": 2.5, "plain (the config)": 3.0}, own=0.45)
    assert (found.ours, found.best) == (3.0, ("chat", 2.5))
    assert found.foreign
    assert not Surprise(ways=found.ways, own=0.6).foreign
