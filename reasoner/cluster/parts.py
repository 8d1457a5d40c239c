"""The table of a run's commands: what each part runs, and with which files and keys."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reasoner.cluster.seat import FILES, PYTHON, Command
from reasoner.config.errors import ConfigError
from reasoner.config.methods import METHODS
from reasoner.config.sections import ClusterSection
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.storage.cluster_file import Asked
from verifiers.serve.client import TOKEN_VARIABLE
from verifiers.terminal.program import STARTED_VARIABLE

ENGINE_KEY = "REASONER_ENGINE_KEY"
"""Variable with the key of the samplers (`reasoner.engine.gate.KEY_VARIABLE`, which this room does not import)."""
FORWARDED = ("REASONER_", "HF_", "VLLM_", "OMP_", "GOMP_", "ACCELERATE_", "GLOO_", "NCCL_", "TORCH_", "TOKENIZERS_")
"""Beginnings of the environment variables that parts on other machines get from the starting command."""
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx")
"""Endings of files that hold weights, which samplers get from the trainers."""
PATIENCE = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "86400"}
"""Seconds after Ctrl-C in which torchrun lets its processes end their step and write a checkpoint; it has 30, less than
a step may take."""
SAMPLER_STOP_SECONDS = 12.0
"""Time for a server to end: more than it gives itself (`reasoner.engine.serve.STOP_SECONDS`)."""


@dataclass(frozen=True)
class Start:
    """How the run was started."""

    config: str
    """File or name of the config."""
    overrides: tuple[str, ...]
    cwd: str

    def words(self, *more: str) -> list[str]:
        """Return the arguments of `reasoner train` with further overrides."""
        name = str(Path(self.config).resolve()) if Path(self.config).is_file() else self.config
        return ["-m", "reasoner", "train", name, *self.overrides, *more]


def forwarded() -> dict[str, str]:
    """Return the variables of this process that all parts get."""
    return {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}


def engine_overrides(config: RunConfig) -> list[str]:
    """Return the overrides that let every stage that samples use the samplers, if there are any."""
    if not cluster_of(config).samplers:
        return []
    found: list[str] = []
    for index, stage in enumerate(config.stages):
        if not _samples(stage):
            continue
        found.append(f"stages.{index}.engine.name=vllm-server")
        if stage.engine.name != "vllm-server":  # its options are those of another engine
            found.append(f"stages.{index}.engine.options={{}}")
    return found


def trainer_command(
    config: RunConfig, start: Start, *, machine: int, address: str, port: int, file: Path, resume: bool
) -> Command:
    """Return the command of the trainer processes on one machine.

    Args:
        config, start: the run.
        machine: number of the machine among those with trainers.
        address, port: where the first machine's processes listen for the others.
        file: cluster.json.
        resume: go on with what the run folder holds.
    """
    cluster = cluster_of(config)
    output = Path(config.output).resolve()
    places = {"output": str(output), "cluster.file": str(file.resolve())}
    more = [f"{key}={json.dumps(place, ensure_ascii=False)}" for key, place in places.items()]  # YAML of any name
    words = start.words(*more, *(["--resume"] if resume else []))
    count, machines = max(1, cluster.trainers), cluster.trainer_machines
    if count > 1 or cluster.accelerate:
        words = [*_launcher(cluster, count, machines, machine, address, port), *words]
    typed = {STARTED_VARIABLE: json.dumps(sys.argv)}
    return Command((PYTHON, *words), environment={**PATIENCE, **forwarded(), **typed}, cwd=start.cwd)


def _launcher(
    cluster: ClusterSection, count: int, machines: int, machine: int, address: str, port: int
) -> Sequence[str]:
    """Return the words of torchrun or of `accelerate launch`."""
    if cluster.accelerate:
        file = str(Path(cluster.accelerate).resolve())
        sizes = ("--num_processes", str(count), "--num_machines", str(machines), "--machine_rank", str(machine))
        place = ("--main_process_ip", address, "--main_process_port", str(port))
        return ("-m", "accelerate.commands.launch", "--config_file", file, *sizes, *place)
    sizes = ("--nnodes", str(machines), "--node-rank", str(machine), "--nproc-per-node", str(count // machines))
    return ("-m", "torch.distributed.run", *sizes, "--master-addr", address, "--master-port", str(port))


def sampler_command(config: RunConfig, asked: Asked, *, host: str, port: int, key: str, here: bool) -> Command:
    """Return the command of a vLLM server; its weights come from the trainers.

    Args:
        config: the run.
        asked: the model and vLLM's arguments.
        host, port: where it listens.
        key: which its trainers know.
        here: False if it may be on a machine that does not see the model's folder.
    """
    folder = Path(asked.model)
    files: Mapping[str, bytes] = {}
    if not here and folder.is_dir():
        files = {
            path.name: path.read_bytes()
            for path in folder.iterdir()
            if path.is_file() and not path.name.endswith((*WEIGHTS, ".index.json"))
        }
    words = ("-m", "reasoner.engine.serve", "--model", FILES if files else asked.model, "--load-format", "dummy")
    more = (*asked.options, *cluster_of(config).sampler_arguments, "--host", host, "--port", str(port))
    return Command(
        (PYTHON, *words, *more),
        environment={**forwarded(), ENGINE_KEY: key, "OMP_NUM_THREADS": _threads()},
        files=files,
        stop_seconds=SAMPLER_STOP_SECONDS,
    )


def grader_command(config: RunConfig, *, host: str, port: int, token: str) -> Command:
    """Return the command of a grading node."""
    workers = cluster_of(config).grader_workers
    words = ("-m", "reasoner", "verifiers", "serve", "--host", host, "--port", str(port))
    more = () if workers is None else ("--workers", str(workers))
    return Command((PYTHON, *words, *more), environment={**forwarded(), TOKEN_VARIABLE: token})


def check_cluster(config: RunConfig) -> None:
    """Check that the section `cluster` means the same for all stages, and does something.

    Raises:
        ConfigError: it does not; the message says what to set.
    """
    cluster = cluster_of(config)
    if any(stage.cluster != cluster for stage in config.stages):
        raise ConfigError(
            "bad-value", "cluster must be the same in all stages: one command starts the parts of all. Set it once."
        )
    if not cluster.samplers:
        return
    sampling = [stage for stage in config.stages if _samples(stage)]
    if not sampling:
        methods = ", ".join(dict.fromkeys(stage.method for stage in config.stages))
        raise ConfigError("no-effect", f"cluster.samplers does nothing: this run is {methods}. Leave it out.")
    if any(stage.engine.name == "vllm-server" and stage.engine.options.get("urls") for stage in sampling):
        raise ConfigError(
            "bad-value",
            "cluster.samplers starts servers, and engine.options.urls names others. Leave one of them out.",
        )


def cluster_of(config: RunConfig) -> ClusterSection:
    """Return the section `cluster` of a run, which is that of its first stage."""
    return config.stages[0].cluster


def _samples(stage: StageConfig) -> bool:
    return stage.needs_engine and METHODS[stage.method].policy != "reward"


def _threads() -> str:
    return os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))
