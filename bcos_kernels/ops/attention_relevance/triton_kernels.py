"""The Triton kernels of attention relevance; ``triton.py`` launches them.

Probabilities live in tiles ``[BLOCK_P, BLOCK_S]`` of pixels and tokens (transposed in the token kernel) and nowhere
else. Logits are in base 2: ``scale`` has a factor log2(e). Sums are fp32; offsets that grow with the batch 64 bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def _rows(at, row, rows, column, columns, row_stride, column_stride):
    """A tile of a matrix, zero outside of it."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    offset = row.to(tl.int64)[:, None] * row_stride + column[None, :] * column_stride
    return tl.load(at + offset, mask=inside, other=0.0)


@triton.jit
def _product(a, b):
    """``a bᵀ`` with fp32 sums; fp32 factors are not rounded."""
    return tl.dot(a, tl.trans(b), input_precision="ieee")


@triton.jit
def _biased(logits, bias, plane, first, first_stride, second, second_stride, inside, BIAS: tl.constexpr):
    """Logits with the bias; minus infinity where a token is hidden or there is none."""
    offset = plane + first.to(tl.int64)[:, None] * first_stride + second.to(tl.int64)[None, :] * second_stride
    if BIAS == "visible":
        inside = inside & (tl.load(bias + offset, mask=inside, other=0) != 0)
    if BIAS == "added":
        logits += tl.load(bias + offset, mask=inside, other=0.0).to(tl.float32) * LOG2_E
    return tl.where(inside, logits, float("-inf"))


