"""A bad row affects only itself, however it fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from verifiers import GradingRow, Outcome
from verifiers.pool import GradingPool, GradingRequest, PoolLimits

FAULTY = f"{Path(__file__).parents[1] / 'faulty.py'}:Faulty"
FAULTS = {
    "hang": "longer than 1 s of wall-clock time",
    "spin": "longer than 1 s of",
    "hang in C": "longer than 1 s of wall-clock time",
    "hang with signals blocked": "longer than 1 s of wall-clock time",
    "eat memory": "MiB of memory, more than 300",
    "segfault": "was ended by SIGSEGV",
    "abort": "was ended by SIGABRT",
    "kill myself": "was ended by SIGKILL",
    "os._exit": "exited with status 0",
    "raise": "the verifier is broken",
    "recurse": "RecursionError",
    "return nothing": "",
    "return an unprintable reward": "",
    "close every pipe": "closed its pipe but kept running",
}


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    with GradingPool(workers=2, limits=PoolLimits(memory_bytes=300 << 20)) as made:
        yield made


def request(completion: str) -> GradingRequest:
    name = FAULTY.replace(":Faulty", ":Patient") if completion == "eat memory" else FAULTY
    return GradingRequest(name, GradingRow(completion=completion, reference="good"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_its_own_row_alone(pool: GradingPool, fault: str) -> None:
    verdicts = list(pool.grade([request("good")] * 3 + [request(fault)] + [request("good")] * 3))
    assert [v.outcome for v in verdicts[:3] + verdicts[4:]] == [Outcome.CORRECT] * 6
    assert verdicts[3].outcome is Outcome.VERIFIER_ERROR
    assert verdicts[3].reward is None
    assert FAULTS[fault] in verdicts[3].reason


@pytest.mark.parametrize("act", ["sys.exit", "raise a base exception"])
def test_leaving_is_a_fault_too(pool: GradingPool, act: str) -> None:
    verdicts = list(pool.grade([request(act), request("good")]))
    assert [v.outcome for v in verdicts] == [Outcome.VERIFIER_ERROR, Outcome.CORRECT]


@pytest.mark.parametrize("act", ["talk", "leave a process behind", "leave a thread behind"])
def test_untidy_verifiers_still_grade(pool: GradingPool, act: str) -> None:
    verdicts = list(pool.grade([request(act), request("good")]))
    assert [v.outcome for v in verdicts] == [Outcome.INCORRECT, Outcome.CORRECT]


def test_verdicts_come_in_order(pool: GradingPool) -> None:
    rows = [request("good" if n % 3 else "bad") for n in range(200)]
    expected = [Outcome.CORRECT if n % 3 else Outcome.INCORRECT for n in range(200)]
    assert [v.outcome for v in pool.grade(rows)] == expected


def test_any_thread_and_any_event_loop(pool: GradingPool) -> None:
    async def gather() -> list[Outcome]:
        return [v.outcome for v in await asyncio.gather(*(pool.grade_async(request("good")) for _ in range(20)))]

    found: list[Outcome] = []
    threads = [threading.Thread(target=lambda: found.extend(asyncio.run(gather()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Outcome.CORRECT] * 80


def test_back_pressure_holds_the_submitter() -> None:
    with GradingPool(workers=1, max_pending=4) as small:
        started = time.monotonic()
        futures = [small.submit(*_split(request("hang"))) for _ in range(1)]
        futures += [small.submit(*_split(request("good"))) for _ in range(8)]
        assert time.monotonic() - started > 0.5  # the fifth waited for the hanging row to be killed
        assert [f.result().outcome for f in futures[1:]] == [Outcome.CORRECT] * 8


def test_equal_rows_that_wait_together_are_graded_once() -> None:
    counting = FAULTY.replace(":Faulty", ":Counting")
    rows = [GradingRow(completion=text, reference=gold) for text, gold in [("a", "a"), ("a", "b"), ("c", "c")] * 4]
    with GradingPool(workers=1) as made:
        verdicts = [future.result() for future in [made.submit(counting, {}, row) for row in rows]]
        assert [verdict.outcome == "correct" for verdict in verdicts] == [True, False, True] * 4
        assert {verdict.reason for verdict in verdicts} == {"row 1", "row 2", "row 3"}
        assert [verdict.seconds > 0 for verdict in verdicts] == [True] * 3 + [False] * 9
        # only while they wait together: what a verifier remembers is its own affair
        assert made.submit(counting, {}, rows[0]).result().reason == "row 4"


def test_rows_of_a_low_rank_come_first() -> None:
    counting = FAULTY.replace(":Faulty", ":Counting")
    with GradingPool(workers=1) as made:
        futures = [
            made.submit(counting, {}, GradingRow(completion=text, reference="a"), rank=rank)
            for text, rank in (("a", 0), ("b", 2), ("c", 1))
        ]
        assert [future.result().reason for future in futures] == ["row 1", "row 3", "row 2"]


def test_a_fault_is_no_verdict_for_equal_rows() -> None:
    counting = FAULTY.replace(":Faulty", ":Counting")
    with GradingPool(workers=1) as made:
        futures = [made.submit(counting, {}, GradingRow(completion="raise", reference="a")) for _ in range(3)]
        assert [future.result().outcome for future in futures] == [Outcome.VERIFIER_ERROR] * 3
        after = made.submit(counting, {}, GradingRow(completion="a", reference="a"))
        assert after.result().reason == "row 4"  # each of the three was graded by itself


def test_equal_rows_of_a_closed_pool_are_settled() -> None:
    counting = FAULTY.replace(":Faulty", ":Counting")
    made = GradingPool(workers=1)
    futures = [made.submit(counting, {}, GradingRow(completion="hang", reference="a")) for _ in range(3)]
    time.sleep(0.3)
    made.close()
    assert {future.result(timeout=10).outcome for future in futures} == {Outcome.VERIFIER_ERROR}


def _split(made: GradingRequest) -> tuple[str, dict[str, object], GradingRow]:
    return made.verifier, dict(made.options), made.row


def test_unknown_verifiers_and_options_are_errors_at_once(pool: GradingPool) -> None:
    from verifiers import BadOption, UnknownVerifier

    with pytest.raises(UnknownVerifier, match="Did you mean 'math'"):
        pool.submit("mth", {}, GradingRow(completion="", reference=""))
    with pytest.raises(BadOption):
        pool.submit("exact", {"no_such": 1}, GradingRow(completion="", reference=""))


def test_close_settles_what_waits_and_leaves_no_process() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    pool = GradingPool(workers=1)
    futures = [pool.submit(*_split(request("hang"))) for _ in range(5)]
    time.sleep(0.5)
    pool.close()
    assert {future.result(timeout=10).outcome for future in futures} == {Outcome.VERIFIER_ERROR}
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit("exact", {}, GradingRow(completion="", reference=""))


def test_nothing_starts_before_the_first_row() -> None:
    before = len(psutil.Process().children(recursive=True))
    with GradingPool(workers=4):
        assert len(psutil.Process().children(recursive=True)) == before


def test_workers_die_with_a_killed_owner() -> None:
    code = f"""
