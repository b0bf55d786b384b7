"""The B-cos epilogue by Triton kernels: same functions and signatures as ``reference.py``, for B above 1.

Every strided layout is read in place. Norms, lengths and coefficients are contiguous float32; as in ``cpu.py``, the
callers answer for that. With TRITON_INTERPRET=1 the kernels run on the CPU, one program after the other.
"""

from __future__ import annotations

import functools
import importlib.util
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bcos_kernels.ops.epilogue.layout import group_count, image_shape, image_strides, patch_counts
from bcos_kernels.ops.epilogue.reference import Padding, Pair

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TILE = 2048
"""Elements of one tensor that a program holds at a time; half of it where it reads two and writes a third."""


def supports(*tensors: Tensor) -> str | None:
    """Return None where the kernels take these tensors, else the reason why not."""
    if not _installed():
        return "triton is not installed"
    interpreted = _interpreted()
    for tensor in tensors:
        if not tensor.is_cuda and not (interpreted and tensor.device.type == "cpu"):
            return f"the Triton kernels run on CUDA devices, not on {tensor.device.type}"
        if tensor.dtype not in _DTYPES:
            return f"the Triton kernels take float32, bfloat16 and float16, not {tensor.dtype}"
        if tensor.layout is not torch.strided or tensor.is_neg():
            return "the Triton kernels take plain strided tensors"
    return None


def row_norm(x: Tensor, eps: float) -> Tensor:
    """Return ``sqrt(sum of squares) + eps`` of each row: x ``[R, D]`` -> ``[R]`` in float32."""
    norms = _per_pixel_of(x, x.shape[0])
    _square_sums(norms, x, 1, eps, "root plus eps")
    return norms


def patch_norm(
    x: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int, eps: float
) -> Tensor:
    """Return the norm of each patch: x ``[N, C, H, W]`` -> ``[N, groups, P, Q]`` in float32.

    ``sqrt(sum of squares over the group's channels and the window + eps)``; pairs are (height, width), padding
    is zeros at (top, bottom, left, right).
    """
    out = patch_counts(x, kernel, stride, padding, dilation)
    samples, _, height, width = x.shape
    norms = _per_pixel_of(x, samples, groups, *out)
    if kernel == (1, 1) and not any(padding):  # read only the pixels that are asked for
        x = x[:, :, :: stride[0], :: stride[1]]
        _square_sums(norms, x, groups, eps, "root of sum plus eps")
        return norms
    sums = _per_pixel_of(x, samples, groups, height, width)
    _square_sums(sums, x, groups, eps, "none")
    if norms.numel():
        block = power_of_2(out[0] * out[1], 256)
        with on(x):
            _kernels().box_norm_kernel[(samples * groups * ceil(out[0] * out[1], block),)](
                norms, sums, height, width, *out, padding[0], padding[2], eps,
                *kernel, *stride, *dilation, BLOCK_P=block,
            )  # fmt: skip
    return norms


def scale(w_x: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float) -> Tensor:
    """Return ``y * (|y| / n + delta) ** (b - 1)`` of ``y = w_x / lengths``, in the memory of w_x.

    w_x: ``[N, O, P, Q]`` with n ``[N, g, P, Q]``, or ``[R, O]`` with ``[R]``; lengths: ``[O]`` or None; b = 2 takes
    delta as 0.
    """
    _apply_factor(w_x, w_x, w_x, n, lengths, b, delta, from_output=False)
    return w_x


def apply_factor(
    v: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float, out: Tensor | None = None
) -> Tensor:
    """Return ``v / lengths`` times the factor of the output ``kept``, whose rows all parts of v ``[S * N, ...]`` share.

    In ``out``, if given, which may be v; else like v.
    """
    out = torch.empty_like(v) if out is None else out
    _apply_factor(out, v, kept, n, lengths, b, delta, from_output=True)
    return out


def _apply_factor(
    out: Tensor, v: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float, from_output: bool
) -> None:
    if out.numel() == 0:
        return
    groups, parts, kernels = group_count(n), v.shape[0] // kept.shape[0], _kernels()
    samples, channels, height, width = image_shape(kept)
    places = [image_strides(t) for t in (out, v, kept)]
    pixels, is_flat = height * width, flat(height, width, places)
    block_p, block_c = blocks(pixels, channels, places)
    hops = [kept.shape[0] * t.stride(0) for t in (out, v)]
    with on(kept):
        kernels.apply_factor_kernel[(samples * ceil(pixels, block_p), ceil(channels, block_c))](
            out, v, kept, n, lengths, parts, channels, channels // groups, pixels, width, groups,
            hops[0], *places[0], hops[1], *places[1], *places[2], *exponent(b, delta),
            POWER=power(b), FROM_OUTPUT=from_output, UNIT=lengths is not None, GROUPED=groups > 1, FLAT=is_flat,
            BLOCK_P=block_p, BLOCK_C=block_c,
        )  # fmt: skip


