"""A B-cos layer that is a matrix product, on a CUDA device: in one kernel where that wins.

For each shape class ``tuning`` decides between the vendor's product with the epilogue's passes around it
(``"apart"``) and a Triton product with the B-cos transform inside, of one tile or another. Only half types: in
float32 the vendor's product has no rival here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bcos_kernels import tuning
from bcos_kernels.ops.dense import rows as apart
from bcos_kernels.ops.dense.rows import Alignment, Forward, Rows
from bcos_kernels.ops.epilogue import triton as epilogue
from bcos_kernels.ops.epilogue.triton import ceil, exponent, on, power


class Tile(NamedTuple):
    """Rows and columns of the result that a program owns, how much of the sum it reads at a time, how many warps."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


def _named(*tiles: Tile) -> dict[str, Tile]:
    return {f"{tile.rows}x{tile.columns}x{tile.depth}": tile for tile in tiles}


APART = "apart"
FORWARD_TILES = _named(
    Tile(128, 128, 64, 8, 3),
    Tile(64, 256, 64, 8, 3),
    Tile(128, 64, 64, 4, 4),
    Tile(64, 128, 64, 4, 4),
    Tile(64, 64, 64, 4, 4),
    Tile(32, 64, 64, 4, 4),
)
BACKWARD_TILES = _named(  # what a program sums goes through registers: shorter reads, more warps
    Tile(128, 128, 32, 8, 3),
    Tile(64, 256, 32, 8, 3),
    Tile(128, 64, 32, 8, 3),
    Tile(64, 128, 32, 8, 3),
    Tile(64, 64, 32, 4, 4),
    Tile(32, 64, 32, 4, 4),
)
BAND = 8
"""Tiles that share their columns and run one after the other."""


def takes(*matrices: Tensor) -> bool:
    """Whether the kernels can read these: half types, of which the elements of a row adjoin."""
    return all(m.dtype in (torch.bfloat16, torch.float16) and m.stride(1) == 1 and m.numel() for m in matrices)


def forward(rows: Rows, alignment: Alignment) -> Forward:
    """The layer, by what is fastest for its shape."""
    candidates: dict[str, Callable[[], Forward]] = {APART: partial(apart.forward, epilogue, rows, alignment)}
    if takes(rows.x, rows.weight):
        candidates |= {name: partial(forward_fused, tile, rows, alignment) for name, tile in FORWARD_TILES.items()}
    return _fastest("forward", rows, alignment, candidates)  # type: ignore[no-any-return]


def backward(
    rows: Rows, alignment: Alignment, grad: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gradient of x and of the responses ``w·x``, by what is fastest for the shape."""
    arguments = rows, alignment, grad, kept, n, lengths
    candidates: dict[str, Callable[[], Any]] = {APART: partial(apart.backward, epilogue, *arguments)}
    if takes(rows.x, rows.weight, grad, kept):
        candidates |= {name: partial(backward_fused, tile, *arguments) for name, tile in BACKWARD_TILES.items()}
    return _fastest("held" if alignment.held else "backward", rows, alignment, candidates)  # type: ignore[no-any-return]


def _fastest(way: str, rows: Rows, alignment: Alignment, candidates: dict[str, Callable[[], Any]]) -> Any:
    if len(candidates) == 1:
        return candidates[APART]()
    (count, depth), units = rows.x.shape, rows.weight.shape[0]
    kind = str(rows.x.dtype).removeprefix("torch.")
    what = f"dense {way} {kind} {tuning.shape_class(count)}x{units}x{depth} {power(alignment.b)}"
    return candidates[tuning.choose(what, rows.x.device, candidates)]()


def forward_fused(tile: Tile, rows: Rows, alignment: Alignment) -> Forward:
    """:func:`forward` in one kernel."""
    from bcos_kernels.ops.dense.triton_kernels import forward_kernel

    (x, weight, eps, root_of_sum), (unit, b, delta, _) = rows, alignment
    (count, depth), units = x.shape, weight.shape[0]
    out = x.new_empty(count, units)
    norms = x.new_empty(count, dtype=torch.float32)
    lengths = x.new_empty(units, dtype=torch.float32) if unit else None
    with on(x):
        forward_kernel[(ceil(count, tile.rows) * ceil(units, tile.columns),)](
            out, norms, lengths, x, weight, count, units, depth, x.stride(0), weight.stride(0),
            eps, *exponent(b, delta), POWER=power(b), UNIT=unit, ROOT_OF_SUM=root_of_sum,
            BLOCK_R=tile.rows, BLOCK_O=tile.columns, BLOCK_D=tile.depth, BAND=BAND,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return out, norms, lengths


def backward_fused(
    tile: Tile, rows: Rows, alignment: Alignment, grad: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """:func:`backward` in one kernel."""
    from bcos_kernels.ops.dense.triton_kernels import backward_kernel

    (x, weight, eps, root_of_sum), (_, b, delta, held) = rows, alignment
    (count, depth), units = x.shape, weight.shape[0]
    dx, grad_y = x.new_empty(count, depth), x.new_empty(count, units)
    with on(x):
        backward_kernel[(ceil(count, tile.rows) * ceil(depth, tile.columns),)](
            dx, grad_y, grad, kept, n, lengths, x, weight, count, units, depth,
            grad.stride(0), kept.stride(0), x.stride(0), weight.stride(0), eps, *exponent(b, delta),
            POWER=power(b), UNIT=lengths is not None, HELD=held, ROOT_OF_SUM=root_of_sum,
            BLOCK_R=tile.rows, BLOCK_O=tile.depth, BLOCK_D=tile.columns, BAND=BAND,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return dx, grad_y
