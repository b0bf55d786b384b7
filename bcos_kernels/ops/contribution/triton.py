"""Summed contributions by a Triton kernel, in whatever order the elements lie; sums in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels.ops.contribution.plan import Plan, plan

TILE = 2048
"""Elements of each tensor that a program holds at a time."""
PROGRAMS = 512
"""Fewer programs than this leave a device idle: long sums are then split, in the same way on every device."""


def contribution(x: Tensor, g: Tensor, sum_over: tuple[int, ...]) -> Tensor:
    """As :func:`bcos_kernels.ops.contribution.reference.contribution`."""
    shape = [x.shape[d] for d in range(x.ndim) if d not in sum_over]
    if x.numel() == 0:
        return x.new_zeros(shape, dtype=torch.float32)
    from bcos_kernels.ops.contribution.triton_kernels import contribution_kernel

    x, g, walk = plan(x, g, sum_over)
    block_k, block_s = blocks(walk)
    outer = walk.kept[0] * walk.kept[1]
    steps = walk.summed[0] * walk.summed[1] * -(-walk.summed[2] // block_s)
    programs = outer * -(-walk.kept[2] // block_k)
    span = -(-steps // min(steps, -(-PROGRAMS // programs)))
    splits, outputs = -(-steps // span), outer * walk.kept[2]
    parts = x.new_empty((splits, outputs), dtype=torch.float32)
    with torch.cuda.device_of(x):
        contribution_kernel[(programs, splits)](
            parts, x, g, outputs, *walk.kept[1:], *walk.summed[1:], steps, span,
            *walk.x_kept, *walk.x_summed, *walk.g_kept, *walk.g_summed, BLOCK_K=block_k, BLOCK_S=block_s,
        )  # fmt: skip
    return (parts[0] if splits == 1 else parts.sum(0)).view(shape)


def blocks(walk: Plan) -> tuple[int, int]:
    """Elements of a tile that stay and that are summed: long along the direction in which memory runs."""
    kept, summed = (1 << (sizes[2] - 1).bit_length() for sizes in (walk.kept, walk.summed))
    if walk.along_sums:
        block_s = min(summed, 1024)
        return min(kept, TILE // block_s), block_s
    block_k = min(kept, 256)
    return block_k, min(summed, TILE // block_k)
