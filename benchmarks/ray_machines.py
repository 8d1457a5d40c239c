"""One command over a Ray cluster of two machines, with a grader on a third: one JSON object. Needs root, Linux and Ray.

    python benchmarks/ray_machines.py --model FOLDER [--steps 12] [--pull machine]

Machines are network namespaces as in two_machines.py. Two have a Ray node each, started by `ray start`; on the first
`reasoner train cluster.address=...` lets Ray place two trainer processes (torchrun, gloo), two vLLM servers and two
graders on them. The policy solves sums with a Python tool in the sandbox (`configs/python_tool_tiny.yaml`), and is
sampled one batch ahead (`rollout: {ahead: 1, during_update: go_on}`). The third machine has a grader started by hand.

After step 3 the cable of the third machine is pulled; with `--pull machine` that of the second Ray node too, after step
6. Told are where the parts were, how long it took until the run said that the grader (the machine) is gone, how often
each part was started again, and whether every step has each rollout once.

FOLDER: a model that the config can start from, such as RUN/0-sft/final of `reasoner train python_tool_tiny`.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from two_machines import ADDRESSES, DEVICES, ROOT, SAMPLER, SECOND, TRAINER, Cable, ip, on

HEAD, OTHER, GRADER = TRAINER, SECOND, SAMPLER
PORT, GRADER_URL = 6379, f"http://{ADDRESSES[SAMPLER]}:8800"
STORE_BYTES = 80_000_000
"""Shared memory of a Ray node; nothing of ours passes through it."""


def config(work: Path, model: Path, steps: int) -> Path:
    """Write the config of the run."""
    path = work / "run.yaml"
    settings: dict[str, Any] = {
        "method": "grpo",
        "name": "machines",
        "output": str(work / "run"),
        "steps": steps,
        "task": {"name": "tool_problems", "options": {"family": "series"}},
        "prompt": {"chat": "never"},
        "model": str(model),
        "rollout": {"problems_per_step": 8, "group_size": 8, "max_tokens": 112, "max_turns": 2, "ahead": 1},
        "engine": {"name": "vllm-server", "options": {"kv_cache_gigabytes": 0.25}},
        "optim": {"lr": 1e-4},
        "eval": {"problems": 32},
        "checkpoint": {"every": 1},
        "grading": {"workers": 0, "nodes": [GRADER_URL]},
    }
    settings["rollout"]["during_update"] = "go_on"
    path.write_text(json.dumps(settings))
    return path


def start(machine: str, *command: str, log: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a command on a machine, in a process group of its own."""
    with log.open("ab") as output:
        return subprocess.Popen(
            on(machine, *command, hidden=[]),
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | {"GLOO_SOCKET_IFNAME": DEVICES[machine]} | (environment or {}),
            start_new_session=True,
        )


