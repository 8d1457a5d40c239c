"""The optimizer and its learning-rate schedule.

Used of bitsandbytes beyond its documented interface (read in 0.49 to 0.50): `is_paged`, `get_state_buffer`, and the
names `state1` and `state2` of its moments.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from reasoner.config.errors import ConfigError
from reasoner.config.methods import METHODS
from reasoner.config.stage import StageConfig
from reasoner.model.sharding import load_whole_optimizer_state


def updates_per_step(config: StageConfig) -> int:
    """Most optimizer steps of a training step."""
    return config.optim.updates_per_step * config.optim.inner_epochs


def schedule_factor(config: StageConfig, update: int) -> float:
    """Learning-rate factor of an optimizer step: linear warm-up, then the named schedule to the end of the last step.

    Args:
        config: `optim`, whose warmup_steps are training steps, and `steps`.
        update: optimizer steps before this one, where every training step has as many as it may.
    """
    section, each = config.optim, updates_per_step(config)
    total, warmup = config.steps * each, section.warmup_steps * each
    if update < warmup:
        return (update + 1) / warmup
    progress = min(1.0, (update - warmup) / max(1, total - warmup))
    return SCHEDULES[section.schedule](progress)


def rate_of_step(config: StageConfig, step: int) -> float:
    """The learning rate of a training step's first optimizer step."""
    return config.optim.lr * schedule_factor(config, (step - 1) * updates_per_step(config))


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + float(torch.cos(torch.tensor(progress * torch.pi)))),
}


def parameter_groups(module: nn.Module, config: StageConfig, *, lr: float | None = None) -> list[dict[str, object]]:
    """The trainable parameters for AdamW; weight decay on matrices alone."""
    section = config.optim
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = (
        ([p for p in trainable if p.ndim >= 2], section.weight_decay),
        ([p for p in trainable if p.ndim < 2], 0.0),
    )
    return [
        {"params": part, "weight_decay": decay, "lr": section.lr if lr is None else lr}
        for part, decay in groups
        if part
    ]


def make_optimizer(groups: list[dict[str, object]], config: StageConfig, device: torch.device) -> torch.optim.Optimizer:
    """The AdamW that the config names, over groups of parameters that will lie on a device.

    torch's is fused where it can be: without temporaries.

    Raises:
        ConfigError: it needs a package that is not installed.
    """
    section = config.optim
    options: dict[str, Any] = {"lr": section.lr, "betas": section.betas, "eps": section.eps}
    if section.name == "adamw":
        return torch.optim.AdamW(groups, fused=device.type in ("cpu", "cuda") or None, **options)
    optimizers = _bitsandbytes(section.name).optim
    if section.name == "adamw_8bit":
        return optimizers.AdamW8bit(groups, **options)
    # on the host there is nothing to page
    kind = optimizers.AdamW32bit if device.type == "cpu" else optimizers.PagedAdamW32bit
    return kind(groups, **options)


def check_optimizer(config: StageConfig) -> None:
    """Raise where the config's optimizer is not installed.

    Raises:
        ConfigError: says what to install.
    """
    if config.optim.name != "adamw" and METHODS[config.method].learns_from is not None:
        _bitsandbytes(config.optim.name)


def _bitsandbytes(name: str) -> ModuleType:
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise ConfigError(
            "bad-value",
            f"optim.name={name} needs bitsandbytes, which cannot be imported here ({error}). Install it (pip install"
            " 'reasoner-rl[optim]'), or set optim.name to adamw.",
        ) from error


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put a checkpoint's optimizer state back, and into memory that the host shares where it lay there."""
    load_whole_optimizer_state(optimizer, state)
    inner: Any = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    if getattr(inner, "is_paged", False):
        for parameter, held in inner.state.items():
            for name in ("state1", "state2"):  # bitsandbytes loads them into the device's own memory
                buffer = inner.get_state_buffer(parameter, dtype=held[name].dtype)
                held[name] = buffer.copy_(held[name])
