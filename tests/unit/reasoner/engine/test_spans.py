"""Completions that go on while weights are loaded: versions, servers that fail, and who gets a free place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from reasoner.engine.base import EngineError, Finished
from reasoner.engine.server import Seats, ServerEngine, _with_spans
from reasoner.records import Request, SamplingParams, VersionSpan
from tests.unit.reasoner.engine.standin import StandIn
from tests.unit.reasoner.engine.test_pull import tensors

Opened = Callable[..., tuple[ServerEngine, list[StandIn]]]
REQUESTS = [Request(prompt_ids=(5, 6), seed=seed) for seed in range(6)]


def under_way(standins: list[StandIn], count: int) -> None:
    """Wait until so many requests have arrived."""
    until = time.monotonic() + 10
    while sum(len(one.seeds) for one in standins) < count:
        assert time.monotonic() < until
        time.sleep(0.01)


def sampled(engine: ServerEngine) -> list[Finished]:
    return list(engine.generate(REQUESTS, SamplingParams(max_tokens=3)))


def test_a_completion_says_which_weights_sampled_each_token(opened: Opened) -> None:
    engine, standins = opened(spans=True)
    engine.load_weights(tensors(1).items(), 4)
    assert {(one.completion.policy_version, one.completion.versions) for one in sampled(engine)} == {(4, ())}
    for one in standins:
        one.waits_for, one.seeds = "5", []
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(sampled, engine)
        under_way(standins, 6)
        engine.load_weights(tensors(2).items(), 5)
        found = [one.completion for one in going.result(10)]
    assert {one.versions for one in found} == {(VersionSpan(4, 0, 1), VersionSpan(5, 1, 3))}
    assert {one.policy_version for one in found} == {4}
    assert found[0].token_versions == [4, 5, 5]


@pytest.mark.parametrize("fault", ["keeps_cache", "dies_at"])
def test_requests_of_a_server_whose_load_fails_are_repeated_elsewhere(opened: Opened, fault: str) -> None:
    engine, (first, second) = opened(spans=True)
    engine.load_weights(tensors(1).items(), 4)
    first.waits_for = second.waits_for = "5"
    setattr(first, fault, "reasoner_load_weights" if fault == "dies_at" else True)
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(sampled, engine)
        under_way([first, second], 6)
        engine.load_weights(tensors(2).items(), 5)
        found = going.result(10)
    assert {one.completion.text for one in found} == {second.url}
    assert sorted(one.index for one in found) == list(range(6))
    assert "/update_weight_version" not in first.calls[first.calls.index("/pause", 8) :]
    assert any("left out until the next weight sync" in note for note in engine.take_notes())


def test_a_server_that_returns_samples_only_with_the_new_weights(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, (first, second) = opened(spans=True)
    engine.load_weights(tensors(1).items(), 4)
    first.version = "default"  # it was started again
    engine.servers[0].alive = False
    loading, loaded = threading.Event(), threading.Event()
    load = type(engine.servers[0]).load

    def slow(server: Any, *given: Any) -> list[str]:
        loading.set()
        assert loaded.wait(10)
        return load(server, *given)

    monkeypatch.setattr(type(engine.servers[0]), "load", slow)
    with ThreadPoolExecutor(1) as pool:
        sync = pool.submit(engine.load_weights, tensors(2).items(), 5)
        assert loading.wait(10)
        assert {one.completion.text for one in sampled(engine)} == {second.url}
        loaded.set()
        sync.result(10)
    found = [one.completion for one in sampled(engine)]
    assert {one.text for one in found} == {first.url, second.url}
    assert {one.policy_version for one in found} == {5}


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        (None, "must say which weights sampled 3 tokens; it said"),
        ([{"version": "1", "start": 0, "end": 2}], "must say which weights sampled 3 tokens"),
        ([{"version": "1", "start": 0, "end": 2}, {"version": "2", "start": 1, "end": 3}], "must say which weights"),
        ([{"version": "default", "start": 0, "end": 3}], r"did not send \(version 'default'\)"),
    ],
)
def test_spans_that_say_nothing_are_refused(spans: list[dict[str, object]] | None, said: str) -> None:
    choice = {"text": "", "token_ids": [1, 2, 3], "finish_reason": "length", "weight_versions": spans}
    with pytest.raises(EngineError, match=said):
        _with_spans({"choices": [{**choice, "logprobs": {"content": [{"logprob": -0.5}] * 3}}]})


def test_a_free_place_goes_to_the_lowest_priority_and_then_the_oldest() -> None:
    seats, order = Seats(1), []
    began = threading.Event()

    def work(name: str, priority: int) -> None:
        with seats.taken(priority):
            order.append(name)

    with ThreadPoolExecutor(5) as pool, seats.taken(9):
        for count, (name, priority) in enumerate([("b7", 7), ("a0", 0), ("c7", 7), ("d3", 3)], start=1):
            pool.submit(work, name, priority)
            while len(seats._waiting) < count:
                assert not began.wait(0.005)
    assert order == ["a0", "d3", "b7", "c7"]
    with seats.taken(0):  # all places were given back
        pass