def scale_backward(
    grad: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float
) -> tuple[Tensor, Tensor]:
    """Return the gradient of ``w·x``, like kept, and the coefficients c, like n, of the gradient through the norm.

    As :func:`bcos_kernels.ops.epilogue.cpu.scale_backward`.
    """
    grad_y, c = torch.empty_like(kept), torch.empty_like(n)
    if c.numel() == 0:
        return grad_y, c
    groups, kernels = group_count(n), _kernels()
    samples, channels, height, width = image_shape(kept)
    places = [image_strides(t) for t in (grad_y, grad, kept)]
    pixels, is_flat = height * width, flat(height, width, places)
    block_p, block_c = blocks(pixels, channels // groups, places, TILE // 2)
    with on(kept):
        kernels.scale_backward_kernel[(samples * ceil(pixels, block_p), groups)](
            grad_y, c, grad, kept, n, lengths, channels // groups, pixels, width, groups,
            *places[0], *places[1], *places[2], *exponent(b, delta),
            POWER=power(b), UNIT=lengths is not None, FLAT=is_flat,
            BLOCK_P=block_p, BLOCK_C=block_c,
        )  # fmt: skip
    return grad_y, c


def project_rows(grad: Tensor, weight: Tensor, lengths: Tensor) -> None:
    """Take from each row of grad, in place, what points along the weight; both ``[O, ...]`` in one memory format."""
    if grad.numel():
        columns = grad.numel() // grad.shape[0]
        with on(grad):
            _kernels().project_rows_kernel[(len(grad),)](
                grad, weight, lengths, columns, BLOCK=power_of_2(columns, 1024)
            )  # fmt: skip


def spread(
    dx: Tensor, x: Tensor, c: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """Add to dx, in place, ``x`` times the coefficients c ``[N, groups, P, Q]`` of all patches that hold the pixel."""
    _spread(dx, x, c, kernel, stride, padding, dilation, groups, (c.shape[2], c.shape[3]))


def spread_rows(dx: Tensor, x: Tensor, c: Tensor) -> None:
    """Add ``x * c[:, None]`` to dx in place: dx, x ``[R, D]``, c ``[R]``."""
    _spread(dx, x, c, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, (1, x.shape[0]))


def _spread(
    dx: Tensor, x: Tensor, c: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int,
    out: Pair,
) -> None:  # fmt: skip
    if x.numel() == 0:
        return
    samples, channels, height, width = image_shape(x)
    places = [image_strides(t) for t in (dx, x)]
    block_p, block_c = blocks(height * width, channels // groups, places)
    with on(x):
        _kernels().spread_kernel[(samples * ceil(height * width, block_p), groups)](
            dx, x, c, channels // groups, height, width, groups, *out, padding[0], padding[2], *places[0], *places[1],
            *kernel, *stride, *dilation, FLAT=flat(height, width, places), BLOCK_P=block_p, BLOCK_C=block_c,
        )  # fmt: skip


def _square_sums(sums: Tensor, x: Tensor, groups: int, eps: float, finish: str) -> None:
    if sums.numel() == 0:
        return
    (samples, channels, height, width), place = image_shape(x), image_strides(x)
    pixels = height * width
    block_p, block_c = blocks(pixels, channels // groups, [place])
    with on(x):
        _kernels().square_sums_kernel[(samples * ceil(pixels, block_p), groups)](
            sums, x, channels // groups, pixels, width, groups, *place, eps,
            FINISH=finish, FLAT=flat(height, width, [place]), BLOCK_P=block_p, BLOCK_C=block_c,
        )  # fmt: skip


def _kernels() -> ModuleType:
    from bcos_kernels.ops.epilogue import triton_kernels

    return triton_kernels


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _interpreted() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


def on(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be that of x."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _per_pixel_of(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape, dtype=torch.float32)


def exponent(b: float, delta: float) -> tuple[float, float]:
    """What the kernels raise to which power: ``|cos| + delta`` to ``b - 1``."""
    return float(b - 1), 0.0 if b == 2 else delta


def power(b: float) -> str:
    """How the kernels raise to that power."""
    if not b > 1:
        raise ValueError(f"the Triton kernels take b above 1, got {b}")
    return {2.0: "one", 1.5: "half"}.get(float(b), "any")


def flat(height: int, width: int, places: list[tuple[int, int, int, int]]) -> bool:
    """Whether in every tensor each line of pixels follows the one before."""
    return height == 1 or all(line == width * step for _, _, line, step in places)


def blocks(
    pixels: int, channels: int, places: list[tuple[int, int, int, int]], tile: int = TILE
) -> tuple[int, int]:  # fmt: skip
    """Pixels and channels of a tile: long along the direction in which memory runs."""
    if all(channel == 1 for _, channel, _, _ in places):
        block_c = power_of_2(channels, 128)
        return power_of_2(pixels, tile // block_c), block_c
    block_p = power_of_2(pixels, 256)
    return block_p, power_of_2(channels, tile // block_p)


def power_of_2(count: int, most: int) -> int:
    """The least power of 2 that holds count, at most ``most``."""
    return min(1 << max(0, count - 1).bit_length(), most)


def ceil(count: int, block: int) -> int:
    """How many blocks hold count."""
    return -(-count // block)