import time
from verifiers import GradingRow
from verifiers.pool import GradingPool
import psutil
pool = GradingPool(workers=1)
pool.submit({FAULTY!r}, {{}}, GradingRow(completion="good", reference="good")).result()
pool.submit({FAULTY!r}, {{}}, GradingRow(completion="hang", reference="good"))
time.sleep(0.2)
print([child.pid for child in psutil.Process().children(recursive=True)], flush=True)
time.sleep(100)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    workers = [int(pid) for pid in owner.stdout.readline().strip("[]\n ").split(",")]
    assert workers
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 5
    while any(map(_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, workers))


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


BATCHING = Path(__file__).parents[1] / "batching.py"


def test_batches_reach_a_verifier_that_wants_them() -> None:
    with GradingPool(workers=1) as made:
        name = f"{BATCHING}:Batched"
        verdicts = list(
            made.grade([GradingRequest(name, GradingRow(completion=str(n), reference="")) for n in range(64)])
        )
    assert max(int(str(v.detail["size"])) for v in verdicts) == 8
    assert all(v.reward == 1 for v in verdicts)


@pytest.mark.parametrize(("act", "said"), [("die", "exited with status 3"), ("raise", "ValueError: one of them")])
def test_a_bad_row_of_a_batch_is_found_and_costs_itself(act: str, said: str) -> None:
    rows = [act if n == 5 else "fine" for n in range(16)]
    with GradingPool(workers=1) as made:
        name = f"{BATCHING}:Batched"
        verdicts = list(made.grade([GradingRequest(name, GradingRow(completion=row, reference="")) for row in rows]))
    assert [v.outcome for v in verdicts].count(Outcome.CORRECT) == 15
    assert verdicts[5].outcome is Outcome.VERIFIER_ERROR
    assert said in verdicts[5].reason


