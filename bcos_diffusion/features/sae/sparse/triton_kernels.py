# mypy: ignore-errors
"""The Triton kernels of sparse sums; ``triton.py`` launches them. Elements of a row adjoin in every matrix."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def bags_kernel(
    out, table, values, indices, starts, width, table_row, BLOCK_J: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """BLOCK_D columns of one bag: the sum of ``values[j] * table[indices[j]]``; 0 where the bag is empty."""
    bag = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    first, last = tl.load(starts + bag), tl.load(starts + bag + 1)
    total = tl.zeros([BLOCK_J, BLOCK_D], tl.float32)
    for start in range(first, last, BLOCK_J):
        j = start + tl.arange(0, BLOCK_J)
        row = tl.load(indices + j, mask=j < last, other=0)
        value = tl.load(values + j, mask=j < last, other=0.0).to(tl.float32)
        inside = (j < last)[:, None] & (d < width)[None, :]
        tile = tl.load(table + row[:, None] * table_row + d[None, :], mask=inside, other=0.0).to(tl.float32)
        total += value[:, None] * tile
    summed = tl.sum(total, axis=0)
    tl.store(out + bag * width + d, summed.to(out.dtype.element_ty), mask=d < width)


@triton.jit
def products_kernel(
    out, x, table, indices, active, width, x_row, table_row, BLOCK_J: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """BLOCK_J products of one row of x with the rows of the table that it is to meet."""
    sample = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK_J + tl.arange(0, BLOCK_J)
    row = tl.load(indices + sample * active + j, mask=j < active, other=0)
    total = tl.zeros([BLOCK_J, BLOCK_D], tl.float32)
    for start in range(0, width, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        inside = (j < active)[:, None] & (d < width)[None, :]
        tile = tl.load(table + row[:, None] * table_row + d[None, :], mask=inside, other=0.0).to(tl.float32)
        line = tl.load(x + sample * x_row + d, mask=d < width, other=0.0).to(tl.float32)
        total += tile * line[None, :]
    products = tl.sum(total, axis=1)
    tl.store(out + sample * active + j, products.to(out.dtype.element_ty), mask=j < active)