@triton.jit
def _base(top):
    """What to take from logits before the power: their largest, or 0 where all are minus infinity."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def _inverse(odds):
    """1 / odds; 0 for a row that sees no token, whose probabilities are then 0."""
    return tl.where(odds == 0.0, 0.0, 1.0 / tl.where(odds == 0.0, 1.0, odds))


@triton.jit
def softmax_kernel(
    bases, inverses, q, k, bias, heads, pixels, length, d, scale,
    q_n, q_h, q_p, q_d, k_n, k_h, k_s, k_d, bias_n, bias_h, bias_p, bias_s,
    BIAS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Per pixel what makes a probability of a logit, ``2 ** (logit - base) * inverse``, in one pass over the tokens.

    Two numbers and not their log-sum, which would round away what large logits differ by.
    """
    tiles = tl.cdiv(pixels, BLOCK_P)
    plane = (tl.program_id(0) // tiles).to(tl.int64)
    n, h = plane // heads, plane % heads
    p, feature = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_D)
    queries = _rows(q + n * q_n + h * q_h, p, pixels, feature, d, q_p, q_d)
    top = tl.full([BLOCK_P], float("-inf"), tl.float32)
    odds = tl.zeros([BLOCK_P], tl.float32)
    for start in range(0, length, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        keys = _rows(k + n * k_n + h * k_h, s, length, feature, d, k_s, k_d)
        inside = (p < pixels)[:, None] & (s < length)[None, :]
        logits = _product(queries, keys) * scale
        logits = _biased(logits, bias, n * bias_n + h * bias_h, p, bias_p, s, bias_s, inside, BIAS)
        higher = tl.maximum(top, tl.max(logits, axis=1))
        base = _base(higher)
        odds = odds * tl.exp2(top - base) + tl.sum(tl.exp2(logits - base[:, None]), axis=1)
        top = higher
    tl.store(bases + plane * pixels + p, _base(top), mask=p < pixels)
    tl.store(inverses + plane * pixels + p, _inverse(odds), mask=p < pixels)


@triton.jit
def tokens_kernel(
    relevance, grad_v, q, k, v, g, bias, bases, inverses, heads, pixels, length, d, e, span, scale,
    q_n, q_h, q_p, q_d, k_n, k_h, k_s, k_d, v_n, v_h, v_s, v_e, g_n, g_h, g_p, g_e, bias_n, bias_h, bias_p, bias_s,
    WHOLE: tl.constexpr, GRADIENT: tl.constexpr, BIAS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """``Aᵀg`` of BLOCK_S tokens over ``span`` blocks of pixels, and its inner product with the values.

    WHOLE: the block holds all tokens, so that it finds base and inverse itself.
    """
    tiles, split = tl.cdiv(length, BLOCK_S), tl.program_id(1)
    plane, planes = (tl.program_id(0) // tiles).to(tl.int64), tl.num_programs(0) // tiles
    n, h = plane // heads, plane % heads
    s = tl.program_id(0) % tiles * BLOCK_S + tl.arange(0, BLOCK_S)
    feature, channel = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    keys = _rows(k + n * k_n + h * k_h, s, length, feature, d, k_s, k_d)
    total = tl.zeros([BLOCK_S, BLOCK_E], tl.float32)
    first = split * span * BLOCK_P
    for start in range(first, tl.minimum(first + span * BLOCK_P, pixels), BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        queries = _rows(q + n * q_n + h * q_h, p, pixels, feature, d, q_p, q_d)
        upstream = _rows(g + n * g_n + h * g_h, p, pixels, channel, e, g_p, g_e)
        inside = (s < length)[:, None] & (p < pixels)[None, :]
        logits = _product(keys, queries) * scale  # [BLOCK_S, BLOCK_P]
        logits = _biased(logits, bias, n * bias_n + h * bias_h, s, bias_s, p, bias_p, inside, BIAS)
        if WHOLE:
            held = tl.exp2(logits - _base(tl.max(logits, axis=0))[None, :])
            inverse = _inverse(tl.sum(held, axis=0))
        else:
            held = tl.exp2(logits - tl.load(bases + plane * pixels + p, mask=p < pixels, other=0.0)[None, :])
            inverse = tl.load(inverses + plane * pixels + p, mask=p < pixels, other=0.0)
        held *= inverse[None, :]
        total += tl.dot(held.to(upstream.dtype), upstream, input_precision="ieee")
    row = (split * planes + plane) * length + s
    values = _rows(v + n * v_n + h * v_h, s, length, channel, e, v_s, v_e).to(tl.float32)
    tl.store(relevance + row, tl.sum(total * values, axis=1), mask=s < length)
    if GRADIENT:
        inside = (s < length)[:, None] & (channel < e)[None, :]
        tl.store(grad_v + row[:, None] * e + channel[None, :], total.to(grad_v.dtype.element_ty), mask=inside)


@triton.jit
def maps_kernel(
    found, q, k, v, g, bias, bases, inverses, heads, pixels, length, d, e, together, scale,
    q_n, q_h, q_p, q_d, k_n, k_h, k_s, k_d, v_n, v_h, v_s, v_e, g_n, g_h, g_p, g_e, bias_n, bias_h, bias_p, bias_s,
    BIAS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """A tile of ``A[p, i] ⟨g[p], v_i⟩``, summed over ``together`` heads."""
    tiles = tl.cdiv(pixels, BLOCK_P)
    plane = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    s = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
    feature, channel = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    inside = (p < pixels)[:, None] & (s < length)[None, :]
    total = tl.zeros([BLOCK_P, BLOCK_S], tl.float32)
    for head in range(0, together):
        n, h = (plane * together + head) // heads, (plane * together + head) % heads
        queries = _rows(q + n * q_n + h * q_h, p, pixels, feature, d, q_p, q_d)
        keys = _rows(k + n * k_n + h * k_h, s, length, feature, d, k_s, k_d)
        logits = _product(queries, keys) * scale
        logits = _biased(logits, bias, n * bias_n + h * bias_h, p, bias_p, s, bias_s, inside, BIAS)
        row = (plane * together + head) * pixels + p
        base = tl.load(bases + row, mask=p < pixels, other=0.0)
        inverse = tl.load(inverses + row, mask=p < pixels, other=0.0)
        upstream = _rows(g + n * g_n + h * g_h, p, pixels, channel, e, g_p, g_e)
        values = _rows(v + n * v_n + h * v_h, s, length, channel, e, v_s, v_e)
        total += tl.exp2(logits - base[:, None]) * inverse[:, None] * _product(upstream, values)
    offset = plane * pixels * length + p.to(tl.int64)[:, None] * length + s[None, :]
    tl.store(found + offset, total, mask=inside)
