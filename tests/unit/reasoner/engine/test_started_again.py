"""A server that was started again lacks the weights it was sent: a mark shows it, and they are sent anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from reasoner import processes
from reasoner.engine.base import EngineError
from reasoner.engine.fleet import Fleet
from reasoner.engine.remote import Lost, PlacedServer, Seen, Server, StartedAgain
from reasoner.engine.server import OWNER_FILE, WEIGHTS_PREFIX, ServerEngine
from reasoner.records import Request, SamplingParams
from tests.unit.reasoner.engine.standin import StandIn
from verifiers.serve.addresses import free_port

Opened = Callable[..., tuple[ServerEngine, list[StandIn]]]
REQUESTS = [Request(prompt_ids=(5, 6), seed=seed) for seed in range(12)]
WEIGHTS = [("w", torch.arange(4.0))]
GENERATING = SamplingParams(max_tokens=3)


@pytest.fixture
def standin() -> Iterator[StandIn]:
    one = StandIn()
    one.start = "first"
    yield one
    one.close()


def placed(address: Callable[[], str | None], seconds: float = 30.0) -> PlacedServer:
    return PlacedServer(address, number=3, seconds=5.0, key="sesame", until=time.monotonic() + seconds)


def test_a_server_with_another_mark_is_another_server(standin: StandIn) -> None:
    server = Server(standin.url, seconds=5.0)
    server.post("/pause")  # not known yet
    assert server.ready()
    assert server.post("/pause") == {}
    server.check_start()
    for mark in ("second", None):
        standin.start = mark
        with pytest.raises(StartedAgain, match=f"{server.url} was started again, and lacks the current weights"):
            server.post("/pause")
        with pytest.raises(StartedAgain):
            server.check_start()
        assert not server.healthy(5.0)
    assert server.ready()
    assert server.post("/pause") == {}
    server.stop()


def test_a_server_without_a_mark_or_without_an_answer_is_not_taken_for_another(standin: StandIn) -> None:
    standin.start = None
    server = Server(standin.url, seconds=5.0)
    assert server.ready()
    assert server.post("/pause") == {}
    server.check_start()
    standin.dead = True
    server.check_start()
    with pytest.raises(Lost) as raised:
        server.post("/pause")
    assert not isinstance(raised.value, StartedAgain)
    server.stop()


def test_before_new_weights_a_server_that_was_started_again_is_woken(opened: Opened) -> None:
    engine, standins = opened(blind=False)
    first, second = standins
    first.start = second.start = "first"
    engine.load_weights(WEIGHTS, 1)
    for server in engine.servers:
        server.ready()  # now with a mark
    first.start, first.version, first.workers[0].weights = "second", "default", {}
    engine.load_weights(WEIGHTS, 2)
    assert (first.version, second.version) == ("2", "2")
    assert torch.equal(first.workers[0].weights["w"], WEIGHTS[0][1].bfloat16())
    assert [server.alive for server in engine.servers] == [True, True]
    assert [server.start for server in engine.servers] == ["second", "first"]
    said = [note for note in engine.take_notes() if "left out" in note]
    assert said == [
        f"left out until the next weight sync: {first.url} was started again, and lacks the current weights"
    ]


def test_its_requests_are_repeated_on_the_others(opened: Opened) -> None:
    engine, standins = opened()
    for one, server in zip(standins, engine.servers, strict=True):
        one.start = "first"
        server.ready()
    standins[0].start = "second"
    found = list(engine.generate(REQUESTS, GENERATING))
    assert sorted(one.index for one in found) == list(range(12))
    assert {one.completion.text for one in found} == {standins[1].url}
    assert sorted(standins[1].seeds) == list(range(12))
    assert [server.alive for server in engine.servers] == [False, True]


def test_all_processes_use_what_the_main_one_reaches(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    main = Fleet([Server(standin.url, seconds=5.0), Server(gone, seconds=5.0)])
    main.servers[0].wait_until_ready(time.monotonic() + 30)
    main.servers[0].model = "adapter-v2"
    said: list[Sequence[Seen | None]] = []

    def gather(item: Sequence[Seen | None]) -> list[Sequence[Seen | None]]:
        said.append(item)
        return [said[0], item]

    monkeypatch.setattr(processes, "gather", gather)
    main.agree()
    other = Fleet([Server("http://127.0.0.1:9", seconds=5.0), Server(gone, seconds=5.0)])
    other.servers[1].alive = True
    other.servers[0].hang_up()
    other.agree()
    assert said[0] == [Seen(standin.url, "adapter-v2", "first"), None]
    used = other.servers[0]
    assert (used.url, used.model, used.start) == (standin.url, "adapter-v2", "first")
    assert [server.alive for server in other.servers] == [True, False]
    assert used.post("/pause") == {}, "at the new address, and connections are made again"
    standin.start = "second"
    with pytest.raises(StartedAgain):
        used.post("/pause")
    for fleet in (main, other):
        fleet.close()


def test_a_placed_server_follows_its_address_while_it_is_lost(standin: StandIn) -> None:
    places: list[str | None] = [None, None, f"http://127.0.0.1:{free_port()}"]
    server = placed(lambda: places.pop(0) if len(places) > 1 else places[0])
    before = server.url
    assert places == [before], "it was waited for"
    server.pulls = False
    places[0] = None
    server.revive()
    assert (server.url, server.pulls, server.waking) == (before, False, False)
    places[0] = standin.url
    server.revive()
    assert (server.url, server.pulls, server.waking) == (standin.url, None, True)
    server.use(server.seen())
    places[0] = before
    server.revive()
    assert server.url == standin.url, "as long as it answers"
    server.stop()


def test_a_placed_server_that_does_not_come_up_is_told() -> None:
    with pytest.raises(
        EngineError, match=r"sampler 3 must be up before .* `reasoner cluster status RUN` shows all parts"
    ):
        placed(lambda: None, seconds=-1.0)


class Parts:
    """Two servers that somebody else places."""

    def __init__(self, standins: Sequence[StandIn]) -> None:
        self.urls: list[str | None] = [one.url for one in standins]
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def ask(self, model: str, options: Sequence[str]) -> str:
        self.asked.append((model, tuple(options)))
        return "mark"

    def count(self, role: str) -> int:
        return len(self.urls) if role == "sampler" else 0

    def address(self, role: str, index: int, *, asked: str | None = None) -> str | None:
        return self.urls[index] if (role, asked) == ("sampler", "mark") else None


def test_an_engine_asks_for_servers_and_finds_one_that_moved(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASONER_ENGINE_KEY", "of the cluster")
    standins = [StandIn() for _ in range(3)]
    parts = Parts(standins[:2])
    engine, _ = opened(0, urls=[], placed=parts, model_path="m", arguments=["--x"], key_variable="TEAM_KEY")
    (asked,) = parts.asked
    assert asked[0] == "m"
    assert asked[1][-1] == "--x"
    assert standins[0].keys == {"Bearer of the cluster"}, "it is the key with which they are started"
    engine.load_weights(WEIGHTS, 1)
    standins[0].dead = True
    list(engine.generate(REQUESTS, GENERATING))
    parts.urls[0] = standins[2].url
    engine.load_weights(WEIGHTS, 2)
    assert [server.url for server in engine.servers] == [standins[2].url, standins[1].url]
    assert [one.version for one in standins] == ["1", "2", "2"]
    assert "reasoner_sees" in standins[2].calls, "it may be on a machine that does not see the files"
    engine.close()
    for one in standins:
        one.close()


TRAINER = """
import sys, tempfile, time
from pathlib import Path
from verifiers.one_writer import WriterLock
folder = Path(tempfile.mkdtemp(prefix=sys.argv[2], dir=sys.argv[1]))
lock = WriterLock.hold(folder / sys.argv[3])
print(folder, flush=True)
time.sleep(300)
"""


def trainer(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process with a folder of weights; return it and the folder."""
    words = [sys.executable, "-c", TRAINER, str(folder), WEIGHTS_PREFIX, OWNER_FILE]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    held = Path(process.stdout.readline().strip())
    (held / "model.safetensors").write_bytes(b"x")
    return process, held


