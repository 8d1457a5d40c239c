"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from reasoner.config.stage import StageConfig


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
    """AdamW over groups of parameters that will lie on a device; fused where it can be: without temporaries."""
    section, fused = config.optim, device.type in ("cpu", "cuda") or None
    return torch.optim.AdamW(groups, lr=section.lr, betas=section.betas, eps=section.eps, fused=fused)