def test_verifiers_of_this_process_get_what_has_gathered() -> None:
    with GradingPool(workers=1) as made:
        name = f"{BATCHING}:InProcess"
        texts = ["slow", *["x"] * 50, "refuse"]
        futures = [made.submit(name, {}, GradingRow(completion=text, reference="")) for text in texts]
        verdicts = [future.result(timeout=20) for future in futures]
    assert [v.reward for v in verdicts] == [0.5] * 51 + [None]
    assert "the batch holds a bad row" in verdicts[-1].reason


def test_a_stuck_verifier_of_this_process_does_not_hold_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifiers.pool.in_process.START_SECONDS", 0.2)
    with GradingPool(workers=1) as made:
        name = f"{BATCHING}:Stuck"
        futures = [made.submit(name, {}, GradingRow(completion="", reference="")) for _ in range(8)]
        verdicts = [future.result(timeout=30) for future in futures]
        later = [made.submit(name, {}, GradingRow(completion="", reference="")).result(timeout=30) for _ in range(4)]
    assert {v.outcome for v in verdicts + later} == {Outcome.VERIFIER_ERROR}
    assert "did not respond within 0.1 s" in verdicts[0].reason
    assert "is no longer called" in later[-1].reason


def test_a_stuck_row_of_a_batch_costs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifiers.pool.in_process.START_SECONDS", 0.2)
    texts = ["slow", "x", "stuck", *["x"] * 9]
    with GradingPool(workers=1) as made:
        name = f"{BATCHING}:StuckOnOne"
        futures = [made.submit(name, {}, GradingRow(completion=text, reference="")) for text in texts]
        verdicts = [future.result(timeout=30) for future in futures]
    assert [v.outcome is Outcome.CORRECT for v in verdicts] == [text != "stuck" for text in texts]


def test_concurrency_of_one_verifier(tmp_path: Path) -> None:
    options = {"lock": str(tmp_path / "lock")}
    with GradingPool(workers=3) as made:
        rows = [
            GradingRequest(f"{BATCHING}:Alone", GradingRow(completion="", reference=""), options) for _ in range(60)
        ]  # pyright: ignore
        assert {v.outcome for v in made.grade(rows)} == {Outcome.CORRECT}


def test_a_slow_verifier_does_not_hold_up_another_one() -> None:
    with GradingPool(workers=2) as made:
        slow = [made.submit(*_split(request("hang"))) for _ in range(6)]
        rows = [GradingRequest("exact", GradingRow(completion="#### 1", reference="1")) for _ in range(50)]
        verdicts = made.grade(rows)
        assert next(verdicts).reward == 1.0
        assert not slow[-1].done()  # asked for first, and three rounds of both workers away
        assert {v.reward for v in verdicts} == {1.0}


def test_a_verifier_that_cannot_be_loaded_is_given_up() -> None:
    with GradingPool(workers=1) as made:
        rows = [GradingRequest(f"{BATCHING}:Unloadable", GradingRow(completion="", reference="")) for _ in range(200)]
        started = time.monotonic()
        verdicts = list(made.grade(rows))
        assert time.monotonic() - started < 20
        assert {v.outcome for v in verdicts} == {Outcome.VERIFIER_ERROR}
        assert "exited with status 7" in verdicts[0].reason
        assert next(made.grade([GradingRequest("exact", GradingRow(completion="#### 1", reference="1"))])).reward == 1


def test_limits_of_one_verifier() -> None:
    with GradingPool(workers=1, limits=PoolLimits(memory_bytes=200 << 20)) as made:
        verdict = made.submit(f"{BATCHING}:Hungry", {}, GradingRow(completion="", reference="")).result()
        assert verdict.outcome is Outcome.CORRECT, verdict.reason
        small = made.submit(*_split(request("eat memory"))).result()
        assert small.outcome is Outcome.VERIFIER_ERROR


def test_a_missing_dependency_is_a_fault_with_its_name(pool: GradingPool) -> None:
    verdict = pool.submit(f"{BATCHING}:Needs", {}, GradingRow(completion="", reference="")).result()
    assert (verdict.outcome, verdict.reward) == (Outcome.VERIFIER_ERROR, None)
    assert "Install 'a_package_that_is_not_there'" in verdict.reason


def test_a_completion_over_the_limit_is_the_completions_fault() -> None:
    with GradingPool(workers=1, limits=PoolLimits(completion_characters=100)) as made:
        verdict = made.submit("exact", {}, GradingRow(completion="x" * 101, reference="x")).result()
    assert (verdict.outcome, verdict.reward) == (Outcome.LIMIT_EXCEEDED, 0.0)
