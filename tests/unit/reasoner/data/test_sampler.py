"""Which problems come next."""

from __future__ import annotations

import hashlib
import json

import pytest

from reasoner.data.sampler import Mixture, ProblemSampler, summary
from tasks import Problem


def sampler(count: int = 5, *, seed: int = 0) -> ProblemSampler[int]:
    return ProblemSampler(range(count), seed=seed)


def test_every_item_once_an_epoch_and_each_epoch_in_an_order_of_its_own() -> None:
    drawn = sampler(20).take(50)
    first, second, third = drawn[:20], drawn[20:40], drawn[40:]
    assert sorted(first) == sorted(second) == list(range(20))
    assert len(set(third)) == 10
    assert list(range(20)) != first != second
    assert second[:10] != third


def test_the_seed_decides_the_order_and_how_it_is_taken_does_not() -> None:
    whole = sampler(20).take(45)
    assert sampler(20, seed=1).take(45) != whole
    other = sampler(20)
    assert [item for count in (7, 0, 13, 1, 24) for item in other.take(count)] == whole


def test_without_shuffling_every_epoch_has_the_order_of_the_data() -> None:
    drawn = ProblemSampler(range(5), seed=3, shuffle=False)
    assert drawn.take(7) == [0, 1, 2, 3, 4, 0, 1]
    other = ProblemSampler(range(5), seed=3, shuffle=False)
    other.restore(drawn.state())
    assert other.take(4) == [2, 3, 4, 0]


def test_epochs_count_passes_over_the_items() -> None:
    one = sampler(5)
    seen = [one.epochs]
    for count in (2, 3, 1, 9):
        one.take(count)
        seen.append(one.epochs)
    assert seen == pytest.approx([0.0, 0.4, 1.0, 1.2, 3.0])


@pytest.mark.parametrize("taken", [0, 3, 5, 13])
def test_a_restored_sampler_goes_on_where_the_other_was(taken: int) -> None:
    one, other = sampler(5), sampler(5)
    one.take(taken)
    other.restore(json.loads(json.dumps(one.state())))
    assert other.epochs == one.epochs
    assert other.take(12) == one.take(12)


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        sampler(0)


def test_a_summary_counts_and_tells_rows_and_their_order() -> None:
    rows = [("a", 1), ("b", 2)] * 600
    digest = hashlib.blake2b("".join(map(repr, rows)).encode(), digest_size=6).hexdigest()
    assert summary(rows) == f"1,200 rows, digest {digest}"
    assert summary(rows[::-1]) != summary(rows) != summary([*rows[:-1], ("b", 3)])
    assert summary(["\ud800"]).startswith("1 rows, digest "), "half a character is text too"


def part(task: str, count: int, *, seed: int = 0) -> ProblemSampler[Problem]:
    made = [Problem(id=str(n), prompt="p", reference="r", verifier="exact", task=task) for n in range(count)]
    return ProblemSampler(made, seed=seed)


def mixture() -> Mixture:
    return Mixture([part("a", 50), part("b", 7), part("c", 50)], [3.0, 2.0, 1.0])


def test_a_mixture_follows_its_weights_at_every_moment() -> None:
    drawn = [problem.task for problem in mixture().take(60)]
    assert [drawn.count(task) for task in "abc"] == [30, 20, 10]
    for count in range(1, 61):
        for task, share in zip("abc", (3 / 6, 2 / 6, 1 / 6), strict=True):
            assert abs(drawn[:count].count(task) - share * count) < 1
    assert drawn[:6] == ["a", "b", "a", "c", "b", "a"]  # the furthest behind; of those as far, the first


def test_a_mixture_has_the_order_of_each_part_and_its_slowest_epoch() -> None:
    one = mixture()
    assert [[problem.task for problem in problems] for problems in one.parts] == [["a"] * 50, ["b"] * 7, ["c"] * 50]
    drawn = one.take(24)
    for task, count in (("a", 50), ("b", 7), ("c", 50)):
        ours = [problem.id for problem in drawn if problem.task == task]
        assert ours == [problem.id for problem in part(task, count).take(len(ours))]
    assert one.epochs == 4 / 50, "of c: 4 of 24; b is in its second epoch"


def test_a_restored_mixture_goes_on_where_the_other_was() -> None:
    one, other = mixture(), mixture()
    one.take(10)
    other.restore(json.loads(json.dumps(one.state())))
    ours, theirs = ([(p.task, p.id) for p in each.take(31)] for each in (one, other))
    assert ours == theirs
    assert other.epochs == one.epochs
    with pytest.raises(ValueError, match=r"shorter|longer"):
        Mixture([part("a", 50)], [1.0]).restore(one.state())


def test_a_mixture_has_a_weight_for_each_part() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Mixture([part("a", 5)], [1.0, 2.0]).take(1)
