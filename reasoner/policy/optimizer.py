"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from reasoner.config.stage import StageConfig


def schedule_factor(config: StageConfig, update: int) -> float:
    """Learning-rate factor of an optimizer step: linear warm-up, then the named schedule to the last step."""
    section = config.optim
    total = config.steps * section.updates_per_step * section.inner_epochs
    if update < section.warmup_steps:
        return (update + 1) / section.warmup_steps
    progress = min(1.0, (update - section.warmup_steps) / max(1, total - section.warmup_steps))
    return SCHEDULES[section.schedule](progress)


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