def ray_node(machine: str, work: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a Ray node on a machine."""
    command = ["-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "4", "--disable-usage-stats"]
    command += ["--node-ip-address", ADDRESSES[machine], "--object-store-memory", str(STORE_BYTES)]
    return start(machine, sys.executable, *command, *arguments, log=work / f"ray-{machine}.log")


def wait(what: str, holds: Any, process: subprocess.Popen[bytes], seconds: float, log: Path) -> float:
    """Wait until something holds; return the seconds. The process may not end before."""
    began = time.monotonic()
    while not holds():
        if process.poll() is not None or time.monotonic() - began > seconds:
            sys.exit(f"{what} did not happen in {seconds:.0f} s:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.2)
    return round(time.monotonic() - began, 1)


def ray_started(machine: str, work: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a Ray node runs."""
    log = work / f"ray-{machine}.log"
    wait(f"Ray on {machine}", lambda: "Ray runtime started" in log.read_text(errors="replace"), process, 300, log)


def rows(file: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a record file."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text().rpartition("\n")[0].splitlines() if line]


def parts(work: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what cluster.json says of each part."""
    found = json.loads((work / "run" / "cluster" / "cluster.json").read_text())
    kept = ("machine", "url", "state", "restarts", "version", "why")
    return {
        role: [{key: one[key] for key in kept} for one in found[role]] for role in ("trainers", "samplers", "graders")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--pull", choices=["machine"], help="pull the cable of the second Ray node too")
    parser.add_argument("--delay-ms", type=float, default=1.0)
    parser.add_argument("--loss", type=float, default=0.0)
    given = parser.parse_args()
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        sys.exit("ray_machines.py needs root and /dev/net/tun, for network namespaces.")
    work = Path(tempfile.mkdtemp(prefix="rm-", dir="/var/tmp"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "REASONER_VERIFIER_TOKEN": os.urandom(16).hex(),
    }
    os.environ |= {"TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    started: list[subprocess.Popen[bytes]] = []
    found: dict[str, Any] = {"delay_ms": given.delay_ms, "loss": given.loss}
    log, run = work / "log", work / "run"
    try:
        for machine in ADDRESSES:
            ip("netns", "add", machine)
        Cable(delay=given.delay_ms / 1000, loss=given.loss)
        head = ("--head", "--port", str(PORT), "--include-dashboard", "false")
        started.append(ray_node(HEAD, work, *head))
        ray_started(HEAD, work, started[-1])
        started.append(ray_node(OTHER, work, "--address", f"{ADDRESSES[HEAD]}:{PORT}"))
        ray_started(OTHER, work, started[-1])
        grade = (sys.executable, "-m", "reasoner", "verifiers", "serve", "--host", ADDRESSES[GRADER], "--port", "8800")
        started.append(start(GRADER, *grade, log=work / "grader.log"))
        cluster = [f"cluster.address={ADDRESSES[HEAD]}:{PORT}", "cluster.trainers=2", "cluster.trainer_machines=2"]
        cluster += ["cluster.samplers=2", "cluster.graders=2", "cluster.wait_seconds=900"]
        train = [
            sys.executable,
            "-m",
            "reasoner",
            "train",
            str(config(work, given.model.resolve(), given.steps)),
            *cluster,
        ]
        inside = ("nsenter", "-t", str(started[0].pid), "-m", "-n", "-u", "--")  # Ray's sockets are in its /tmp
        with log.open("ab") as output:
            driver = subprocess.Popen(
                [*inside, *train], stdout=output, stderr=output, cwd=ROOT, env=os.environ, start_new_session=True
            )
        started.append(driver)

        def steps() -> int:
            return len(rows(run / "metrics.jsonl"))

        found["seconds_until_step_3"] = wait("step 3", lambda: steps() >= 3, driver, 1500, log)
        found["placed"] = parts(work)
        ip("-n", GRADER, "link", "set", DEVICES[GRADER], "down")
        lost = f"grading node {GRADER_URL} is lost"
        found["grader_pulled_noticed_seconds"] = wait(lost, lambda: lost in log.read_text(), driver, 300, log)
        if given.pull:
            wait("step 6", lambda: steps() >= 6, driver, 900, log)
            ip("-n", OTHER, "link", "set", DEVICES[OTHER], "down")
            gone = "is on a machine that is gone"
            found["machine_pulled_noticed_seconds"] = wait(gone, lambda: gone in log.read_text(), driver, 300, log)
        driver.wait(3000)
        sampled = rows(run / "rollouts.jsonl")
        keys = [(row["step"], row["group"], row["sample"]) for row in sampled]
        metrics = rows(run / "metrics.jsonl")
        found |= {
            "status": driver.returncode,
            "steps": [row["step"] for row in metrics],
            "rollouts_by_step": dict(collections.Counter(step for step, *_ in keys)),
            "repeated_rollouts": len(keys) - len(set(keys)),
            "ungraded": sum(
                not row["verdict"]["outcome"] or row["verdict"]["outcome"] == "verifier_error" for row in sampled
            ),
            "with_a_call": sum(len(row.get("turns") or []) > 1 for row in sampled),
            "lag_mean": [row.get("lag/mean") for row in metrics],
            "gap_logprob_abs": [row.get("gap/logprob_abs") for row in metrics],
            "reward": [round(row["reward/mean"], 3) for row in metrics],
            "parts": parts(work),
            "said": [
                line for line in log.read_text(errors="replace").splitlines() if "cluster:" in line or "lost" in line
            ],
        }
        print(json.dumps(found, indent=2))
    finally:
        for one in started:
            with suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()
        for machine in ADDRESSES:
            listed = subprocess.run(["ip", "netns", "pids", machine], capture_output=True, text=True).stdout
            for pid in listed.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            ip("netns", "del", machine, check=False)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
