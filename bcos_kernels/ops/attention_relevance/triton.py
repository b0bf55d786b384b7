"""Attention relevance by Triton kernels; relevance and all sums in float32."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

TOKENS_AHEAD, MAPS_AHEAD = 3, 2
"""Stages of loads in flight: maps read four tensors at a time and have shared memory for fewer."""
PROGRAMS = 512
"""Fewer programs than this leave a device idle: pixels are then split, in the same way on every device."""


def tokens(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, bias: Tensor | None, scale: float, gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """As :func:`bcos_kernels.ops.attention_relevance.reference.tokens`; p is rounded to the type of g, as usual."""
    (n, heads, pixels, d), (length, e) = q.shape, v.shape[2:]
    if n * heads * pixels * length == 0:
        return v.new_zeros((n, heads, length), dtype=torch.float32), v.new_zeros(v.shape) if gradient else None
    known = shapes(d, e, length, bias, q.dtype)
    block_p, block_s = known["BLOCK_P"], known["BLOCK_S"]
    whole = length <= block_s
    bases, inverses = (None, None) if whole else _softmax(q, k, bias, scale, known)
    programs, steps = n * heads * -(-length // block_s), -(-pixels // block_p)
    span = -(-steps // min(steps, -(-PROGRAMS // programs)))
    splits = -(-steps // span)
    relevance = v.new_empty((splits, n, heads, length), dtype=torch.float32)
    parts = v.new_empty((splits, *v.shape), dtype=v.dtype if splits == 1 else torch.float32) if gradient else relevance
    with torch.cuda.device_of(q):
        _kernels().tokens_kernel[(programs, splits)](
            relevance, parts, q, k, v, g, _readable(bias), bases, inverses,
            heads, pixels, length, d, e, span, scale / math.log(2),
            *q.stride(), *k.stride(), *v.stride(), *g.stride(), *_strides(bias),
            WHOLE=whole, GRADIENT=gradient, **known,
        )  # fmt: skip
    if splits == 1:
        return relevance[0], parts[0] if gradient else None
    return relevance.sum(0), parts.sum(0).to(v.dtype) if gradient else None


def maps(q: Tensor, k: Tensor, v: Tensor, g: Tensor, bias: Tensor | None, scale: float, sum_heads: bool) -> Tensor:
    """As :func:`bcos_kernels.ops.attention_relevance.reference.maps`."""
    (n, heads, pixels, d), (length, e) = q.shape, v.shape[2:]
    found = v.new_zeros((n, pixels, length) if sum_heads else (n, heads, pixels, length), dtype=torch.float32)
    if n * heads * pixels * length == 0:
        return found
    known = shapes(d, e, length, bias, q.dtype, MAPS_AHEAD)
    bases, inverses = _softmax(q, k, bias, scale, known)
    together = heads if sum_heads else 1
    programs = n * heads // together * -(-pixels // known["BLOCK_P"]), -(-length // known["BLOCK_S"])
    with torch.cuda.device_of(q):
        _kernels().maps_kernel[programs](
            found, q, k, v, g, _readable(bias), bases, inverses,
            heads, pixels, length, d, e, together, scale / math.log(2),
            *q.stride(), *k.stride(), *v.stride(), *g.stride(), *_strides(bias), **known,
        )  # fmt: skip
    return found


def _softmax(q: Tensor, k: Tensor, bias: Tensor | None, scale: float, known: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Two numbers per row ``[N, H, P]`` that make probabilities of its logits; see the kernel."""
    (n, heads, pixels, d), length = q.shape, k.shape[2]
    bases, inverses = q.new_empty((2, n, heads, pixels), dtype=torch.float32).unbind()
    with torch.cuda.device_of(q):
        _kernels().softmax_kernel[(n * heads * -(-pixels // known["BLOCK_P"]),)](
            bases, inverses, q, k, _readable(bias), heads, pixels, length, d, scale / math.log(2),
            *q.stride(), *k.stride(), *_strides(bias), **{name: known[name] for name in known if name != "BLOCK_E"},
        )  # fmt: skip
    return bases, inverses


def shapes(
    d: int, e: int, length: int, bias: Tensor | None, dtype: torch.dtype, ahead: int = TOKENS_AHEAD
) -> dict[str, Any]:
    """What a kernel is compiled for: how the bias is read, and tiles and loads ahead that leave registers free.

    Exact products of float32 run outside the matrix units, from registers.
    """
    block_d, block_e, exact = _at_least_16(d), _at_least_16(e), dtype == torch.float32
    widest = max(block_d, block_e) * (2 if exact else 1)
    side = 64 if widest <= 64 else 32 if widest <= 128 else 16
    read = "none" if bias is None else "visible" if bias.dtype == torch.bool else "added"
    return {
        "BIAS": read, "BLOCK_P": side, "BLOCK_S": min(side, _at_least_16(length)),
        "BLOCK_D": block_d, "BLOCK_E": block_e, "num_stages": 1 if exact else ahead,
    }  # fmt: skip


def _at_least_16(size: int) -> int:
    """The least power of 2 that holds size, and that a matrix unit takes."""
    return max(16, 1 << (size - 1).bit_length())


def _readable(bias: Tensor | None) -> Tensor | None:
    return bias.view(torch.uint8) if bias is not None and bias.dtype == torch.bool else bias


def _strides(bias: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if bias is None else bias.stride()


def _kernels() -> ModuleType:
    from bcos_kernels.ops.attention_relevance import triton_kernels

    return triton_kernels
