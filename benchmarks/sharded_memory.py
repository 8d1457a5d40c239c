"""Host memory of each process at load, save and resume, with 1, 2 and 4 processes that shard one model. Prints JSON.

    python benchmarks/sharded_memory.py [--model FOLDER] [--processes 1 2 4] [--resumes 4:1:4] > sharded_memory.json

Without a model, one from scratch with 145 million parameters is written first. The processes are gloo's on the CPU,
sharded by FSDP2 as configs/accelerate/fsdp2.yaml asks. A peak is the most anonymous memory of a phase, sampled every
2 ms, less what the process has after it has gone through all phases with a tiny model: neither imported code nor pages
of mapped files, which the kernel drops when it needs room, count. Freed tensors go back to the kernel at once. Beside
each peak stands what the phase cannot do without: 1/n of the weights (load), of weights, gradients and moments
(update), of weights, moments and the matrices that a process writes (save), of weights and moments (resume). Then each
checkpoint is resumed with other numbers of processes; loss and gradient norm of the next update must be those of the
run that went on.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reasoner.engine.environment import prepare_process

os.environ.update({"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "FSDP_VERSION": "2"})
os.environ.update({"FSDP_CPU_RAM_EFFICIENT_LOADING": "false", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"})
os.environ.update({"FSDP_RESHARD_AFTER_FORWARD": "true"})
prepare_process()

import accelerate  # noqa: E402
import torch  # noqa: E402
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin  # noqa: E402

import reasoner.session.accelerator as opening  # noqa: E402
from reasoner import processes  # noqa: E402
from reasoner.algorithm.batch import Batch  # noqa: E402
from reasoner.algorithm.objective import make_objective  # noqa: E402
from reasoner.config.load import resolve  # noqa: E402
from reasoner.config.stage import StageConfig  # noqa: E402
from reasoner.model.load import load_model  # noqa: E402
from reasoner.policy.checkpoint import restore_training_state, save_checkpoint, save_model  # noqa: E402
from reasoner.policy.policy import Policy  # noqa: E402
from reasoner.policy.progress import Progress  # noqa: E402

SCRATCH = {"hidden_size": 1024, "layers": 12, "heads": 16, "kv_heads": 4, "intermediate_size": 3072}
"""150 million parameters with the vocabulary of 259 bytes and tokens."""
TINY = {"hidden_size": 64, "layers": 2, "heads": 2}
SHARES = {"load": 1, "first_update": 4, "update": 4, "save": 4, "final": 4, "resume": 3}
"""Copies of the weights of which a process needs a 1/n in each phase; one that saves alone writes from its weights."""
MIB = 1 << 20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt (malloc.h)."""


def config_of(model: str | None, scratch: object = None) -> StageConfig:
    section = {"path": model} if model else {"from_scratch": scratch}
    raw = {"task": "arithmetic", "model": {**section, "dtype": "float32"}, "engine": {"name": "hf"}}
    return resolve({**raw, "method": "grpo", "algorithm": {"kl_coef": 0.0}, "optim": {"lr": 1e-5}}).stages[0]


def batch_of(config: StageConfig, vocabulary: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    rows, prompt, length = 4, 6, 14
    tokens = rows * (length - prompt)
    return Batch(
        input_ids=tuple(torch.randint(0, vocabulary, (length,), generator=generator) for _ in range(rows)),
        prompt_lengths_B=torch.full((rows,), prompt),
        row_N=torch.arange(rows).repeat_interleave(length - prompt),
        loss_mask_N=torch.ones(tokens, dtype=torch.bool),
        reward_B=torch.arange(rows).double(),
        group_B=torch.zeros(rows, dtype=torch.long),
        weights_N=torch.zeros(tokens),
        rollout_logprobs_N=torch.full((tokens,), -5.0),
        advantages_N=torch.randn(tokens, generator=generator),
    ).reweighed(config)


class Peak:
    """Largest anonymous memory of this process since the last reset, above that at its creation; used in a block."""

    def __init__(self) -> None:
        ctypes.CDLL(None).malloc_trim(0)
        self._before, self._most, self._ended = self._anonymous(), 0, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def __enter__(self) -> Peak:
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.002):
            self._most = max(self._most, self._anonymous())

    def reset(self) -> None:
        ctypes.CDLL(None).malloc_trim(0)  # what the phase before has freed
        self._most = self._anonymous()

    def mib(self) -> float:
        return round((max(self._most, self._anonymous()) - self._before) / MIB, 1)

    @staticmethod
    def _anonymous() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        held = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))]
        return sum(held) * 1024


