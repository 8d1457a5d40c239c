"""Rows of strangers: verifiers built and checked in workers, options bounded; rows dropped; quick rows not delayed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from verifiers import BadOption, GradingRow, Outcome, UnknownVerifier, registry
from verifiers.pool import GradingPool, PoolLimits
from verifiers.pool import kinds as kinds_module
from verifiers.pool.kinds import Kinds

ODD = f"{Path(__file__).parents[1] / 'strangers.py'}"
ROW = GradingRow(completion="#### 1", reference="1")


@pytest.fixture
def isolated() -> Iterator[GradingPool]:
    with GradingPool(workers=1, isolated=True) as made:
        yield made


def test_nothing_is_made_in_this_process(isolated: GradingPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def made_here(*_: object, **__: object) -> None:
        raise AssertionError("made in the pool's own process")

    monkeypatch.setattr(kinds_module, "get_verifier", made_here)
    options = {"parts": ["exact", {"verifier": "choice", "options": {"choices": ["a", "b"]}}]}
    assert isolated.submit("exact", {}, ROW).result().reward == 1.0
    assert isolated.submit("weighted", options, ROW).result().reward is None  # no choice is called 1
    assert isolated.submit(f"{ODD}:Slow", {"make": 0.1}, ROW).result().reward == 1.0
    with pytest.raises(BadOption, match="no_such"):
        isolated.submit("exact", {"no_such": 1}, ROW).result()
    with pytest.raises(BadOption, match="must name a part"):
        isolated.submit("weighted", options | {"correct": "neither"}, ROW).result()
    with pytest.raises(UnknownVerifier, match="no verifier named 'exat'"):
        isolated.submit("weighted", {"parts": ["exat"]}, ROW).result()
    with pytest.raises(UnknownVerifier):
        isolated.submit("exat", {}, ROW)


def test_bad_options_are_said_at_once_where_rows_are_our_own() -> None:
    with GradingPool(workers=1) as pool, pytest.raises(BadOption):
        pool.submit("exact", {"no_such": 1}, ROW)


def test_options_that_take_long_have_the_limit_of_a_row(isolated: GradingPool) -> None:
    started = time.monotonic()
    verdict = isolated.submit(f"{ODD}:Slow", {"make": 100}, ROW).result()
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    assert "took longer than 1 s of wall-clock time" in verdict.reason
    assert time.monotonic() - started < 30
    assert isolated.submit(f"{ODD}:Slow", {"make": 0}, ROW).result().reward == 1.0


def test_what_a_verifier_needs_is_learned_from_a_worker(isolated: GradingPool) -> None:
    name, options = f"{ODD}:Needy", {"seconds": 2.5, "megabytes": 1500}
    futures = isolated.submit_batch(name, options, [ROW] * 5)
    assert {future.result().reward for future in futures} == {1.0}
    (kind,) = isolated._kinds.values()
    assert (kind.wall_seconds, kind.cpu_seconds, kind.memory_bytes) == (2.5, 2.5, 1500 << 20)
    assert (kind.batch_rows, kind.concurrency, kind.merges_equal) == (4, 1, True)
    with GradingPool(workers=1, isolated=True, limits=PoolLimits(wall_seconds=7.0)) as strict:
        assert strict.submit(name, options, ROW).result().reward == 1.0
        assert next(iter(strict._kinds.values())).wall_seconds == 7.0


def test_golds_are_checked_within_the_limits_of_a_row(isolated: GradingPool) -> None:
    def said(reference: str) -> tuple[str, str]:
        verdict = isolated.check(f"{ODD}:Checks", {}, reference).result()
        return str(verdict.outcome), verdict.reason

    assert said("good")[0] == "correct"
    assert said("bad") == ("bad_reference", "no gold")
    assert said("hang")[0] == "verifier_error"
    assert "longer than 1 s" in said("hang")[1]
    assert "was ended by SIGSEGV" in said("crash")[1]
    assert "KeyError" in said("raise")[1]
    assert said("good")[0] == "correct"
    with pytest.raises(BadOption):
        isolated.check("exact", {"no_such": 1}, "1").result()


def test_options_are_kept_by_number_and_size() -> None:
    kinds = Kinds(PoolLimits(), context=None, isolated=True)
    for number in range(40):
        kinds.find("choice", {"choices": [str(number), "x" * (1 << 20)]})
    assert len(kinds.values()) <= 16
    assert sum(kind.size for kind in kinds.values()) <= kinds_module.KINDS_CHARACTERS
    for number in range(1100):
        kinds.find("choice", {"choices": [str(number), "x"]})
    assert len(kinds.values()) == kinds_module.KINDS
    kinds.find("choice", {"choices": ["big", "x" * (20 << 20)]})
    assert len(kinds.values()) == 1
    assert kinds.find("exact", {}) is kinds.find("exact", {})
    assert kinds.find("exact", {}, check=True) is not kinds.find("exact", {})


def test_verifiers_of_this_process_stay_here_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{Path(__file__).parents[1] / 'batching.py'}:InProcess"
    monkeypatch.setattr(registry, "_allowed", frozenset({name, "weighted", "exact"}))
    with GradingPool(workers=1, isolated=True) as pool:
        assert pool.submit(name, {}, ROW).result().reward == 0.5
        composed = {"parts": [{"verifier": name, "name": "here"}, {"verifier": "exact", "weight": 0.5}]}
        assert pool.submit("weighted", composed, ROW).result().components == {"here": 0.5, "exact": 1.0}
        with pytest.raises(BadOption, match="may have at most 65536 characters"):
            pool.submit("weighted", composed | {"correct": "x" * 70_000}, ROW)


def test_rows_that_nobody_waits_for_are_dropped() -> None:
    with GradingPool(workers=1) as pool:
        first = pool.submit(f"{ODD}:Slow", {"row": 0.5}, ROW)
        time.sleep(0.3)
        rest = pool.submit_batch(f"{ODD}:Slow", {"row": 0.5}, [ROW] * 200)
        kept = pool.submit(f"{ODD}:Slow", {"row": 0.5}, ROW)
        pool.cancel(rest)
        assert pool.state().waiting == 1
        assert all(future.cancelled() for future in rest)
        pool.cancel([first])  # at work: it goes on
        assert first.result().reward == 1.0
        assert kept.result(timeout=30).reward == 1.0


def test_what_could_not_be_loaded_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifiers.pool.work_queue.AGAIN_SECONDS", 1.0)
    with GradingPool(workers=1) as pool:
        assert pool.submit("exact", {}, ROW).result().reward == 1.0
        (kind,) = pool._kinds.values()
        kind.lost_loading, kind.lost_at = 3, time.monotonic()
        assert "is not tried any more" in pool.submit("exact", {}, ROW).result().reason
        time.sleep(1.1)
        assert pool.submit("exact", {}, ROW).result().reward == 1.0


def test_equal_rows_of_one_that_is_dropped_are_graded() -> None:
    counting = f"{Path(__file__).parents[1] / 'faulty.py'}:Counting"
    with GradingPool(workers=1) as pool:
        busy = pool.submit(counting, {}, GradingRow(completion="first", reference="a"))
        equal = [pool.submit(counting, {}, GradingRow(completion="a", reference="a")) for _ in range(3)]
        pool.cancel(equal[:1])
        assert {future.result(timeout=30).outcome for future in equal[1:]} == {Outcome.CORRECT}
        assert busy.result().outcome is Outcome.INCORRECT


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("known", [True, False])
def test_slow_rows_leave_a_worker_for_quick_ones(workers: int, known: bool) -> None:
    with GradingPool(workers=workers) as pool:
        if known:
            assert pool.submit("exact", {}, ROW).result().reward == 1.0
        slow = [pool.submit(f"{ODD}:Slow", {"row": 6.0}, ROW) for _ in range(2 * workers)]
        time.sleep(1.5)  # all workers are at one
        started = time.monotonic()
        for _ in range(3):
            assert pool.submit("exact", {}, ROW).result().reward == 1.0
        assert time.monotonic() - started < 5
        assert not slow[-1].done()
        assert pool.state().workers == workers + 1


def test_slow_rows_of_many_options_do_not_take_the_spare_worker() -> None:
    with GradingPool(workers=1) as pool:
        pool.submit(f"{ODD}:Slow", {"row": 0.6}, ROW).result()
        slow = [pool.submit(f"{ODD}:Slow", {"row": 3.0 + number / 100}, ROW) for number in range(6)]
        time.sleep(1.0)
        started = time.monotonic()
        assert pool.submit("exact", {}, ROW).result().reward == 1.0
        assert time.monotonic() - started < 2.5
        assert sum(future.done() for future in slow) == 0


def test_one_kind_of_rows_takes_the_workers_it_was_given_and_no_more() -> None:
    with GradingPool(workers=2) as pool:
        futures = pool.submit_batch("exact", {}, [ROW] * 2000)
        assert {future.result().reward for future in futures} == {1.0}
        assert pool.state().workers == 2


def test_threads_that_submit_and_drop_lose_nothing() -> None:
    with GradingPool(workers=2) as pool:
        wrong: list[object] = []

        def client(number: int) -> None:
            for turn in range(10):
                rows = [GradingRow(completion=f"#### {n}", reference=str(number)) for n in range(20)]
                futures = pool.submit_batch("exact", {}, rows)
                if turn % 3 == 0:
                    pool.cancel(futures)
                    continue
                found = [future.result(timeout=60).reward for future in futures]
                if found != [float(n == number) for n in range(20)]:
                    wrong.append(found)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert pool.state().waiting == 0
