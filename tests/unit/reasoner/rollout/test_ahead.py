"""The window of batches that are sampled ahead: order, bound, faults, kills, and the bias of other designs."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasoner.data.prompt import Prompt
from reasoner.records import Completion, FinishReason, Problem, Segment
from reasoner.rollout.ahead import Ahead, Known
from reasoner.rollout.round import Pending, Round, settled
from reasoner.session.ahead_file import read_ahead, write_ahead
from verifiers import Outcome, Verdict

SIZE, SAMPLES = 2, 2
RIGHT = Verdict(outcome=Outcome.CORRECT, reward=1.0, verifier="exact")


def quiet(label: str, total: int) -> nullcontext[Callable[[int], None]]:
    return nullcontext(lambda done: None)


def completion(tokens: int) -> Completion:
    return Completion(
        text="x" * tokens,
        token_ids=(1,) * tokens,
        rollout_logprobs=(-0.1,) * tokens,
        loss_mask=(True,) * tokens,
        segments=(Segment(start=0, end=tokens, origin="policy"),),
        finish_reason=FinishReason.STOP,
        policy_version=0,
    )


class Sampler:
    """Draws problems p0, p1, ... and samples them; `delay` holds each batch back."""

    def __init__(self, delay: Callable[[int], None] = lambda step: None, fails: int | None = None) -> None:
        self.drawn, self.asked, self.begun, self.delay, self.fails = 0, [], [], delay, fails
        self.versions: dict[int, int | None] = {}

    def draw(self) -> list[Problem]:
        ids = range(self.drawn, self.drawn + SIZE)
        self.drawn += SIZE
        return [Problem(id=f"p{n}", prompt="q", reference="x", verifier="exact", task="t") for n in ids]

    def sample(
        self,
        step: int,
        problems_P: Sequence[Problem],
        *,
        known: Known,
        watch: Callable[[Pending], None],
        version: int | None,
    ) -> Round:
        self.begun.append(step)
        self.versions[step] = version
        self.delay(step)
        if step == self.fails:
            raise RuntimeError(f"engine lost in step {step}")
        prompts = {place: Prompt("q", (1, 2)) for place in range(len(problems_P))}
        completions: dict[int, Completion] = {}
        verdicts: dict[int, Future[Verdict]] = {}
        for place in prompts:
            for sample in range(SAMPLES):
                index = place * SAMPLES + sample
                if (place, sample) in known:
                    completions[index], verdicts[index] = known[place, sample].completion, settled(RIGHT)
                    continue
                self.asked.append((step, problems_P[place].id, sample))
                completions[index], verdicts[index] = completion(1 + step), settled(RIGHT)
                watch(Pending(place, sample, prompts[place], completions[index], verdicts[index]))
        return Round(
            problems_P=problems_P,
            prompts_P=prompts,
            group_size=SAMPLES,
            completions=completions,
            verdicts=verdicts,
            generation_seconds=0.0,
            step=step,
        )


def window(sampler: Sampler, most: int, *, together: bool = False) -> Ahead:
    return Ahead(most=most, draw=sampler.draw, sample=sampler.sample, together=together)


def trained(ahead: Ahead, first: int, steps: int, *, settle: bool, last: int | None = None) -> list[tuple[int, str]]:
    """Take the batches of the steps as the trainer does."""
    found: list[tuple[int, str]] = []
    for step in range(first, steps + 1):
        ahead.admit(step, last=min(step + ahead.most, last or steps))
        groups = ahead.take(step, quiet, size=SIZE * SAMPLES).all().groups
        found += [(step, group.problem.id) for group in groups]
        if settle:
            ahead.settle()
    return found


@settings(max_examples=60, deadline=None)
@given(
    most=st.integers(1, 4),
    steps=st.integers(1, 9),
    together=st.booleans(),
    settle=st.booleans(),
    seed=st.integers(0, 99),
    kills=st.lists(st.integers(1, 8), max_size=3),
)
def test_batches_come_in_order_within_the_bound_whatever_finishes_first(
    most: int,
    steps: int,
    together: bool,
    settle: bool,
    seed: int,
    kills: list[int],
) -> None:
    source = random.Random(seed)
    waits = {step: source.choice((0.0, 0.0, 0.004)) for step in range(1, steps + 1)}
    sampler = Sampler(delay=lambda step: time.sleep(waits[step]))
    ahead, found, step = window(sampler, most, together=together), [], 1
    for kill in sorted({kill for kill in kills if kill < steps}):
        found += trained(ahead, step, kill, settle=settle, last=steps)
        step = kill + 1
        assert sampler.drawn <= SIZE * min(steps, kill + most)  # never further ahead than the bound
        kept = ahead.state()
        ahead.close()
        ahead = window(sampler, most, together=together)  # draws go on where the checkpoint's sampler stood
        ahead.restore(kept)
    found += trained(ahead, step, steps, settle=settle)
    ahead.settle()
    ahead.close()
    assert found == [(1 + n // SIZE, f"p{n}") for n in range(SIZE * steps)]
    if settle:
        assert len(set(sampler.asked)) == len(sampler.asked)  # nothing is sampled twice


def test_what_is_graded_at_a_checkpoint_is_kept_and_the_rest_is_sampled_again(tmp_path: Path) -> None:
    released = threading.Event()

    def delay(step: int) -> None:
        if step == 2:
            released.wait(5)

    sampler = Sampler(delay)
    ahead = window(sampler, 2, together=True)
    ahead.admit(1, last=3)
    ahead.take(1, quiet, size=4)
    while len([one for one in sampler.asked if one[0] == 3]) < SIZE * SAMPLES:
        time.sleep(0.001)
    write_ahead(tmp_path, ahead.state())
    ahead.close()
    released.set()
    again = Sampler()
    resumed = window(again, 2, together=True)
    resumed.restore(read_ahead(tmp_path))
    second, third = (resumed.take(step, quiet, size=4).all().groups for step in (2, 3))
    assert [group.problem.id for group in (*second, *third)] == ["p2", "p3", "p4", "p5"]
    assert {step for step, _, _ in again.asked} == {2}
    assert again.drawn == 0
    resumed.close()


def test_a_fault_of_the_engine_reaches_the_trainer_and_nothing_hangs() -> None:
    sampler = Sampler(fails=2)
    ahead = window(sampler, 1)
    ahead.admit(1, last=2)
    ahead.take(1, quiet, size=4)
    with pytest.raises(RuntimeError, match="engine lost in step 2"):
        ahead.settle()
    with pytest.raises(RuntimeError, match="engine lost in step 2"):
        ahead.take(2, quiet, size=4)
    ahead.close()


def test_a_closed_window_ends_at_the_next_completion() -> None:
    entered, released = threading.Event(), threading.Event()

    def delay(step: int) -> None:
        entered.set()
        released.wait(5)

    sampler = Sampler(delay)
    ahead = window(sampler, 1)
    ahead.admit(1, last=2)
    assert entered.wait(5)
    ahead.close()
    released.set()
    ahead._workers.shutdown(wait=True)
    assert len(sampler.asked) == 1
    assert sampler.begun == [1]


@pytest.mark.parametrize("most", [1, 2, 4])
def test_a_batch_keeps_the_version_that_was_the_newest_when_it_began(most: int) -> None:
    sampler = Sampler()
    newest, needed = 0, dict[int, set[int]]()
    ahead = Ahead(most=most, draw=sampler.draw, sample=sampler.sample, together=True, pinned=lambda: newest)
    for step in range(1, 9):
        ahead.admit(step, last=min(step + most, 8))
        ahead.take(step, quiet, size=SIZE * SAMPLES)
        needed[step] = ahead.versions()
        newest += step != 3  # a step without an update
    ahead.close()
    began = {step: max(0, step - 1 - most) for step in range(1, 9)}
    after = {number: number - (number >= 3) for number in range(9)}
    assert sampler.versions == {step: after[began[step]] for step in began}
    for step, versions in needed.items():
        assert versions == {sampler.versions[later] for later in range(step + 1, min(step + most, 8) + 1)}
        assert len(versions) <= most


def length_ratio(take: Callable[[list[tuple[float, int]]], list[int]], steps: int = 200) -> float:
    """Mean length trained on over mean length drawn, of steps that take 8 of the rollouts under way.

    Lengths are spread over a factor of 100; every second rollout is on a sampler that is 10 times slower.
    """
    source = random.Random(3)
    under_way: list[tuple[float, int]] = []
    drawn: list[int] = []
    learned: list[int] = []
    now = 0.0
    for _ in range(steps):
        while len(under_way) < 32:
            length = int(10 ** source.uniform(0, 2))
            drawn.append(length)
            under_way.append((now + length * (1 if len(drawn) % 2 else 10), length))
        taken = take(under_way)
        now = max(now, *(under_way[place][0] for place in taken))
        learned += [under_way[place][1] for place in taken]
        under_way = [one for place, one in enumerate(under_way) if place not in taken]
    return statistics.fmean(learned) / statistics.fmean(drawn)


def test_batches_in_order_train_on_every_length_as_often_as_it_is_drawn() -> None:
    in_order = length_ratio(lambda under_way: [*range(8)])
    first_finished = length_ratio(lambda under_way: sorted(range(len(under_way)), key=lambda at: under_way[at])[:8])
    assert in_order == pytest.approx(1.0, abs=0.02)
    assert first_finished < 0.97


def test_the_window_trains_on_every_length_as_often_as_it_is_drawn() -> None:
    source = random.Random(1)
    lengths = {step: int(10 ** source.uniform(0, 2)) for step in range(1, 31)}
    sampler = Sampler(delay=lambda step: time.sleep(lengths[step] * (2e-5 if step % 2 else 2e-4)))
    ahead = window(sampler, 4, together=True)
    found = trained(ahead, 1, 30, settle=False)
    ahead.close()
    learned = statistics.fmean(lengths[step] for step, _ in found)
    assert learned / statistics.fmean(lengths.values()) == pytest.approx(1.0)
