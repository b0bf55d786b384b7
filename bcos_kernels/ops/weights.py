"""The three weight conventions of public B-cos code (mathematics §1), as a linear weight and a gain per unit.

A   |cos| · ŵx            unit weight, no gain            B-cos-v2, the default
B   (|wx| / ‖x‖) · wx     the weight itself, no gain      B-cosification
C   |cos| · wx            unit weight, gain ‖w‖           unnormalised layers of B-cos diffusion
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels.ops.epilogue import reference

CONVENTIONS = ("A", "B", "C")


def prepare(weight: Tensor, convention: str) -> tuple[Tensor, Tensor | None]:
    """The weight of the linear part, like ``weight``, and the gain ``[rows]`` of the output, if any.

    Norms accumulate in fp32 at least. A row of zeros stays zero, and its gradient is finite.
    """
    if convention == "B":
        return weight, None
    norm = lengths(weight)
    wide = weight.to(norm.dtype)
    safe = torch.where(norm > 0, norm, torch.ones_like(norm))
    unit = (wide / safe.view(-1, *[1] * (weight.ndim - 1))).to(weight.dtype)
    return unit, norm.to(weight.dtype) if convention == "C" else None


def lengths(weight: Tensor) -> Tensor:
    """``‖w‖`` of every row ``[rows]`` in the accumulation type; differentiable, with gradient 0 for a row of zeros."""
    return reference.row_norm(weight.flatten(1), 0.0)


def rows_of(weight: Tensor) -> Tensor:
    """The weight as ``[rows, elements]``, in whatever order they lie in memory, so that a dense one is not copied."""
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        return weight.permute(0, 2, 3, 1).flatten(1)
    return weight.flatten(1)


def is_dense(weight: Tensor) -> bool:
    """Whether rows follow one another without gaps, in whatever order the elements of each lie."""
    return weight.is_contiguous() or (weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last))
