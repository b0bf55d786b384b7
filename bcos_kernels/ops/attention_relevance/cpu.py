"""Attention relevance by the vendor's matrix products, a block of pixels at a time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from bcos_kernels.ops.attention_relevance.reference import probabilities
from bcos_kernels.ops.epilogue.layout import accumulator
from bcos_kernels.ops.epilogue.reference import widen

HELD = 1 << 18
"""Probabilities in memory at a time, about: what the caches of a core hold."""
FEWEST_PIXELS = 16


def tokens(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, bias: Tensor | None, scale: float, gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """As :func:`bcos_kernels.ops.attention_relevance.reference.tokens`."""
    relevance = v.new_zeros(v.shape[:3], dtype=accumulator(v))
    grad_v = v.new_zeros(v.shape) if gradient else None
    for samples, blocks in _walk(q, k):
        keys, values = widen(k[samples]), widen(v[samples])
        total = values.new_zeros(values.shape)  # [n, H, S, e]
        for pixels in blocks:
            held = _held(q, keys, bias, scale, samples, pixels)  # [n, H, p, S]
            total += held.transpose(-2, -1) @ widen(g[samples, :, pixels])
        relevance[samples] = (total * values).sum(-1)
        if grad_v is not None:
            grad_v[samples] = total
    return relevance, grad_v


def maps(q: Tensor, k: Tensor, v: Tensor, g: Tensor, bias: Tensor | None, scale: float, sum_heads: bool) -> Tensor:
    """As :func:`bcos_kernels.ops.attention_relevance.reference.maps`."""
    n, heads, length, _ = q.shape
    shape = (n, length, k.shape[2]) if sum_heads else (n, heads, length, k.shape[2])
    found = v.new_zeros(shape, dtype=accumulator(v))
    for samples, blocks in _walk(q, k):
        keys, values = widen(k[samples]), widen(v[samples])
        for pixels in blocks:
            parts = widen(g[samples, :, pixels]) @ values.transpose(-2, -1)
            parts *= _held(q, keys, bias, scale, samples, pixels)
            if sum_heads:
                found[samples, pixels] = parts.sum(1)
            else:
                found[samples, :, pixels] = parts
    return found


def _walk(q: Tensor, k: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Samples to take together, and the blocks of their pixels; nothing where nothing is."""
    n, pixels, row = q.shape[0], q.shape[2], q.shape[1] * k.shape[2]
    if n * pixels * row == 0:
        return
    together = max(1, min(n, HELD // (pixels * row)))
    block = max(FEWEST_PIXELS, HELD // (together * row))
    for start in range(0, n, together):
        yield slice(start, start + together), [slice(p, p + block) for p in range(0, pixels, block)]


def _held(q: Tensor, keys: Tensor, bias: Tensor | None, scale: float, samples: slice, pixels: slice) -> Tensor:
    part = None if bias is None else bias[samples, :, pixels]
    return probabilities(q[samples, :, pixels], keys, part, scale)
