"""New weights reach servers: as files that they see, or fetched from the trainer, every worker checked."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from reasoner.engine import fetch, weights
from reasoner.engine.base import EngineError
from reasoner.engine.check import checksum
from reasoner.engine.fetch import Fetch, Source
from reasoner.engine.vllm_internals import tensors_of
from reasoner.engine.weights import WeightHost, WeightStore, address_towards, in_dtype, write_buckets
from tests.unit.reasoner.engine.standin import StandIn


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed": (50, 40), "layer.weight": (30, 40), "norm.weight": (40,), "head": (50, 40)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_buckets_hold_what_was_given_with_matrices_in_the_engines_dtype(tmp_path: Path) -> None:
    given = tensors()
    written = write_buckets(in_dtype(given.items(), torch.bfloat16), tmp_path, bucket_bytes=6000)
    assert list(written.files.values()) == [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert len(written.files) == 3, "embed of 4,000 bytes; layer and norm of 2,560; head of 4,000"
    found = dict(tensors_of(tmp_path))
    assert written.digest == checksum(found.items())
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "embed": torch.bfloat16,
        "layer.weight": torch.bfloat16,
        "norm.weight": torch.float32,
        "head": torch.bfloat16,
    }
    for name, tensor in found.items():
        assert torch.equal(tensor, given[name].to(tensor.dtype))
    whole = sum(tensor.nbytes for tensor in given.values())
    assert written.bytes < 0.55 * whole + 1000


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[WeightHost, Path]]:
    folder = tmp_path / "served"
    (folder / "v1").mkdir(parents=True)
    (folder / "secret").write_text("not in a folder of it")
    served = WeightHost(folder, host="127.0.0.1", port=0, key="sesame")
    yield served, folder / "v1"
    served.close()
    assert not served.running


def status(host: WeightHost, path: str, key: str = "sesame") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{host.port}{path}", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_only_files_of_a_version_are_served_and_only_with_the_key(host: tuple[WeightHost, Path]) -> None:
    served, folder = host
    (folder / "a.safetensors").write_bytes(b"abc")
    assert status(served, "/v1/a.safetensors") == 200
    assert status(served, "/v1/a.safetensors", key="sesam") == 401
    for path in ("/v1/b.safetensors", "/secret", "/v1/../secret", "/../secret", "/v1/", "/", "/v1/%2e%2e/secret"):
        assert status(served, path) == 404, path


def test_a_port_in_use_is_told_with_what_to_set(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(EngineError, match=r"in use. Set engine.options.weights_host and weights_port"):
            WeightHost(tmp_path, host="127.0.0.1", port=taken.getsockname()[1], key="k")


def source_of(served: WeightHost, folder: Path, into: Path) -> Source:
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    return Source(url=f"http://127.0.0.1:{served.port}/{folder.name}", key="sesame", files=files, into=str(into))


def finished(one: Fetch) -> Fetch:
    one.wait(30)
    assert one.done
    return one


def test_workers_of_one_machine_fetch_a_file_once(host: tuple[WeightHost, Path], tmp_path: Path) -> None:
    served, folder = host
    for name, size in (("a.safetensors", 3 << 20), ("b.safetensors", 0), ("c.safetensors", 5)):
        (folder / name).write_bytes(bytes(size))
    (tmp_path / "into" / "v0").mkdir(parents=True)
    source = source_of(served, folder, tmp_path / "into")
    both = [Fetch(source) for _ in range(2)]
    assert [finished(one).error for one in both] == [None, None]
    assert sorted(one.bytes for one in both) == [0, (3 << 20) + 5]
    assert {path.name: path.read_bytes() for path in source.folder.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    assert [path.name for path in (tmp_path / "into").iterdir() if path.is_dir()] == ["v1"], "older ones are removed"


class Cutting:
    """Passes bytes on to a host, and cuts each connection after so many bytes of the answer."""

    def __init__(self, port: int, *, cut_after: int) -> None:
        self._port, self._cut_after = port, cut_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.running, self.connections = self._listener.getsockname()[1], True, 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                with client, socket.create_connection(("127.0.0.1", self._port)) as target:
                    target.sendall(client.recv(65536))
                    left = self._cut_after
                    while left > 0 and (piece := target.recv(min(left, 65536))):
                        client.sendall(piece)
                        left -= len(piece)

    def close(self) -> None:
        self._listener.close()


def test_a_broken_download_goes_on_where_it_broke(
    host: tuple[WeightHost, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, folder = host
    content = torch.arange(700_000, dtype=torch.int32).numpy().tobytes()
    (folder / "a.safetensors").write_bytes(content)
    monkeypatch.setattr(Fetch, "PAUSE", 0.001)
    cutting = Cutting(served.port, cut_after=600_000)
    source = Source(
        url=f"http://127.0.0.1:{cutting.port}/v1",
        key="sesame",
        files={"a.safetensors": len(content)},
        into=str(tmp_path / "into"),
    )
    one = finished(Fetch(source))
    assert (one.error, one.bytes, cutting.connections) == (None, len(content), 5)
    assert (source.folder / "a.safetensors").read_bytes() == content
    always = Cutting(served.port, cut_after=10)
    broken = finished(Fetch(Source(f"http://127.0.0.1:{always.port}/v1", "sesame", source.files, str(tmp_path / "no"))))
    assert broken.error is not None
    assert "/v1/a.safetensors broke off 6 times; the last time: " in broken.error
    cutting.close()
    always.close()


def test_what_cannot_be_fetched_is_told(
    host: tuple[WeightHost, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, folder = host
    (folder / "a.safetensors").write_bytes(b"abcdef")
    source = source_of(served, folder, tmp_path / "into")
    gone = Source(source.url.replace("v1", "v9"), source.key, source.files, source.into)
    assert finished(Fetch(gone)).error == f"{gone.url}/a.safetensors answered 404"
    other = Source(source.url, source.key, {"a.safetensors": 5}, source.into)
    assert "must have 5 bytes; it has another size" in str(finished(Fetch(other)).error)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: fetch.shutil._ntuple_diskusage(9, 6, 3))
    assert "must have room for 6 bytes of weights; it has 3. Enlarge it" in str(finished(Fetch(source)).error)
    monkeypatch.undo()
    monkeypatch.setattr(fetch.os, "getuid", lambda: 12345)
    assert "must belong to the user of the server" in str(finished(Fetch(source)).error)


def arrived(standin: StandIn) -> list[str]:
    return [checksum(worker.weights.items()) for worker in standin.workers]


@pytest.mark.parametrize("blind", [False, True])
def test_weights_take_the_way_that_each_server_can(opened, tmp_path: Path, blind: bool) -> None:
    engine, standins = opened(blind=blind)
    way = "fetch new weights over HTTP" if blind else f"read new weights in {tmp_path}"
    assert [way in note for note in engine.take_notes()] == [True]
    assert engine.take_notes() == []
    for version in (1, 2):
        given = tensors(version)
        assert engine.load_weights(given.items(), version) == checksum(given.items())
        sent = checksum(in_dtype(given.items(), torch.bfloat16))
        assert [arrived(one) for one in standins] == [[sent, sent]] * 2
    for one in standins:
        assert ("reasoner_fetch" in one.calls) == blind
        after = one.calls[one.calls.index("/pause") :]
        expected = ["/pause", "reasoner_load_weights", "/reset_prefix_cache", "/update_weight_version", "/resume"]
        assert after[:5] == expected, "fetched before requests are paused"
        assert one.version == "2"
    left = [path.name for path in tmp_path.rglob("*.safetensors*")]
    assert left == [], "neither side keeps the files"


def test_a_server_that_must_see_the_files_and_does_not_is_refused(opened) -> None:
    with pytest.raises(EngineError, match=r"must be able to read .*Set engine.options.weights: pull"):
        opened(weights="file")
    engine, _ = opened(0, weights="pull", urls=[StandIn().url])
    assert engine.servers[0].pulls


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("blind", [False, True])
def test_other_weights_in_any_worker_end_the_run(opened, blind: bool, worker: int) -> None:
    engine, standins = opened(blind=blind)
    standins[1].workers[worker].drops_a_tensor = True
    with pytest.raises(EngineError, match="weights must arrive at the engine as they were sent"):
        engine.load_weights(tensors().items(), 1)


def test_a_prefix_cache_that_stays_leaves_its_server_out(opened) -> None:
    engine, standins = opened()
    standins[0].keeps_cache = True
    engine.load_weights(tensors().items(), 1)
    assert [server.alive for server in engine.servers] == [False, True]
    assert any("did not clear its prefix cache" in note for note in engine.take_notes())
    assert "/resume" not in standins[0].calls, "it may have any weights"
    standins[1].keeps_cache = True
    with pytest.raises(EngineError, match=r"every vLLM server is lost.*did not clear its prefix cache"):
        engine.load_weights(tensors().items(), 2)


@pytest.mark.parametrize("moment", ["reasoner_fetch", "reasoner_fetched", "/pause", "reasoner_load_weights", "/resume"])
def test_a_server_that_dies_in_the_middle_of_a_pull_is_left_out_and_returns(opened, moment: str) -> None:
    engine, standins = opened()
    standins[0].dies_at = moment
    sent = checksum(in_dtype(tensors(1).items(), torch.bfloat16))
    engine.load_weights(tensors(1).items(), 1)
    assert [server.alive for server in engine.servers] == [False, True]
    assert arrived(standins[1]) == [sent, sent]
    assert any(
        standins[0].url in note and "left out until the next weight sync" in note for note in engine.take_notes()
    )
    standins[0].dies_at, standins[0].dead = None, False
    engine.load_weights(tensors(2).items(), 2)
    sent = checksum(in_dtype(tensors(2).items(), torch.bfloat16))
    assert [arrived(one) for one in standins] == [[sent, sent]] * 2
    assert [server.alive for server in engine.servers] == [True, True]


def test_a_server_that_cannot_reach_the_trainer_is_left_out(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, standins = opened()
    monkeypatch.setattr(Fetch, "PAUSE", 0.001)
    away = engine._store.source
    unreachable = "http://127.0.0.1:9"

    def source(written, *, url: str, into: Path) -> Source:
        found = away(written, url=url, into=into)
        if url != standins[0].url:
            return found
        return Source(f"{unreachable}/{written.folder.name}", found.key, found.files, found.into)

    monkeypatch.setattr(engine._store, "source", source)
    engine.load_weights(tensors().items(), 1)
    assert [server.alive for server in engine.servers] == [False, True]
    (said,) = [note for note in engine.take_notes() if "left out" in note]
    assert f"could not fetch the weights: {unreachable}" in said
    assert "Connection refused" in said


def test_the_trainer_is_fetched_from_at_the_address_that_a_server_sees() -> None:
    assert address_towards("http://127.0.0.1:8000") == "127.0.0.1"
    assert address_towards("https://[::1]") in ("::1", None), "None where IPv6 is off"
    assert address_towards("http://no-such-machine.invalid:8000") is None


def test_the_host_is_started_again_if_it_ended(opened) -> None:
    engine, standins = opened(1)
    engine.load_weights(tensors(1).items(), 1)
    engine._store._process._process.kill()
    engine._store._process._process.wait()
    engine.load_weights(tensors(2).items(), 2)
    assert arrived(standins[0])[0] == checksum(in_dtype(tensors(2).items(), torch.bfloat16))


def test_a_folder_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "write_buckets", full)
    store = WeightStore(tmp_path, dtype="float32", host=None, port=0)
    with pytest.raises(EngineError, match=r"No space left on device. Free some .* engine.options.weights_folder"):
        store.write(tensors().items(), "v1")
    assert list(tmp_path.iterdir()) == []
