"""A trainer and a vLLM server on two machines that share nothing but a network: one JSON object. Needs root and Linux.

    python benchmarks/two_machines.py [--delay-ms 20] [--loss 0.01] [--hidden 256] [--steps 4]

Each "machine" is a network namespace with mounts of its own (empty /tmp and /dev/shm; the run and the trainer's model
are hidden from the sampler, which starts with random weights) and its own host name. The cable between them is a pair
of TUN devices and a thread that passes packets on: late by the delay, and some of them never.

What is measured: bytes on the wire and seconds of pause of a weight sync with requests in flight (the whole model in
bfloat16, a LoRA adapter alone); a whole run of GRPO; and a run whose cable is pulled in the middle (the sampler's
device is switched off, so that no connection is closed): seconds until the trainer notices, how the run ends, and what
is there after `--resume`.
"""

from __future__ import annotations

import argparse
import collections
import fcntl
import json
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TRAINER, SAMPLER = "reasoner-trainer", "reasoner-sampler"
ADDRESSES = {TRAINER: "10.77.0.1", SAMPLER: "10.77.0.2"}
DEVICES = {TRAINER: "rs-t", SAMPLER: "rs-s"}
URL = f"http://{ADDRESSES[SAMPLER]}:8000"
CONTEXT = 256
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class Cable:
    """Passes IP packets between the two machines, each after a delay, and loses a share of them."""

    def __init__(self, *, delay: float, loss: float) -> None:
        self._delay, self._loss, self._random = delay, loss, random.Random(0)
        self.packets, self.lost = 0, 0
        self._fds = [self._device(machine) for machine in (TRAINER, SAMPLER)]
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
        other = dict(zip(self._fds, reversed(self._fds), strict=True))
        waiting: collections.deque[tuple[float, int, bytes]] = collections.deque()  # equal delays: first in, first out
        while True:
            pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 1.0
            for fd in select.select(self._fds, [], [], pause)[0]:
                try:
                    packet = os.read(fd, 65536)
                except OSError:  # the device is switched off
                    continue
                self.packets += 1
                if self._random.random() < self._loss:
                    self.lost += 1
                else:
                    waiting.append((time.monotonic() + self._delay, other[fd], packet))
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
    options = {"urls": [URL], "lora": "adapter", "lora_rank": 8, "start_seconds": 3000.0}
    engine = open_engine("vllm-server", model_path=path, dtype="bfloat16", max_model_len=CONTEXT, **options)
    assert isinstance(engine, ServerEngine)
    probe = probe_ids(model.config.vocab_size, forbidden=tokenizer.all_special_ids)
    counter = Path(f"/sys/class/net/{DEVICES[TRAINER]}/statistics/tx_bytes")
    syncs: dict[str, list[dict[str, Any]]] = {"model": [], "adapter": []}
    version = 0
    for kind in ("model", "adapter") * 3:
        version += 1
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if is_adapter(name):
                    parameter.add_(0.02 * torch.randn(parameter.shape))
        adapter = Adapter(peft_weights(adapted), peft_config(adapted), partial(plain_weights, model, merged=False))
        if kind == "adapter":  # the base first, which is sent once
            engine.load_adapter(adapter, version) if version == 2 else None
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
    found = {"parameters": parameters, "float32_file_bytes": (work / "trainer-model/model.safetensors").stat().st_size}
    print("FOUND " + json.dumps(found | {"notes": engine.take_notes(), "syncs": syncs}), flush=True)


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
                "engine": {"name": "vllm-server", "options": {"urls": [URL], "lora": "adapter"}},
                "eval": {"problems": 8},
                "checkpoint": {"every": 1},
            }
        )
    )
    return path


class Run:
    """A run of the trainer on its machine."""

    def __init__(self, work: Path, name: str, steps: int, *, lora: bool = False, resume: bool = False) -> None:
        self.folder = work / "run" / name
        command = [sys.executable, "-m", "reasoner", "train", str(config(work, name, steps, lora))]
        self.began = time.monotonic()
        self.log = work / "run" / f"{name}{'-resumed' if resume else ''}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                on(TRAINER, *command, *(["--resume"] if resume else []), hidden=[work / "sampler-model"]),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def steps(self) -> int:
        """Return the number of finished steps."""
        return len(self.rows("metrics.jsonl"))

    def rows(self, file: str) -> list[dict[str, Any]]:
        path = next(iter(self.folder.rglob(file)), None)
        return [json.loads(line) for line in path.read_text().splitlines() if line] if path else []

    def result(self) -> dict[str, Any]:
        """Wait for the end; return how the run ended and what it left."""
        status = self.process.wait()
        rows = self.rows("rollouts.jsonl")
        keys = [(row["step"], row["group"], row["sample"]) for row in rows]
        return {
            "status": status,
            "seconds": round(time.monotonic() - self.began, 1),
            "steps": self.steps(),
            "rollouts_by_step": dict(collections.Counter(row["step"] for row in rows)),
            "repeated_rollouts": len(keys) - len(set(keys)),
            "checkpoints": sorted(path.name for path in self.folder.rglob("step-*") if path.is_dir()),
            "gap_logprob_abs": [row.get("gap/logprob_abs") for row in self.rows("metrics.jsonl")],
            "last_lines": self.log.read_text(errors="replace").strip().splitlines()[-3:],
        }


