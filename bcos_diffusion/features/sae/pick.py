"""The k most active latents of each sample, with no more than a chunk of all activations in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 2**25
"""Activations that are in memory at a time: samples times latents, 128 MiB of float32."""


def activations(x: Tensor, encoder: Tensor, bias: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """``x Wᵀ + b`` of a few samples at a time, ``[c, n]``, and which they are. x: ``[N, d]``; encoder: ``[n, d]``."""
    step = max(1, CHUNK // len(encoder))
    for first in range(0, len(x), step):
        some = slice(first, min(first + step, len(x)))
        yield some, torch.addmm(bias, x[some], encoder.t())


@torch.no_grad()
def pick(x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> Tensor:
    """The indices of the k largest of ``x Wᵀ + b``, int64 ``[N, k]`` in no promised order, whichever of equal ones."""
    found = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    for some, active in activations(x, encoder, bias):
        found[some] = active.topk(k, sorted=False).indices
    return found