def opened(config: StageConfig, checkpoint: Path | None) -> Policy:
    """Open a policy; of several processes sharded, which accelerate does not do by itself without a GPU."""

    def sharded(**given: object) -> accelerate.Accelerator:
        made = accelerate.Accelerator(**given)  # type: ignore[arg-type]
        made.state.distributed_type, made.state.fsdp_plugin = DistributedType.FSDP, FullyShardedDataParallelPlugin()
        return made

    if "WORLD_SIZE" in os.environ:
        opening.Accelerator = sharded  # type: ignore[misc]
    return Policy(config, accelerator=opening.open_accelerator(config), checkpoint=checkpoint)


def updated(policy: Policy, config: StageConfig) -> list[float]:
    """Take one step; return its loss and gradient norm."""
    stats = policy.update(batch_of(config, policy.vocabulary), make_objective(config))
    return [stats.loss, stats.grad_norm]


def saved(policy: Policy, folder: Path, step: int) -> None:
    save_checkpoint(folder, policy, Progress(step=step, sampler={}, offsets={}), keep=9)


def first(config: StageConfig, tiny: StageConfig, folder: Path) -> dict[str, list[float]]:
    """Load, learn, save, learn twice more; return the peak of each phase, and losses and norms after the checkpoint."""
    _phases(tiny, folder / "tiny")
    gc.collect()
    return _phases(config, folder)


def _phases(config: StageConfig, folder: Path) -> dict[str, list[float]]:
    with Peak() as peak:
        policy = opened(config, None)
        found = {"load": [peak.mib()]}
        peak.reset()
        updated(policy, config)
        found["first_update"] = [peak.mib()]
        peak.reset()
        saved(policy, folder, 1)
        found["save"] = [peak.mib()]
        peak.reset()
        save_model(folder / "final", policy)
        found["final"] = [peak.mib()]
        peak.reset()
        found["2"] = updated(policy, config)  # the first to find the moments there
        found["update"] = [peak.mib()]
        return found | {"3": updated(policy, config)}


def again(config: StageConfig, tiny: StageConfig, folder: Path, step: int, into: Path) -> dict[str, list[float]]:
    """Resume after a step, learn, save; return the peak of resuming, and loss and norm of the step."""
    _resumed(tiny, folder / "tiny", 1, into / "tiny")
    gc.collect()
    return _resumed(config, folder, step, into)


def _resumed(config: StageConfig, folder: Path, step: int, into: Path) -> dict[str, list[float]]:
    checkpoint = folder / f"step-{step:06d}"
    with Peak() as peak:
        policy = opened(config, checkpoint)
        restore_training_state(policy, checkpoint)
        found = {"resume": [peak.mib()], str(step + 1): updated(policy, config)}
    saved(policy, into, 1 if step == 1 and into.name == "tiny" else step + 1)
    return found


def in_processes(count: int, run: Callable[..., Any], *given: object) -> list[Any]:
    """Run a function in `count` forked processes that form a group; return what each found."""
    with tempfile.TemporaryDirectory() as answers:
        port = str(20_000 + os.getpid() % 20_000)
        pids: list[int] = []
        for rank in range(count):
            if pid := os.fork():
                pids.append(pid)
                continue
            status = 1
            try:
                if count > 1:
                    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)})
                    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
                for kind in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
                    ctypes.CDLL(None).mallopt(kind, 256 * 1024)
                found = run(*given)
                (Path(answers) / str(rank)).write_text(json.dumps(found))
                processes.wait()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        if any(statuses):
            sys.exit(f"{run.__name__} failed with {count} processes")
        found = [json.loads((Path(answers) / str(rank)).read_text()) for rank in range(count)]
        print(f"{run.__name__}, {count} processes: {found}", file=sys.stderr, flush=True)
        return found


