"""How a denoiser hears the timestep: sinusoids, an MLP, and what additive time is under a stacked batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bcos_kernels.mode import slices


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal features ``[N, dim]`` of integer timesteps ``[N]`` (Vaswani et al. 2017)."""
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = t.double()[:, None] * frequencies.double()
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeMLP(nn.Sequential):
    """Integer timesteps ``[N]`` to what all blocks hear of them, ``[N, dim]``."""

    def __init__(self, dim: int):
        super().__init__(nn.Linear(dim, dim, bias=False), nn.SiLU(), nn.Linear(dim, dim, bias=False), nn.SiLU())
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        weight = next(self.parameters())
        said: Tensor = super().forward(timestep_embedding(t, self.dim).to(weight.dtype))
        return said


def add_time(h: Tensor, shift: Tensor) -> Tensor:
    """``h [S * N, ...]`` plus what the timestep adds, ``[N, ...]``.

    It is a source of its own: in a stacked batch it belongs to the primal and, as its tangent, to the last slice.
    """
    if slices() == 1:
        return h + shift
    parts = [shift] + [torch.zeros_like(shift)] * (slices() - 2) + [shift]
    return h + torch.cat(parts)
