"""The three sums by Triton kernels, of which each output row belongs to one program; sums in float32.

No atomics: a latent's gradient adds up its samples in their order, so that a run repeats to the last bit. Not yet
measured on a device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_diffusion.features.sae.sparse.transpose import columns
from bcos_kernels.ops.epilogue.triton import on

TILE = 2048
"""Elements of the table that a program reads at a time."""
MOST_COLUMNS = 256


def weighted_rows(values: Tensor, indices: Tensor, table: Tensor) -> Tensor:
    """As :func:`bcos_diffusion.features.sae.sparse.op.weighted_rows`."""
    samples, active = indices.shape
    starts = active * torch.arange(samples + 1, device=values.device)
    return _bags(values.contiguous().view(-1), indices.contiguous().view(-1), starts, table)


def row_products(x: Tensor, indices: Tensor, table: Tensor) -> Tensor:
    """As :func:`bcos_diffusion.features.sae.sparse.op.row_products`."""
    out = x.new_empty(indices.shape)
    if not out.numel():
        return out
    from bcos_diffusion.features.sae.sparse.triton_kernels import products_kernel

    (samples, active), width = indices.shape, x.shape[1]
    x, table, indices = _rows(x), _rows(table), indices.contiguous()
    block_j, block_d = blocks(active, width)
    with on(x):
        products_kernel[(samples, -(-active // block_j))](
            out, x, table, indices, active, width, x.stride(0), table.stride(0), BLOCK_J=block_j, BLOCK_D=block_d
        )
    return out


def scattered_rows(values: Tensor, indices: Tensor, x: Tensor, rows: int) -> Tensor:
    """As :func:`bcos_diffusion.features.sae.sparse.op.scattered_rows`."""
    weights, samples, starts = columns(values, indices, rows)
    return _bags(weights, samples, starts, x)


def _bags(values: Tensor, indices: Tensor, starts: Tensor, table: Tensor) -> Tensor:
    """Row i: the sum of entries ``starts[i]`` to ``starts[i + 1]``, of value times row of the table."""
    bags, width = len(starts) - 1, table.shape[1]
    out = table.new_empty(bags, width)
    if not out.numel():
        return out
    from bcos_diffusion.features.sae.sparse.triton_kernels import bags_kernel

    table = _rows(table)
    block_j, block_d = blocks(16, width)
    with on(table):
        bags_kernel[(bags, -(-width // block_d))](
            out, table, values, indices, starts, width, table.stride(0), BLOCK_J=block_j, BLOCK_D=block_d
        )
    return out


def blocks(entries: int, width: int) -> tuple[int, int]:
    """How many rows of the table, and how many of their columns, a program reads at a time."""
    block_d = min(1 << (width - 1).bit_length(), MOST_COLUMNS)
    return min(1 << (entries - 1).bit_length(), TILE // block_d), block_d


def _rows(matrix: Tensor) -> Tensor:
    """The matrix with the elements of a row side by side."""
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()
