"""MaxOut: of M units each, the largest response goes on. Rows of the weight are laid out (O, M)."""

from __future__ import annotations

import torch
from torch import Tensor


def choose(y: Tensor, gain: Tensor | None, max_out: int) -> Tensor:
    """Which of each M units responds most: y ``[N, O * M, ...]`` -> ``[N, O, 1, ...]`` (long).

    gain: ``[O * M]``, the factor that the responses still lack, or None.
    """
    response = y if gain is None else y * gain.view(-1, *[1] * (y.ndim - 2))
    return response.unflatten(1, (-1, max_out)).argmax(2, keepdim=True)


def take(y: Tensor, choice: Tensor, max_out: int) -> Tensor:
    """The responses of the chosen units: ``[N, O * M, ...]`` -> ``[N, O, ...]``."""
    return y.unflatten(1, (-1, max_out)).gather(2, choice).squeeze(2)


def put(grad: Tensor, choice: Tensor, max_out: int) -> Tensor:
    """The adjoint of :func:`take`: zero for units that were not chosen."""
    shape = (grad.shape[0], grad.shape[1], max_out, *grad.shape[2:])
    return grad.new_zeros(shape).scatter_(2, choice, grad.unsqueeze(2)).flatten(1, 2)


def apply_gain(out: Tensor, gain: Tensor, choice: Tensor | None, max_out: int) -> Tensor:
    """Multiply each unit of out ``[N, O, ...]`` by the gain ``[O * M]`` of the row that produced it."""
    gains = gain.view(1, -1, *[1] * (out.ndim - 2))
    if choice is None:
        return out * gains
    every = gains.unflatten(1, (-1, max_out)).expand(out.shape[0], -1, -1, *out.shape[2:])
    return out * torch.gather(every, 2, choice).squeeze(2)