def pulled_cable(work: Path, steps: int) -> dict[str, Any]:
    """Pull the cable when a run has finished a step and samples again; put it back, and resume."""
    run = Run(work, "pulled", steps)
    while run.steps() < 1 and run.process.poll() is None:
        time.sleep(0.1)
    time.sleep(1.5)
    done = run.steps()
    ip("-n", SAMPLER, "link", "set", DEVICES[SAMPLER], "down")
    pulled = time.monotonic()
    run.process.wait()
    noticed = time.monotonic() - pulled
    broken = run.result()
    ip("-n", SAMPLER, "link", "set", DEVICES[SAMPLER], "up")
    again = Run(work, "pulled", steps, resume=True).result()
    return {"steps_before": done, "seconds_until_the_end": round(noticed, 1), "then": broken, "resumed": again}


def tell(part: str, found: dict[str, Any]) -> None:
    """Print a part that is done; all parts are printed together at the end."""
    print(part, json.dumps(found[part]), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--loss", type=float, default=0.01)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        return measure(Path(given.measure))
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        sys.exit("two_machines.py needs root and /dev/net/tun, for network namespaces.")
    os.environ |= {"PYTHONPATH": str(ROOT), "REASONER_ENGINE_KEY": os.urandom(16).hex(), "OMP_NUM_THREADS": "1"}
    os.environ |= {"OMP_WAIT_POLICY": "passive", "TORCH_COMPILE_DISABLE": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    work = Path(tempfile.mkdtemp(prefix="reasoner-two-", dir="/var/tmp"))
    (work / "run").mkdir()
    make_models(work, given.hidden)
    server: subprocess.Popen[bytes] | None = None
    found: dict[str, Any] = {"delay_ms": given.delay_ms, "loss": given.loss}
    try:
        for machine in (TRAINER, SAMPLER):
            ip("netns", "add", machine)
        cable = Cable(delay=given.delay_ms / 1000, loss=given.loss)
        serve = [
            sys.executable,
            "-m",
            "reasoner.engine.serve",
            "--model",
            str(work / "sampler-model"),
            "--port",
            "8000",
        ]
        serve += ["--host", ADDRESSES[SAMPLER], "--load-format", "dummy", "--dtype", "bfloat16", "--enforce-eager"]
        serve += ["--max-model-len", str(CONTEXT), "--kv-cache-memory-bytes", "200000000", "--max-num-seqs", "64"]
        serve += ["--gpu-memory-utilization", "0.05", "--no-enable-chunked-prefill"]
        serve += ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2"]
        with (work / "server.log").open("wb") as log:
            hidden = [work / "run", work / "trainer-model"]
            server = subprocess.Popen(
                on(SAMPLER, *serve, hidden=hidden), stdout=log, stderr=subprocess.STDOUT, cwd=ROOT
            )
        measuring = [sys.executable, __file__, "--measure", str(work)]
        done = subprocess.run(
            on(TRAINER, *measuring, hidden=[work / "sampler-model"]), capture_output=True, text=True, cwd=ROOT
        )
        assert "FOUND " in done.stdout, done.stderr[-3000:] + (work / "server.log").read_text()[-3000:]
        found["sync"] = json.loads(done.stdout.split("FOUND ")[1].split("\n")[0])
        tell("sync", found)
        for name, lora in (("whole", False), ("lora", True)):
            before = sent_bytes(TRAINER)
            found[name] = Run(work, name, given.steps, lora=lora).result()
            found[name]["bytes_sent"] = sent_bytes(TRAINER) - before
            tell(name, found)
        found["pulled_cable"] = pulled_cable(work, given.steps)
        found["packets"], found["lost_packets"] = cable.packets, cable.lost
        print(json.dumps(found, indent=2))
    finally:
        if server is not None:
            server.terminate()
            server.wait()
        for machine in (TRAINER, SAMPLER):
            ip("netns", "del", machine, check=False)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
