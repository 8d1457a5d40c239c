"""Trainers and vLLM servers on machines that share nothing but a network: one JSON object. Needs root and Linux.

    python benchmarks/two_machines.py [--delay-ms 20] [--loss 0.01] [--hidden 128] [--steps 4]

Each "machine" is a network namespace with mounts of its own (empty /tmp and /dev/shm) and its own host name. Two have a
trainer process each, joined by torchrun over gloo; they share the folder of the runs and have the same model. The third
has vLLM with two workers (tensor parallelism); the runs and the trainers' model are hidden from it, and it starts with
random weights. The cable between them is a TUN device in each and a thread that passes packets on: late by the delay,
and some of them never.

What is measured: bytes on the wire and seconds of pause of a weight sync with requests in flight (the whole model in
bfloat16, a LoRA adapter alone), with the checksums of both workers; a server that dies in the middle of a pull; whole
runs of GRPO with and without LoRA; and runs whose cable is pulled in the middle, at the sampler and at the second
trainer (the device is switched off, so that no connection is closed): seconds until the processes end, how, and what is
there after `--resume`.
"""

from __future__ import annotations

import argparse
import collections
import fcntl
import json
import math
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from reasoner.engine.remote import Server

ROOT = Path(__file__).resolve().parents[1]
TRAINER, SECOND, SAMPLER = "reasoner-trainer", "reasoner-second", "reasoner-sampler"
ADDRESSES = {TRAINER: "10.77.0.1", SECOND: "10.77.0.2", SAMPLER: "10.77.0.3"}
DEVICES = {TRAINER: "rs-t", SECOND: "rs-u", SAMPLER: "rs-s"}
URL, DYING = (f"http://{ADDRESSES[SAMPLER]}:{port}" for port in (8000, 8001))
CONTEXT = 256
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class Cable:
    """Passes IP packets between the machines, each after a delay, and loses a share of them."""

    def __init__(self, *, delay: float, loss: float) -> None:
        self._delay, self._loss, self._random = delay, loss, random.Random(0)
        self.packets, self.lost = 0, 0
        self._fds = {socket.inet_aton(ADDRESSES[machine]): self._device(machine) for machine in ADDRESSES}
        threading.Thread(target=self._pass_on, daemon=True).start()

    @staticmethod
    def _device(machine: str) -> int:
        name = DEVICES[machine]
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
        ip("link", "set", name, "netns", machine)
        ip("-n", machine, "addr", "add", f"{ADDRESSES[machine]}/24", "dev", name)
        for device in (name, "lo"):
            ip("-n", machine, "link", "set", device, "up")
        return fd

    def _pass_on(self) -> None:
        waiting: collections.deque[tuple[float, int, bytes]] = collections.deque()  # equal delays: first in, first out
        while True:
            pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 1.0
            for fd in select.select(list(self._fds.values()), [], [], pause)[0]:
                try:
                    packet = os.read(fd, 65536)
                except OSError:  # the device is switched off
                    continue
                if (to := self._fds.get(packet[16:20])) is None:  # not IPv4, or to all
                    continue
                self.packets += 1
                if self._random.random() < self._loss:
                    self.lost += 1
                else:
                    waiting.append((time.monotonic() + self._delay, to, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, fd, packet = waiting.popleft()
                try:
                    os.write(fd, packet)
                except OSError:  # the device is switched off, or its queue is full
                    self.lost += 1


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=not check)


def on(machine: str, *command: str, hidden: list[Path]) -> list[str]:
    """Return the command line that runs a command on a machine, with folders hidden from it."""
    mounts = " && ".join(f"mount -t tmpfs none {folder}" for folder in ("/tmp", "/dev/shm", *hidden))
    enter = f'hostname {machine} && {mounts} && exec "$@"'
    return ["ip", "netns", "exec", machine, "unshare", "-m", "-u", "--", "sh", "-c", enter, "sh", *command]


def sent_bytes(machine: str) -> int:
    """Return the bytes that a machine has sent, IP headers and repetitions included."""
    path = f"/sys/class/net/{DEVICES[machine]}/statistics/tx_bytes"
    return int(subprocess.run(["ip", "netns", "exec", machine, "cat", path], capture_output=True, check=True).stdout)


def make_models(work: Path, hidden: int) -> None:
    """Write the trainer's model, and for the sampler the same without its weights."""
    from reasoner.config.sections import ModelSection, ScratchConfig
    from reasoner.model.load import load_model

    shape = ScratchConfig(hidden_size=hidden, layers=4, heads=4, max_positions=CONTEXT)
    model, tokenizer = load_model(ModelSection(from_scratch=shape), seed=0)
    model.save_pretrained(work / "trainer-model")
    tokenizer.save_pretrained(work / "trainer-model")
    shutil.copytree(
        work / "trainer-model",
        work / "sampler-model",
        ignore=shutil.ignore_patterns("*.safetensors"),
        dirs_exist_ok=True,
    )


def measure(work: Path) -> None:
    """Print what weight syncs cost. Runs on the trainer's machine."""
    from reasoner.engine.environment import prepare_process

    prepare_process()
    from functools import partial

    import torch

    from reasoner.config.sections import LoraConfig, ModelSection
    from reasoner.engine import open_engine
    from reasoner.engine.base import Adapter
    from reasoner.engine.check import probe_ids
    from reasoner.engine.server import ServerEngine
    from reasoner.model.load import load_model
    from reasoner.model.lora import add_adapter, is_adapter, peft_config, peft_weights, plain_weights
    from reasoner.records import Request, SamplingParams

    path = str(work / "trainer-model")
    model, tokenizer = load_model(ModelSection(path=path), seed=0)
    adapted = add_adapter(model, LoraConfig(rank=8), seed=0)
    options = {"urls": [URL], "lora_rank": 8, "start_seconds": 3000.0}
    engine = open_engine("vllm-server", model_path=path, dtype="bfloat16", max_model_len=CONTEXT, **options)
    assert isinstance(engine, ServerEngine)
    checksums = spied_loads(engine.servers[0])
    probe = probe_ids(model.config.vocab_size, forbidden=tokenizer.all_special_ids)
    counter = Path(f"/sys/class/net/{DEVICES[TRAINER]}/statistics/tx_bytes")
    syncs: dict[str, list[dict[str, Any]]] = {"model": [], "adapter": []}
    version = 0
    # new base weights under requests that use an adapter would end vLLM 0.32: it forgets the adapter
    for kind in ("model",) * 3 + ("adapter",) * 3:
        version += 1
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if is_adapter(name):
                    parameter.add_(0.02 * torch.randn(parameter.shape))
        adapter = Adapter(peft_weights(adapted), peft_config(adapted), partial(plain_weights, model, merged=False))
        if kind == "adapter":  # the base first, which is sent once
            engine.load_adapter(adapter, version) if version == 4 else None
            adapter = adapter._replace(tensors=peft_weights(adapted))
            version += 1
        finished: list[int] = []

        def sample(finished: list[int] = finished) -> None:
            requests = [Request(prompt_ids=tuple(probe[:40]), seed=seed) for seed in range(8)]
            for done in engine.generate(requests, SamplingParams(max_tokens=200, end_ids=())):
                finished.append(len(done.completion.token_ids))

        sampling = threading.Thread(target=sample)
        sampling.start()
        time.sleep(1.0)
        before, began, flying = int(counter.read_text()), time.monotonic(), 8 - len(finished)
        if kind == "model":
            engine.load_weights(plain_weights(model), version)
        else:
            assert engine.load_adapter(adapter, version) is not None, engine.take_notes()
        seconds, sent = time.monotonic() - began, int(counter.read_text()) - before
        sampling.join()
        with torch.no_grad():
            ids = torch.tensor([probe])
            ours = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        gap = (ours - torch.tensor(engine.score(probe))).abs().mean().item()
        row = {"bytes_sent": sent, "seconds": seconds, "paused_seconds": engine.servers[0].paused_seconds}
        syncs[kind].append(row | {"in_flight": flying, "finished": sorted(finished), "gap_nats": gap})
    engine.close()
    parameters = sum(parameter.numel() for name, parameter in adapted.named_parameters() if not is_adapter(name))
    found = {"workers_with_the_same_checksum": [len(one) for one in checksums if len(set(one)) == 1]}
    found |= {"parameters": parameters, "float32_file_bytes": (work / "trainer-model/model.safetensors").stat().st_size}
    print("FOUND " + json.dumps(found | {"notes": engine.take_notes(), "syncs": syncs}), flush=True)


def spied_loads(server: Server) -> list[list[str]]:
    """Return a list that gets the checksums of a server's workers at each load of a whole model."""
    seen: list[list[str]] = []
    load = server.load

    def noting(folder: Path, version: int) -> list[str]:
        seen.append(load(folder, version))
        return seen[-1]

    server.load = noting  # type: ignore[method-assign]
    return seen


def measure_death(work: Path, group: int) -> None:
    """Print what becomes of a sync during which one of two servers, a process group, is killed."""
    from reasoner.engine.environment import prepare_process

    prepare_process()
    from reasoner.config.sections import ModelSection
    from reasoner.engine import open_engine
    from reasoner.engine.server import ServerEngine
    from reasoner.model.load import load_model
    from reasoner.model.lora import plain_weights
    from reasoner.records import Request, SamplingParams

    path = str(work / "trainer-model")
    model, _ = load_model(ModelSection(path=path), seed=0)
    options = {"urls": [URL, DYING], "start_seconds": 3000.0}
    engine = open_engine("vllm-server", model_path=path, dtype="bfloat16", max_model_len=CONTEXT, **options)
    assert isinstance(engine, ServerEngine)
    engine.load_weights(plain_weights(model), 1)
    both = [server.alive for server in engine.servers]
    dying = engine.servers[1]
    received: list[int] = []

    def kill() -> None:
        while not synced.is_set():
            workers = dying.rpc("reasoner_fetched")
            if not all(worker["done"] for worker in workers) and sum(worker["bytes"] for worker in workers):
                received.extend(worker["bytes"] for worker in workers)
                return os.killpg(group, signal.SIGKILL)
            time.sleep(0.05)
        return None

    synced = threading.Event()
    killer = threading.Thread(target=kill)
    finished: list[int] = []

    def sample() -> None:
        requests = [Request(prompt_ids=(5, 6, 7), seed=seed) for seed in range(16)]
        for done in engine.generate(requests, SamplingParams(max_tokens=200, end_ids=())):
            finished.append(len(done.completion.token_ids))

    sampling = threading.Thread(target=sample)
    sampling.start()
    killer.start()
    began = time.monotonic()
    engine.load_weights(plain_weights(model), 2)
    seconds = time.monotonic() - began
    synced.set()
    sampling.join()
    killer.join()
    found = {"alive_before": both, "alive_after": [server.alive for server in engine.servers]}
    found |= {"bytes_received_when_killed": received, "seconds": seconds, "finished": finished}
    print("FOUND " + json.dumps(found | {"notes": engine.take_notes()}), flush=True)
    engine.close()


def config(work: Path, name: str, steps: int, lora: bool) -> Path:
    """Write the config of a small run of GRPO."""
    path = work / "run" / f"{name}.yaml"
    path.write_text(
        json.dumps(
            {
                "method": "grpo",
                "name": name,
                "output": str(work / "run" / name),
                "steps": steps,
                "task": "arithmetic",
                "model": {"path": str(work / "trainer-model"), "dtype": "bfloat16"}
                | ({"lora": {"rank": 8}} if lora else {}),
                "prompt": {"chat": "never"},
                "rollout": {"problems_per_step": 8, "group_size": 8, "max_tokens": 48},
                "optim": {"lr": 1e-3},
                "algorithm": {"kl_coef": 0.01, "entropy_coef": 0.01},  # a gradient also where all answers are wrong
                "engine": {"name": "vllm-server", "options": {"urls": [URL]}},
                "eval": {"problems": 8},
                "checkpoint": {"every": 1},
            }
        )
    )
    return path


class Run:
    """A run of two trainer processes, each on its machine."""

    started: ClassVar[list[Run]] = []

    def __init__(self, work: Path, name: str, steps: int, *, lora: bool = False, resume: bool = False) -> None:
        self.folder, self.ended = work / "run" / name, dict[str, float]()
        path = str(config(work, name, steps, lora))
        self.began = time.monotonic()
        self.started.append(self)
        self.logs: dict[str, Path] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for rank, machine in enumerate((TRAINER, SECOND)):
            torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
            torchrun += ["--node-rank", str(rank), "--master-addr", ADDRESSES[TRAINER], "--master-port", "29500"]
            command = [sys.executable, *torchrun, "-m", "reasoner", "train", path, *(["--resume"] if resume else [])]
            self.logs[machine] = work / "run" / f"{name}-{rank}{'-resumed' if resume else ''}.log"
            with self.logs[machine].open("wb") as log:
                self.processes[machine] = subprocess.Popen(
                    on(machine, *command, hidden=[work / "sampler-model"]),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                    env=os.environ | {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": DEVICES[machine]},
                    start_new_session=True,
                )

    def steps(self) -> int:
        """Return the number of finished steps."""
        return len(self.rows("metrics.jsonl"))

    def rows(self, file: str) -> list[dict[str, Any]]:
        path = next(iter(self.folder.rglob(file)), None)
        return [json.loads(line) for line in path.read_text().splitlines() if line] if path else []

    def keys(self) -> list[tuple[int, int, int, str]]:
        return [(row["step"], row["group"], row["sample"], row["problem"]) for row in self.rows("rollouts.jsonl")]

    def running(self) -> bool:
        """Note which processes have ended; return True if any still runs."""
        for machine, process in self.processes.items():
            if process.poll() is not None:
                self.ended.setdefault(machine, time.monotonic())
        return len(self.ended) < len(self.processes)

    def wait(self, seconds: float = math.inf) -> None:
        """Wait until all processes have ended; kill those that are left after these seconds."""
        deadline = time.monotonic() + seconds
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.1)
        for machine, process in self.processes.items():
            if machine not in self.ended:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def result(self) -> dict[str, Any]:
        """Wait for the end; return how the run ended and what it left."""
        self.wait()
        keys = self.keys()
        return {
            "status": {machine: process.returncode for machine, process in self.processes.items()},
            "seconds": round(time.monotonic() - self.began, 1),
            "steps": self.steps(),
            "rollouts_by_step": dict(collections.Counter(step for step, *_ in keys)),
            "repeated_rollouts": len(keys) - len(set(keys)),
            "checkpoints": sorted(path.name for path in self.folder.rglob("step-*") if path.is_dir()),
            "gap_logprob_abs": [row.get("gap/logprob_abs") for row in self.rows("metrics.jsonl")],
            "said": {machine: said(log) for machine, log in self.logs.items()},
        }


def said(log: Path) -> list[str]:
    """Return the lines of a log that speak of errors, and the last one."""
    lines = log.read_text(errors="replace").strip().splitlines()
    found = [line for line in lines if line.lower().startswith("error") or "left out" in line]
    return [line[:400] for line in [*found[:4], *lines[-1:]]]


def pulled_cable(work: Path, machine: str, steps: int, whole: Run) -> dict[str, Any]:
    """Pull a machine's cable when a run has finished a step and goes on; put it back, and resume."""
    name = f"pulled-{machine}"
    run = Run(work, name, steps)
    while run.steps() < 1 and run.running():
        time.sleep(0.1)
    time.sleep(1.5)
    done = run.steps()
    ip("-n", machine, "link", "set", DEVICES[machine], "down")
    pulled = time.monotonic()
    run.wait(180)
    noticed = {one: round(ended - pulled, 1) for one, ended in run.ended.items()}
    broken = run.result()
    ip("-n", machine, "link", "set", DEVICES[machine], "up")
    resumed = Run(work, name, steps, resume=True)
    again = resumed.result()
    same = {"the_rollouts_of_a_run_without_a_pull": sorted(resumed.keys()) == sorted(whole.keys())}
    return {"steps_before": done, "seconds_until_the_end": noticed, "then": broken, "resumed": again | same}


def tell(part: str, found: dict[str, Any]) -> None:
    """Print a part that is done; all parts are printed together at the end."""
    print(part, json.dumps(found[part]), file=sys.stderr, flush=True)


def start_server(work: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    """Start a vLLM server with random weights on the sampler."""
    serve = [sys.executable, "-m", "reasoner.engine.serve", "--model", str(work / "sampler-model"), "--port", str(port)]
    serve += ["--host", ADDRESSES[SAMPLER], "--load-format", "dummy", "--dtype", "bfloat16", "--enforce-eager"]
    serve += ["--max-model-len", str(CONTEXT), "--kv-cache-memory-bytes", "200000000", "--max-num-seqs", "64"]
    serve += ["--gpu-memory-utilization", "0.05", "--no-enable-chunked-prefill", *options]
    with (work / f"server-{port}.log").open("wb") as log:
        return subprocess.Popen(
            on(SAMPLER, *serve, hidden=[work / "run", work / "trainer-model"]),
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"},  # bound, a worker would wait for a busy core
            start_new_session=True,
        )


def on_trainer(work: Path, *arguments: str) -> dict[str, Any]:
    """Run a part of this program on the trainer's machine; return what it found."""
    command = on(TRAINER, sys.executable, __file__, *arguments, hidden=[work / "sampler-model"])
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    logs = "".join(log.read_text(errors="replace")[-3000:] for log in work.glob("server-*.log"))
    assert "FOUND " in done.stdout, done.stderr[-3000:] + logs
    return json.loads(done.stdout.split("FOUND ")[1].split("\n")[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--loss", type=float, default=0.01)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--dying", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        work = Path(given.measure)
        return measure_death(work, given.dying) if given.dying else measure(work)
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        sys.exit("two_machines.py needs root and /dev/net/tun, for network namespaces.")
    os.environ |= {"PYTHONPATH": str(ROOT), "REASONER_ENGINE_KEY": os.urandom(16).hex(), "OMP_NUM_THREADS": "1"}
    os.environ |= {"OMP_WAIT_POLICY": "passive", "TORCH_COMPILE_DISABLE": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    work = Path(tempfile.mkdtemp(prefix="reasoner-two-", dir="/var/tmp"))
    (work / "run").mkdir()
    make_models(work, given.hidden)
    servers: list[subprocess.Popen[bytes]] = []
    found: dict[str, Any] = {"delay_ms": given.delay_ms, "loss": given.loss}
    try:
        for machine in ADDRESSES:
            ip("netns", "add", machine)
        cable = Cable(delay=given.delay_ms / 1000, loss=given.loss)
        lora = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--max-cpu-loras", "8"]
        servers.append(start_server(work, 8000, "--tensor-parallel-size", "2", *lora))
        found["sync"] = on_trainer(work, "--measure", str(work))
        tell("sync", found)
        runs: dict[str, Run] = {}
        for name, adapts in (("whole", False), ("lora", True)):
            before = {machine: sent_bytes(machine) for machine in ADDRESSES}
            runs[name] = Run(work, name, given.steps, lora=adapts)
            found[name] = runs[name].result()
            found[name]["bytes_sent"] = {machine: sent_bytes(machine) - before[machine] for machine in ADDRESSES}
            tell(name, found)
        for part, machine in (("sampler_pulled", SAMPLER), ("trainer_pulled", SECOND)):
            found[part] = pulled_cable(work, machine, given.steps, runs["whole"])
            tell(part, found)
        servers.append(start_server(work, 8001))
        found["server_killed"] = on_trainer(work, "--measure", str(work), "--dying", str(servers[-1].pid))
        tell("server_killed", found)
        found["packets"], found["lost_packets"] = cable.packets, cable.lost
        print(json.dumps(found, indent=2))
    finally:
        for one in [*servers, *(process for run in Run.started for process in run.processes.values())]:
            with suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()
        for machine in ADDRESSES:
            ip("netns", "del", machine, check=False)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
