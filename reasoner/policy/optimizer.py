"""The optimizer and its learning-rate schedule.

Private parts of bitsandbytes used here (checked in versions 0.49 to 0.50): `is_paged`, `get_state_buffer`, and the
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
    """Return the maximum number of optimizer steps per training step."""
    return config.optim.updates_per_step * config.optim.inner_epochs


def schedule_factor(config: StageConfig, update: int) -> float:
    """Return the learning-rate factor of an optimizer step: linear warm-up, then the config's schedule.

    Args:
        config: `steps` and `optim` are read; `optim.warmup_steps` counts training steps.
        update: number of optimizer steps before this one, if every training step takes its maximum number.
    """
    section, each = config.optim, updates_per_step(config)
    total, warmup = config.steps * each, section.warmup_steps * each
    if update < warmup:
        return (update + 1) / warmup
    progress = min(1.0, (update - warmup) / max(1, total - warmup))
    return SCHEDULES[section.schedule](progress)


def rate_of_step(config: StageConfig, step: int) -> float:
    """Return the learning rate of the first optimizer step in a training step."""
    return config.optim.lr * schedule_factor(config, (step - 1) * updates_per_step(config))


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + float(torch.cos(torch.tensor(progress * torch.pi)))),
}


def parameter_groups(module: nn.Module, config: StageConfig, *, lr: float | None = None) -> list[dict[str, object]]:
    """Build AdamW's groups of the trainable parameters; only matrices (ndim >= 2) get weight decay."""
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
    """Build the AdamW variant that the config names.

    torch's AdamW is fused on CPU and CUDA, which needs no temporary tensors.

    Args:
        groups: parameter groups.
        config: the stage.
        device: device on which the parameters will be.
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
    # on a CPU there is nothing to page
    kind = optimizers.AdamW32bit if device.type == "cpu" else optimizers.PagedAdamW32bit
    return kind(groups, **options)


def check_optimizer(config: StageConfig) -> None:
    """Check that the config's optimizer is installed.

    Raises:
        ConfigError: it is not; the message says what to install.
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
    """Restore a checkpoint's optimizer state. Paged state is moved back into memory shared with the host."""
    load_whole_optimizer_state(optimizer, state)
    inner: Any = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps the optimizer
    if getattr(inner, "is_paged", False):
        for parameter, held in inner.state.items():
            for name in ("state1", "state2"):  # bitsandbytes loads them into device memory
                buffer = inner.get_state_buffer(parameter, dtype=held[name].dtype)
                held[name] = buffer.copy_(held[name])
