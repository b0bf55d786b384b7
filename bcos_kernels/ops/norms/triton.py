"""Bias-free normalisation by Triton kernels: same functions and signatures as ``reference.py``.

Every strided layout is read in place; statistics and sums are fp32. Nothing is checked here, as in ``cpu.py``.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bcos_kernels.ops.epilogue.layout import image_strides
from bcos_kernels.ops.epilogue.triton import TILE, blocks, ceil, flat, on, power_of_2
from bcos_kernels.ops.norms.reference import track as track

PROGRAMS = 1024
"""Programs that keep a device busy: fewer where the tensor is small, and each then does more."""
ROW = 1024
"""Channels of a pixel that a program holds at a time where they adjoin."""


def forward(
    x: Tensor, weight: Tensor | None, groups: int, eps: float, centred: bool, about_mean: bool, per_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``out`` like x, ``mean`` and ``rstd``, as :func:`bcos_kernels.ops.norms.reference.forward`."""
    if per_pixel:
        out = torch.empty_like(x)
        return out, *_rows(x, out, weight, eps, centred, about_mean)
    mean, rstd = _group_statistics(x, groups, eps, about_mean)
    return apply(x, weight, mean if centred else None, rstd), mean, rstd


def output(
    x: Tensor, weight: Tensor | None, groups: int, eps: float, centred: bool, about_mean: bool, per_pixel: bool
) -> Tensor:
    """Return ``out`` alone."""
    return forward(x, weight, groups, eps, centred, about_mean, per_pixel)[0]


def statistics(x: Tensor, groups: int, eps: float, about_mean: bool, per_pixel: bool) -> tuple[Tensor, Tensor]:
    """Return ``mean`` and ``rstd`` of x, as :func:`bcos_kernels.ops.norms.reference.statistics`."""
    return _rows(x, None, None, eps, False, about_mean) if per_pixel else _group_statistics(x, groups, eps, about_mean)


def apply(x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor) -> Tensor:
    """Return ``weight * (x - mean) * rstd`` like x, of given statistics."""
    out, groups, kernels = torch.empty_like(x), rstd.shape[1], _kernels()
    if x.numel() == 0:
        return out
    samples, channels, height, width = x.shape
    places = [image_strides(t) for t in (out, x)]
    block_p, block_c = blocks(height * width, channels, places)
    with on(x):
        kernels.normalise_kernel[(samples * ceil(height * width, block_p), ceil(channels, block_c))](
            out, x, mean, rstd, weight, channels, channels // groups, height * width, width, groups,
            *places[0], *places[1], CENTRED=mean is not None, WEIGHT=weight is not None, PER_PIXEL=rstd.ndim == 4,
            FLAT=flat(height, width, places), BLOCK_P=block_p, BLOCK_C=block_c,
        )  # fmt: skip
    return out


def backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor,
    centred: bool, about_mean: bool, held: bool, need_dx: bool, need_dw: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of x and of the weight, as :func:`bcos_kernels.ops.norms.reference.backward`."""
    if held and not centred and not need_dw:  # x plays no part
        return (apply(grad, weight, None, rstd) if need_dx else grad.new_empty(0)), rstd.new_empty(0)
    dx = torch.empty_like(x) if need_dx else x.new_empty(0)
    if x.numel() == 0:
        return dx, rstd.new_zeros(x.shape[1] if need_dw else 0)
    options = {"CENTRED": centred, "ABOUT_MEAN": about_mean, "HELD": held, "WEIGHT": weight is not None}
    differentiate = _rows_backward if rstd.ndim == 4 else _groups_backward
    return dx, differentiate(dx, grad, x, mean, rstd, weight, rstd.shape[1], options, need_dx, need_dw)


def _rows(
    x: Tensor, out: Tensor | None, weight: Tensor | None, eps: float, centred: bool, about_mean: bool
) -> tuple[Tensor, Tensor]:
    samples, channels, height, width = x.shape
    rstd, kernels = x.new_empty((samples, 1, height, width), dtype=torch.float32), _row_kernels()
    mean = torch.empty_like(rstd) if about_mean else rstd.new_empty(0)
    if x.numel() == 0:
        return mean.fill_(torch.nan), rstd.fill_(torch.nan)
    target = x if out is None else out
    places = [image_strides(t) for t in (target, x)]
    block_p, block_c = row_blocks(height * width, channels, places)
    with on(x):
        kernels.rows_kernel[(samples * ceil(height * width, block_p),)](
            target, x, mean, rstd, weight, channels, height * width, width, *places[0], *places[1], eps,
            ABOUT_MEAN=about_mean, CENTRED=centred, WEIGHT=weight is not None, WRITE=out is not None,
            WHOLE=channels <= block_c, FLAT=flat(height, width, places), BLOCK_P=block_p, BLOCK_C=block_c,
        )  # fmt: skip
    return mean, rstd


def _group_statistics(x: Tensor, groups: int, eps: float, about_mean: bool) -> tuple[Tensor, Tensor]:
    samples, channels, height, width = x.shape
    rstd, kernels = x.new_empty((samples, groups), dtype=torch.float32), _kernels()
    mean = torch.empty_like(rstd) if about_mean else rstd.new_empty(0)
    if x.numel() == 0:
        return mean.fill_(torch.nan), rstd.fill_(torch.nan)
    pixels, place = height * width, image_strides(x)
    block_p, block_c = blocks(pixels, channels, [place])
    splits, span = split(pixels, samples * ceil(channels, block_c), block_p)
    squares = rstd.new_empty((samples, channels, splits))
    means = torch.empty_like(squares) if about_mean else mean
    block = power_of_2(channels // groups * splits, 1024)
    with on(x):
        kernels.moments_kernel[(samples * splits, ceil(channels, block_c))](
            means, squares, x, channels, pixels, width, splits, span, *place,
            ABOUT_MEAN=about_mean, FLAT=flat(height, width, [place]), BLOCK_P=block_p, BLOCK_C=block_c,
        )  # fmt: skip
        kernels.finish_moments_kernel[(samples * groups,)](
            mean, rstd, means, squares, channels // groups, pixels, splits, span, eps,
            ABOUT_MEAN=about_mean, BLOCK=block,
        )  # fmt: skip
    return mean, rstd


def _rows_backward(
    dx: Tensor, grad: Tensor, x: Tensor, mean: Tensor | None, rstd: Tensor, weight: Tensor | None, groups: int,
    options: dict[str, Any], need_dx: bool, need_dw: bool,
) -> Tensor:  # fmt: skip
    samples, channels, height, width = x.shape
    target, kernels = dx if need_dx else x, _row_kernels()
    places = [image_strides(t) for t in (target, grad, x)]
    block_p, block_c = row_blocks(height * width, channels, places, TILE // 2)
    tiles = samples * ceil(height * width, block_p)
    programs = min(tiles, PROGRAMS)
    shares = rstd.new_zeros((programs if need_dw else 0, channels))
    with on(x):
        kernels.rows_gradient_kernel[(programs,)](
            target, shares, grad, x, mean, rstd, weight, channels, height * width, width, tiles,
            ceil(tiles, programs), *places[0], *places[1], *places[2], **options, NEED_DX=need_dx, NEED_DW=need_dw,
            WHOLE=channels <= block_c, FLAT=flat(height, width, places), BLOCK_P=block_p, BLOCK_C=block_c,
        )  # fmt: skip
    return shares.sum(0) if need_dw else rstd.new_empty(0)


def _groups_backward(
    dx: Tensor, grad: Tensor, x: Tensor, mean: Tensor | None, rstd: Tensor, weight: Tensor | None, groups: int,
    options: dict[str, Any], need_dx: bool, need_dw: bool,
) -> Tensor:  # fmt: skip
    samples, channels, height, width = x.shape
    pixels, members, kernels = height * width, channels // groups, _kernels()
    places = [image_strides(t) for t in (grad, x)]
    block_p, block_c = blocks(pixels, channels, places, TILE // 2)
    splits, span = split(pixels, samples * ceil(channels, block_c), block_p)
    plain, along = rstd.new_empty((2, samples, channels, splits))
    base, slope = rstd.new_empty((2, samples, groups))
    with on(x):
        kernels.gradient_sums_kernel[(samples * splits, ceil(channels, block_c))](
            plain, along, grad, x, mean, channels, members, pixels, width, groups, splits, span,
            *places[0], *places[1], CENTRED=options["CENTRED"], FLAT=flat(height, width, places),
            BLOCK_P=block_p, BLOCK_C=block_c,
        )  # fmt: skip
        if need_dx:
            kernels.finish_gradient_sums_kernel[(samples * groups,)](
                base, slope, plain, along, rstd, weight, members, pixels, splits, groups,
                **{name: options[name] for name in ("CENTRED", "HELD", "WEIGHT")},
                BLOCK=power_of_2(members * splits, 1024),
            )  # fmt: skip
            places = [image_strides(dx), *places]
            block_p, block_c = blocks(pixels, channels, places, TILE // 2)
            kernels.gradient_kernel[(samples * ceil(pixels, block_p), ceil(channels, block_c))](
                dx, grad, x, mean, rstd, weight, base, slope, channels, members, pixels, width, groups,
                *places[0], *places[1], *places[2], **options, FLAT=flat(height, width, places),
                BLOCK_P=block_p, BLOCK_C=block_c,
            )  # fmt: skip
    if not need_dw:
        return rstd.new_empty(0)
    return (along.sum(2).view(samples, groups, members) * rstd[:, :, None]).sum(0).flatten()


def row_blocks(
    pixels: int, channels: int, places: list[tuple[int, int, int, int]], tile: int = TILE
) -> tuple[int, int]:  # fmt: skip
    """Pixels and channels of a tile of a program that owns pixels: all channels where they adjoin and fit."""
    if any(channel != 1 for _, channel, _, _ in places):
        return blocks(pixels, channels, places, tile)
    block_c = power_of_2(channels, min(ROW, tile))
    return power_of_2(pixels, tile // block_c), block_c


def split(pixels: int, programs: int, block: int) -> tuple[int, int]:
    """Into how many parts to split the pixels, and how many a part has: whole tiles, for enough programs."""
    span = ceil(pixels, ceil(PROGRAMS, programs) * block) * block
    return ceil(pixels, span), span


def _kernels() -> ModuleType:
    from bcos_kernels.ops.norms import triton_kernels

    return triton_kernels


def _row_kernels() -> ModuleType:
    from bcos_kernels.ops.norms import triton_row_kernels

    return triton_row_kernels
