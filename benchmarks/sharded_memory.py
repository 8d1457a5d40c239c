"""Host memory of each process at load, save and resume, with 1, 2 and 4 processes that shard one model. Prints JSON.

    python benchmarks/sharded_memory.py [--model FOLDER] [--processes 1 2 4] > sharded_memory.json

Without a model, one from scratch with 150 million parameters is written first. The processes are gloo's on the CPU,
sharded by FSDP2 as configs/accelerate/fsdp2.yaml asks. Peaks are those of the kernel (VmHWM), reset before each phase,
less what a process has before it loads anything; pages of mapped files count while they are open. Then each checkpoint
is resumed with another number of processes, and the gradient norm of the next update must be that of the run that went
on.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

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
MIB = 1 << 20


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
    """Peak of this process's memory since the last reset."""

    def __init__(self) -> None:
        self.before = self._read("VmRSS")

    def reset(self) -> None:
        ctypes.CDLL(None).malloc_trim(0)  # what the phase before has freed
        Path("/proc/self/clear_refs").write_text("5")

    def mib(self) -> float:
        return round((self._read("VmHWM") - self.before) / MIB, 1)

    @staticmethod
    def _read(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def opened(config: StageConfig, checkpoint: Path | None) -> Policy:
    """Open a policy; of several processes sharded, which accelerate does not do by itself without a GPU."""

    def sharded(**given: object) -> accelerate.Accelerator:
        made = accelerate.Accelerator(**given)  # type: ignore[arg-type]
        made.state.distributed_type, made.state.fsdp_plugin = DistributedType.FSDP, FullyShardedDataParallelPlugin()
        return made

    if "WORLD_SIZE" in os.environ:
        opening.Accelerator = sharded  # type: ignore[misc]
    return Policy(config, accelerator=opening.open_accelerator(config), checkpoint=checkpoint)


def updated(policy: Policy, config: StageConfig) -> float:
    return policy.update(batch_of(config, policy.vocabulary), make_objective(config)).grad_norm


def first(config: StageConfig, folder: Path) -> dict[str, object]:
    """Load, learn, save, learn; return the peaks and the gradient norm of the second update."""
    peak = Peak()
    peak.reset()
    policy = opened(config, None)
    found: dict[str, object] = {"load": peak.mib()}
    peak.reset()
    updated(policy, config)
    found["update"] = peak.mib()
    peak.reset()
    save_checkpoint(folder, policy, Progress(step=1, sampler={}, offsets={}), keep=1)
    found["save"] = peak.mib()
    peak.reset()
    save_model(folder / "final", policy)
    return {**found, "final": peak.mib(), "next_grad_norm": updated(policy, config)}


def again(config: StageConfig, folder: Path) -> dict[str, object]:
    """Resume; return the peak and the gradient norm of the next update."""
    peak = Peak()
    peak.reset()
    checkpoint = folder / "step-000001"
    policy = opened(config, checkpoint)
    restore_training_state(policy, checkpoint)
    return {"resume": peak.mib(), "next_grad_norm": updated(policy, config)}


def in_processes(count: int, run: Callable[[StageConfig, Path], dict[str, object]], *given: object) -> list[dict]:
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
                found = run(*given)  # type: ignore[arg-type]
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


def write_scratch(config: StageConfig, folder: Path) -> dict[str, object]:
    loaded = load_model(config.model, seed=0)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return {"parameters": sum(held.numel() for held in loaded.model.parameters())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a model; default: one from scratch")
    parser.add_argument("--scratch", type=json.loads, default=SCRATCH, help="sizes of the model from scratch, as JSON")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--resumes", nargs="+", help="SAVED:RESUMED numbers of processes; default: all pairs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        pairs = asked.resumes or [f"{saved}:{count}" for saved in asked.processes for count in asked.processes]
        report: dict[str, object] = {"model": asked.model or asked.scratch, "unit": "MiB a process above its start"}
        if asked.model is None:
            report |= in_processes(1, write_scratch, config_of(None, asked.scratch), root / "model")[0]
        config = config_of(asked.model or str(root / "model"))
        rows = {count: in_processes(count, first, config, root / f"by-{count}") for count in asked.processes}
        report["by_processes"] = [
            {"processes": count, **{name: max(row[name] for row in found) for name in found[0]}}
            for count, found in rows.items()
        ]
        report["resumed"] = [
            {"saved_by": saved, "resumed_by": count, **{k: max(row[k] for row in found) for k in found[0]}}
            for saved, count in (map(int, pair.split(":")) for pair in pairs)
            for found in [in_processes(count, again, config, root / f"by-{saved}")]
        ]
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
