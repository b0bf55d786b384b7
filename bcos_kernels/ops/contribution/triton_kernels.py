"""The Triton kernel that sums contributions; ``triton.py`` launches it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def contribution_kernel(
    parts, x, g, outputs, kept_1, kept_2, summed_1, summed_2, steps, span,
    x_k0, x_k1, x_k2, x_s0, x_s1, x_s2, g_k0, g_k1, g_k2, g_s0, g_s1, g_s2,
    BLOCK_K: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """BLOCK_K sums of ``x * g`` over ``span`` of the steps, each BLOCK_S long, into one row of parts."""
    tiles = tl.cdiv(kept_2, BLOCK_K)
    outer = tl.program_id(0) // tiles
    k = tl.program_id(0) % tiles * BLOCK_K + tl.arange(0, BLOCK_K)
    k_0, k_1, k_2 = (outer // kept_1).to(tl.int64), (outer % kept_1).to(tl.int64), k.to(tl.int64)
    x_at = (x + k_0 * x_k0 + k_1 * x_k1 + k_2 * x_k2)[:, None]
    g_at = (g + k_0 * g_k0 + k_1 * g_k1 + k_2 * g_k2)[:, None]
    runs = tl.cdiv(summed_2, BLOCK_S)
    first = tl.program_id(1) * span
    total = tl.zeros([BLOCK_K, BLOCK_S], tl.float32)
    for step in range(first, tl.minimum(first + span, steps)):
        line = step // runs
        s = step % runs * BLOCK_S + tl.arange(0, BLOCK_S)
        s_0, s_1, s_2 = (line // summed_1).to(tl.int64), (line % summed_1).to(tl.int64), s.to(tl.int64)[None, :]
        inside = (k < kept_2)[:, None] & (s < summed_2)[None, :]
        value = tl.load(x_at + s_0 * x_s0 + s_1 * x_s1 + s_2 * x_s2, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(g_at + s_0 * g_s0 + s_1 * g_s1 + s_2 * g_s2, mask=inside, other=0.0).to(tl.float32)
        total += value * weight
    row = parts + tl.program_id(1).to(tl.int64) * outputs + outer.to(tl.int64) * kept_2
    tl.store(row + k, tl.sum(total, axis=1), mask=k < kept_2)
