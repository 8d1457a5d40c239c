"""The covering task: its rule by hand, its two kinds of demonstrations."""

from __future__ import annotations

import pytest

from tasks import TaskError
from tasks.covering import Covering, true_score
from tasks.validate import validate_task


@pytest.mark.parametrize(
    ("completion", "reward"),
    [("kdg", 1.0), ("kd", 2 / 3), ("", 0.0), ("kdgxx", 1 / 3), ("kkk", -1 / 3), ("k d g", 1 / 3), ("x" * 12, -4.0)],
)
def test_the_rule_by_hand(completion: str, reward: float) -> None:
    assert true_score(completion=completion, reference="dgk").reward == pytest.approx(reward)


def test_perfect_demonstrations_are_accepted_and_careless_ones_have_room_to_improve() -> None:
    found = validate_task(Covering(train_size=300, test_size=50), "train")
    assert (found.total, found.accepted) == (300, 300)
    careless = Covering(train_size=300, test_size=50, demonstrations="careless").problems("train")
    scores = [true_score(completion=p.demonstration or "", reference=p.reference).reward or 0.0 for p in careless]
    assert 0.4 < sum(scores) / len(scores) < 0.6


def test_the_answer_does_not_stand_in_the_prompt_as_it_is() -> None:
    problems = Covering(train_size=300, test_size=50).problems("train")
    assert sum(str(p.reference) in str(p.prompt) for p in problems) < 10
    assert not {p.id for p in problems} & {p.id for p in Covering(train_size=300, test_size=50).problems("test")}
    with pytest.raises(TaskError, match="must be perfect or careless"):
        Covering(demonstrations="none")