def test_weights_of_dead_trainers_are_removed_and_those_of_living_ones_are_not(opened: Opened, tmp_path: Path) -> None:
    dead, left = trainer(tmp_path)
    living, used = trainer(tmp_path)
    foreign = tmp_path / f"{WEIGHTS_PREFIX}foreign"
    foreign.mkdir()
    (foreign / OWNER_FILE).write_text(json.dumps({"host": "another machine", "pid": os.getpid()}))
    new = tmp_path / f"{WEIGHTS_PREFIX}new"  # its owner has not locked it yet
    new.mkdir()
    try:
        dead.kill()
        dead.wait()
        first, _ = opened(1)
        kept = set(tmp_path.glob(f"{WEIGHTS_PREFIX}*"))
        assert not left.exists()
        assert {used, foreign, new} < kept
        assert (used / "model.safetensors").exists()
        assert len(kept) == 4
        second, _ = opened(1)
        assert set(tmp_path.glob(f"{WEIGHTS_PREFIX}*")) > kept, "two engines of one process"
        first.close()
        second.close()
        assert set(tmp_path.glob(f"{WEIGHTS_PREFIX}*")) == {used, foreign, new}
    finally:
        living.kill()
        living.wait()
        for process in (dead, living):
            assert process.stdout is not None
            process.stdout.close()
