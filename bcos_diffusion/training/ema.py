"""The moving average of the weights: each process keeps that of the weights, or of the shards, it holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcos_diffusion.training.distributed import local


def start_ema(model: nn.Module, device: torch.device | str | None = None) -> dict[str, Tensor]:
    """A copy in fp32 of the trained weights, by name; on ``device`` where given, else beside the weights."""
    parameters = {name: local(p.detach()) for name, p in model.named_parameters() if p.requires_grad}
    return {name: p.to(device or p.device, torch.float32, copy=True) for name, p in parameters.items()}


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """Move the average towards the weights; the decay grows with the steps taken, up to ``decay``."""
    decay = min(decay, (1 + step) / (10 + step))
    parameters = dict(model.named_parameters())
    averages = list(ema.values())
    now = [local(parameters[name].detach()).to(a.device, torch.float32) for name, a in ema.items()]
    torch._foreach_lerp_(averages, now, 1 - decay)
