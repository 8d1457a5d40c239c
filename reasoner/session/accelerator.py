"""Set-up of accelerate for one process or several.

Private part of accelerate used here (checked in versions 1.10 to 1.15): `AcceleratorState._reset_state`. It lets a
stage of a run use another precision than the stage before; no public function changes the precision of a process.
"""

from __future__ import annotations

import os
import warnings
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
)
from torch.distributed.fsdp import MixedPrecisionPolicy

from reasoner import processes
from reasoner.config.errors import ConfigError
from reasoner.config.stage import StageConfig
from reasoner.policy.kinds import policy_class


def open_accelerator(config: StageConfig) -> Accelerator:
    """Return an Accelerator for the process or processes that `accelerate launch` or torchrun started.

    Raises:
        ConfigError: the config is incompatible with the number of processes or with accelerate's settings.
    """
    wanted = _mixed_precision(config)
    if is_initialized() and AcceleratorState().mixed_precision != wanted:
        AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]  # an earlier stage had another dtype
    # accelerate passes on the name of before torch 2.13 and has no field for the new one
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    accelerator = Accelerator(
        mixed_precision=wanted,
        kwargs_handlers=[
            DistributedDataParallelKwargs(
                broadcast_buffers=False,  # the models' buffers never change
                find_unused_parameters=policy_class(config).passes_leave_out,
            ),
            InitProcessGroupKwargs(timeout=timedelta(seconds=config.processes.wait_seconds)),
        ],
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > processes.count():
        raise ConfigError(
            "bad-value",
            f"the {launched} launched processes must be joined by accelerate; it left each process alone. On a machine"
            " without a GPU, set ACCELERATE_USE_CPU=true in the environment.",
        )
    plugin = accelerator.state.fsdp_plugin if accelerator.distributed_type == DistributedType.FSDP else None
    if plugin is not None:
        check_sharding(plugin, config)
        if wanted == "bf16":  # accelerate's own policy would round log-probabilities and gradients to bfloat16
            plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    processes.connect(wait_seconds=config.processes.wait_seconds)
    return accelerator


def check_sharding(plugin: FullyShardedDataParallelPlugin, config: StageConfig) -> None:
    """Check that accelerate's FSDP settings work with this trainer and this config.

    Raises:
        ConfigError: they do not; the message says what to set instead.
    """
    if plugin.fsdp_version != 2:
        raise ConfigError(
            "bad-value",
            f"fsdp_version of accelerate's config file must be 2; got {plugin.fsdp_version}. Start from"
            " configs/accelerate/fsdp2.yaml.",
        )
    if plugin.cpu_ram_efficient_loading:
        raise ConfigError(
            "bad-value",
            "fsdp_cpu_ram_efficient_loading of accelerate's config file must be false; got true, which loads the whole"
            " model in the first process, while here each reads its shards. Start from configs/accelerate/fsdp2.yaml.",
        )
    if config.optim.name != "adamw":
        raise ConfigError(
            "bad-value",
            f"optim.name must be adamw with sharding, which distributes its state over the processes; got"
            f" {config.optim.name}. Remove the key, or use configs/accelerate/ddp.yaml.",
        )
    if config.model.quantization is not None:
        raise ConfigError(
            "bad-value",
            f"model.quantization cannot be used with sharding; got {config.model.quantization}. Remove the key, or use"
            " configs/accelerate/ddp.yaml if the base model fits on each device.",
        )


def _mixed_precision(config: StageConfig) -> str:
    wanted = config.model.dtype
    if wanted == "auto":
        return "bf16" if torch.cuda.is_available() else "no"
    return "bf16" if wanted == "bfloat16" else "no"