def write_scratch(config: StageConfig, folder: Path) -> int:
    """Write a model from scratch; return its number of parameters."""
    loaded = load_model(config.model, seed=0)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return sum(held.numel() for held in loaded.model.parameters())


def parameters_of(config: StageConfig) -> int:
    return sum(held.numel() for held in load_model(config.model, seed=0).model.parameters())


def largest(rows: list[dict[str, list[float]]], phases: list[str], weights: float, count: int) -> dict[str, object]:
    """Return the largest peak of any process in each phase, and what the phase cannot do without, in MiB."""
    found: dict[str, object] = {}
    for phase in phases:
        share = SHARES[phase] - (phase in ("save", "final") and count == 1)
        found[phase] = {"peak": max(row[phase][0] for row in rows), "needed": round(share * weights / count, 1)}
    return found


def resumes(chain: str, root: Path, config: StageConfig, tiny: StageConfig, weights: float) -> list[dict[str, object]]:
    """Resume along a chain of numbers of processes, such as 4:1:4, and compare with the run that went on."""
    counts = list(map(int, chain.split(":")))
    went_on = json.loads((root / f"by-{counts[0]}" / "went_on.json").read_text())
    folder, found = root / f"by-{counts[0]}", []
    for step, count in enumerate(counts[1:], 1):
        into = root / ("-".join(["by", *map(str, counts[: step + 1])]))
        rows = in_processes(count, again, config, tiny, folder, step, into)
        (loss, norm), (its_loss, its_norm) = rows[0][str(step + 1)], went_on[str(step + 1)]
        assert math.isclose(loss, its_loss, rel_tol=1e-5), (loss, its_loss)
        assert math.isclose(norm, its_norm, rel_tol=1e-4), (norm, its_norm)
        same = {"loss": [loss, its_loss], "grad_norm": [norm, its_norm]}
        found.append(
            {"chain": ":".join(map(str, counts[: step + 1])), **largest(rows, ["resume"], weights, count), **same}
        )
        folder = into
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a model; default: one from scratch")
    parser.add_argument("--scratch", type=json.loads, default=SCRATCH, help="sizes of the model from scratch, as JSON")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument(
        "--resumes",
        nargs="*",
        default=["1:1", "2:2", "4:4", "4:1:4", "1:2"],
        help="numbers of processes that saved and resumed",
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        scratch = {"model": asked.scratch, "tiny": TINY} if asked.model is None else {"tiny": TINY}
        parameters = {
            name: in_processes(1, write_scratch, config_of(None, sizes), root / name)[0]
            for name, sizes in scratch.items()
        }
        config, tiny = config_of(asked.model or str(root / "model")), config_of(str(root / "tiny"))
        held = parameters.get("model") or in_processes(1, parameters_of, config)[0]
        weights = held * 4 / MIB
        report: dict[str, object] = {"model": asked.model or asked.scratch, "parameters": held}
        report |= {"unit": "MiB of a process", "weights": round(weights, 1)}
        by_processes: list[dict[str, object]] = []
        for count in asked.processes:
            rows = in_processes(count, first, config, tiny, root / f"by-{count}")
            (root / f"by-{count}" / "went_on.json").write_text(json.dumps(rows[0]))
            by_processes.append(
                {
                    "processes": count,
                    **largest(rows, ["load", "first_update", "save", "final", "update"], weights, count),
                }
            )
        report["by_processes"] = by_processes
        report["resumed"] = [one for chain in asked.resumes for one in resumes(chain, root, config, tiny, weights)]
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
