"""Active latents of samples, turned into samples of latents: the sparse matrix by columns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Columns(NamedTuple):
    """Of latent i, entries ``starts[i]`` to ``starts[i + 1]``: which samples it is active in, and how much."""

    values: Tensor
    samples: Tensor
    starts: Tensor


def columns(values: Tensor, indices: Tensor, latents: int) -> Columns:
    """Sort ``[N, k]`` by latent, samples in their order, so that sums repeat to the last bit."""
    flat = indices.flatten()
    order = flat.sort(stable=True).indices
    starts = flat.new_zeros(latents + 1)
    torch.cumsum(torch.bincount(flat, minlength=latents), 0, out=starts[1:])
    return Columns(values.flatten()[order], order // indices.shape[1], starts)
