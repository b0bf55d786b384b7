"""Matrix products with the B-cos transform inside: no response, no norm and no gradient of one is read again.

A program owns BLOCK_R rows and BLOCK_O units (backward: BLOCK_D features), and walks along what is summed. What it
needs besides the product is in the tiles that it reads anyway: the squares of x and of the weight in the forward
pass, and in the backward pass the gradient of each response and the coefficient of the norm (mathematics §2).
Elements of a row adjoin in every matrix. All arithmetic but the products is fp32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bcos_kernels.ops.epilogue.triton_kernels import _aligned, _inverse, _power


@triton.jit
def _tile(rows, columns, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BAND: tl.constexpr):
    """Which tile this program owns: along bands BAND tiles high, so that what neighbours read is cached."""
    program, high, wide = tl.program_id(0), tl.cdiv(rows, BLOCK_R), tl.cdiv(columns, BLOCK_C)
    first = program // (BAND * wide) * BAND
    band = min(high - first, BAND)
    return first + program % (BAND * wide) % band, program % (BAND * wide) // band


@triton.jit
def forward_kernel(
    out, norms, lengths, x, weight, rows, units, depth, x_row, weight_row, eps, exponent, delta,
    POWER: tl.constexpr, UNIT: tl.constexpr, ROOT_OF_SUM: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_D: tl.constexpr, BAND: tl.constexpr,
):  # fmt: skip
    """``out = y |cos| ** exponent`` for y = x·w (UNIT: over ``‖w‖``), the norms of x, the lengths of w.

    ROOT_OF_SUM: eps stands under the root of the norm, as convolutions have it.
    """
    high, wide = _tile(rows, units, BLOCK_R, BLOCK_O, BAND)
    r, o = high * BLOCK_R + tl.arange(0, BLOCK_R), wide * BLOCK_O + tl.arange(0, BLOCK_O)
    x_at, w_at = x + r.to(tl.int64)[:, None] * x_row, weight + o.to(tl.int64)[:, None] * weight_row
    product = tl.zeros([BLOCK_R, BLOCK_O], tl.float32)
    x_squares, w_squares = tl.zeros([BLOCK_R], tl.float32), tl.zeros([BLOCK_O], tl.float32)
    for start in range(0, depth, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)[None, :]
        x_tile = tl.load(x_at + d, mask=(r < rows)[:, None] & (d < depth), other=0.0)
        w_tile = tl.load(w_at + d, mask=(o < units)[:, None] & (d < depth), other=0.0)
        product = tl.dot(x_tile, tl.trans(w_tile), product)
        x_wide = x_tile.to(tl.float32)
        x_squares += tl.sum(x_wide * x_wide, axis=1)
        if UNIT:
            w_wide = w_tile.to(tl.float32)
            w_squares += tl.sum(w_wide * w_wide, axis=1)
    norm = tl.sqrt(x_squares + eps) if ROOT_OF_SUM else tl.sqrt(x_squares) + eps
    y = product
    if UNIT:
        length = tl.sqrt(w_squares)
        y = product * _inverse(length)[None, :]
        if high == 0:
            tl.store(lengths + o, length, mask=o < units)
    if wide == 0:
        tl.store(norms + r, norm, mask=r < rows)
    scaled = y * _power(tl.abs(y) * _inverse(norm)[:, None] + delta, exponent, POWER)
    at, inside = r.to(tl.int64)[:, None] * units + o[None, :], (r < rows)[:, None] & (o < units)[None, :]
    tl.store(out + at, scaled.to(out.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(
    dx, grad_y, grad, kept, norms, lengths, x, weight, rows, units, depth, grad_row, kept_row, x_row, weight_row,
    eps, exponent, delta,
    POWER: tl.constexpr, UNIT: tl.constexpr, HELD: tl.constexpr, ROOT_OF_SUM: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_D: tl.constexpr, BAND: tl.constexpr,
):  # fmt: skip
    """dx, and the gradient of the responses x·w, of which the weight's is made. HELD: |cos| is a constant."""
    high, wide = _tile(rows, depth, BLOCK_R, BLOCK_D, BAND)
    r, d = high * BLOCK_R + tl.arange(0, BLOCK_R), wide * BLOCK_D + tl.arange(0, BLOCK_D)
    norm = tl.load(norms + r, mask=r < rows, other=1.0)
    inverse = _inverse(norm)
    grad_at, kept_at = grad + r.to(tl.int64)[:, None] * grad_row, kept + r.to(tl.int64)[:, None] * kept_row
    product, total = tl.zeros([BLOCK_R, BLOCK_D], tl.float32), tl.zeros([BLOCK_R], tl.float32)
    for start in range(0, units, BLOCK_O):
        o = start + tl.arange(0, BLOCK_O)
        inside = (r < rows)[:, None] & (o < units)[None, :]
        upstream = tl.load(grad_at + o[None, :], mask=inside, other=0.0).to(tl.float32)
        output = tl.load(kept_at + o[None, :], mask=inside, other=0.0).to(tl.float32)
        gain = _inverse(tl.load(lengths + o, mask=o < units, other=1.0))[None, :] if UNIT else 1.0
        s, ratio = _aligned(tl.abs(output) * inverse[:, None], exponent, delta, POWER)
        slope = upstream * s
        if not HELD:
            slope *= 1.0 + exponent * ratio
            total += tl.sum(upstream * output * ratio, axis=1)
        tile = (slope * gain).to(weight.dtype.element_ty)
        if wide == 0:
            tl.store(grad_y + r.to(tl.int64)[:, None] * units + o[None, :], tile, mask=inside)
        w_at = weight + o.to(tl.int64)[:, None] * weight_row + d[None, :]
        w_tile = tl.load(w_at, mask=(o < units)[:, None] & (d < depth)[None, :], other=0.0)
        product = tl.dot(tile, w_tile, product)
    inside = (r < rows)[:, None] & (d < depth)[None, :]
    if not HELD:
        c = -exponent * total * inverse * inverse
        if not ROOT_OF_SUM:  # d(‖x‖ + eps) = x·dx / ‖x‖
            length = norm - eps
            c = tl.where(length > 0.0, c * norm * _inverse(length), 0.0)
        x_tile = tl.load(x + r.to(tl.int64)[:, None] * x_row + d[None, :], mask=inside, other=0.0).to(tl.float32)
        product += c[:, None] * x_tile
    tl.store(dx + r.to(tl.int64)[:, None] * depth + d[None, :], product.to(dx.dtype.element_ty), mask=inside)
