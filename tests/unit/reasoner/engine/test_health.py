"""A server that is gone without a word is noticed beside the requests that wait for it; keys and certificates."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reasoner.engine.base import EngineError
from reasoner.engine.gate import KEY_VARIABLE
from reasoner.engine.remote import Lost, OwnServer, Server
from reasoner.engine.serve import engine_key, server_environment
from reasoner.engine.server import ServerEngine
from reasoner.records import Request, SamplingParams
from tests.unit.reasoner.engine.standin import StandIn

Opened = Callable[..., tuple[ServerEngine, list[StandIn]]]
REQUESTS = [Request(prompt_ids=(5, 6), seed=seed) for seed in range(12)]


def test_a_server_that_hangs_is_lost_and_its_requests_go_to_the_others_with_their_seeds(opened: Opened) -> None:
    engine, standins = opened(health_seconds=0.4)
    first, second = standins
    first.hangs = True
    began = time.monotonic()
    found = list(engine.generate(REQUESTS, SamplingParams(max_tokens=3)))
    assert time.monotonic() - began < 20, "not request_seconds, half an hour"
    assert sorted(one.index for one in found) == list(range(12))
    assert {one.completion.text for one in found} == {second.url}
    assert sorted(second.seeds) == list(range(12))
    assert [server.alive for server in engine.servers] == [False, True]
    assert [note for note in engine.take_notes() if "left out" in note] == [
        f"left out until the next weight sync: {first.url} did not pass 3 health checks in a row"
    ]
    first.hangs = False
    engine.load_weights([], 1)
    assert [server.alive for server in engine.servers] == [True, True]


def test_requests_of_a_server_that_another_request_found_lost_are_not_waited_for(opened: Opened) -> None:
    engine, standins = opened(health_seconds=0.4)
    first, second = standins
    first.hangs = True
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        sampling = pool.submit(list, engine.generate(REQUESTS, SamplingParams(max_tokens=3)))
        while not engine.servers[0].pending:
            time.sleep(0.01)
        engine._fleet.leave_out(engine.servers[0], Lost("no connection in 10 s"))
        found = sampling.result(60)
    assert time.monotonic() - began < 20, "not request_seconds, half an hour"
    assert {one.completion.text for one in found} == {second.url}
    assert sorted(second.seeds) == list(range(12))


def test_the_last_server_that_hangs_ends_the_sampling(opened: Opened) -> None:
    engine, standins = opened(1, health_seconds=0.2)
    standins[0].hangs = True
    with pytest.raises(EngineError, match=r"every vLLM server is lost. .* did not pass 3 health checks in a row"):
        list(engine.generate(REQUESTS, SamplingParams(max_tokens=3)))


def test_a_slow_answer_is_waited_for_while_the_server_is_healthy(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, standins = opened(1, health_seconds=0.05)
    answer = standins[0]._post
    monkeypatch.setattr(standins[0], "_post", lambda *given: (time.sleep(0.6), answer(*given))[1])
    assert len(list(engine.generate(REQUESTS[:2], SamplingParams(max_tokens=3)))) == 2
    assert engine.take_notes()[1:] == []


def test_the_key_comes_from_the_variable_that_is_named(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="names TEAM_KEY, which must be set to the key of the servers"):
        opened(key_variable="TEAM_KEY")
    monkeypatch.setenv("TEAM_KEY", "sesame")
    engine, standins = opened(key_variable="TEAM_KEY")
    assert engine.key == "sesame"
    assert standins[-1].keys == {"Bearer sesame"}
    assert server_environment("sesame")[KEY_VARIABLE] == "sesame"
    assert engine_key() == engine_key(KEY_VARIABLE) != "sesame"


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "server.pem", folder / "server.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem, private)
    return pem, tls


def test_https_needs_a_certificate_that_is_trusted_and_connections_break_as_without(tmp_path: Path) -> None:
    pem, tls = certificate(tmp_path)
    standin = StandIn(tls=tls)
    trusted = Server(standin.url, seconds=20.0, ca_file=str(pem))
    assert trusted.ready()
    distrusted = Server(standin.url, seconds=5.0)
    with pytest.raises(Lost, match="certificate verify failed"):
        distrusted.post("/pause")
    standin.hangs = True
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(trusted.post, "/pause")
        time.sleep(0.3)
        assert not waiting.done()
        trusted.hang_up()
        with pytest.raises(Lost):
            waiting.result(5)
    with pytest.raises(EngineError, match=r"engine.options.ca_file must be a file of PEM certificates"):
        Server(standin.url, seconds=5.0, ca_file=str(tmp_path / "server.key"))
    for server in (trusted, distrusted):
        server.stop()
    standin.close()


def test_own_servers_listen_at_an_address_of_this_machine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"engine.options.host must be an address of this machine; got '192.0.2.1'"):
        OwnServer("nothing", number=0, log=tmp_path / "log", device=None, seconds=1.0, options=(), host="192.0.2.1")
    server = OwnServer(
        "nothing", number=0, log=tmp_path / "log", device=None, seconds=1.0, options=(), host="127.0.0.2", key="sesame"
    )
    server.stop()
    assert server.url.startswith("http://127.0.0.2:")
    assert server._command[server._command.index("--host") + 1] == "127.0.0.2"
    assert not any("sesame" in word for word in server._command)


def test_a_server_that_cannot_adapt_its_model_says_what_to_set(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("(EngineCore) ValueError: OPTForCausalLM does not support LoRA yet.\n" + "and so on\n" * 20)
    server = OwnServer("nothing", number=0, log=log, device=None, seconds=1.0, options=())
    server.process.kill()
    server.process.wait()
    with pytest.raises(
        EngineError, match=r"ended with status -9. .*no adapters to this model. Set engine.options.lora:"
    ):
        server.check_running()
    server.stop()
