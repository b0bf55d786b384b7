"""The Triton kernels of the B-cos epilogue; ``triton.py`` launches them.

A program owns BLOCK_P pixels of one sample. Pixels are numbered along the lines of the image; where a line
follows the one before in memory (FLAT) a pixel's number times its stride is its place, which lets the compiler
see runs of neighbours. Per-pixel factors (norms, coefficients) are contiguous ``[N, g, pixels]`` in fp32, and so
is all arithmetic. Offsets are 64 bits wide. A group has ``members`` channels: given, not computed, because the
compiler knows of arguments alone that they are multiples of 16.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _place(p, width, line, step, FLAT: tl.constexpr):
    """Offset of pixel number p in an image of this width."""
    if FLAT:
        return p.to(tl.int64) * step
    return (p // width).to(tl.int64) * line + (p % width).to(tl.int64) * step


@triton.jit
def _inverse(norm):
    """1 / norm; 1 for a norm of 0, above which the response is 0 too."""
    return 1.0 / tl.where(norm == 0.0, 1.0, norm)


@triton.jit
def _gain(lengths, unit, end, UNIT: tl.constexpr):
    """``1 / ‖w‖`` of units below ``end``, to broadcast against pixels; 1 without a length."""
    gain = 1.0
    if UNIT:
        gain = _inverse(tl.load(lengths + unit, mask=unit < end, other=1.0))[None, :]
    return gain


@triton.jit
def _power(v, exponent, POWER: tl.constexpr):
    """``v ** exponent`` for v >= 0 and exponent > 0; POWER names the exponents that need no logarithm."""
    if POWER == "one":
        return v
    if POWER == "half":
        return tl.sqrt(v)
    return tl.exp2(exponent * tl.log2(v))


@triton.jit
def _aligned(t, exponent, delta, POWER: tl.constexpr):
    """``v ** exponent`` and ``u / v`` of ``v = u + delta``, where ``t = u * v ** exponent`` (``reference.aligned``)."""
    if POWER == "one":
        return tl.sqrt(t), 1.0
    at_zero, zero = _power(delta, exponent, POWER), t == 0.0
    t = tl.where(zero, 1.0, t)
    base = tl.maximum(tl.exp2(tl.log2(t) / (1.0 + exponent)), delta)
    share = delta / base
    r = tl.minimum(share, t / (at_zero * delta))
    v = base * (1.0 + r / (1.0 + exponent * (1.0 - share + 0.55 * r)))
    s, change = v, v
    for _ in tl.static_range(2):
        s, u = _power(v, exponent, POWER), v - delta
        inverse = 1.0 / (v + exponent * u)
        off = (u - t / s) * inverse
        change = -off * (1.0 + off * exponent * (v + 0.5 * (exponent - 1.0) * u) * inverse)
        v *= 1.0 + change
    s *= 1.0 + exponent * change * (1.0 + 0.5 * (exponent - 1.0) * change)
    return tl.where(zero, at_zero, s), tl.where(zero, 0.0, t / (s * v))


@triton.jit
def apply_factor_kernel(
    out, v, kept, norms, lengths,
    parts, channels, members, pixels, width, groups,
    out_hop, out_n, out_c, out_h, out_w, v_hop, v_n, v_c, v_h, v_w, kept_n, kept_c, kept_h, kept_w,
    exponent, delta,
    POWER: tl.constexpr, FROM_OUTPUT: tl.constexpr, UNIT: tl.constexpr, GROUPED: tl.constexpr, FLAT: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """``out = v / lengths`` times the factor of kept, which is read once for all parts of v, a hop apart.

    The factor is ``(|kept| / lengths / n + delta) ** exponent``, or FROM_OUTPUT that of which kept is the result.
    """
    tiles = tl.cdiv(pixels, BLOCK_P)
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (p < pixels)[:, None] & (c < channels)[None, :]
    wide_c = c.to(tl.int64)[None, :]
    if GROUPED:
        of_group = norms + (sample * groups + c // members)[None, :] * pixels
        norm = tl.load(of_group + p[:, None], mask=inside, other=1.0)
    else:
        norm = tl.load(norms + sample * pixels + p, mask=p < pixels, other=1.0)[:, None]
    kept_at = kept + sample * kept_n + _place(p, width, kept_h, kept_w, FLAT)[:, None] + wide_c * kept_c
    magnitude = tl.abs(tl.load(kept_at, mask=inside, other=0.0).to(tl.float32))
    gain = _gain(lengths, c, channels, UNIT)
    if FROM_OUTPUT:
        factor, _ = _aligned(magnitude * _inverse(norm), exponent, delta, POWER)
        factor *= gain
    else:
        factor = _power(magnitude * gain * _inverse(norm) + delta, exponent, POWER) * gain
    v_at = v + sample * v_n + _place(p, width, v_h, v_w, FLAT)[:, None] + wide_c * v_c
    out_at = out + sample * out_n + _place(p, width, out_h, out_w, FLAT)[:, None] + wide_c * out_c
    for _ in range(parts):
        value = tl.load(v_at, mask=inside, other=0.0).to(tl.float32)
        tl.store(out_at, (value * factor).to(out.dtype.element_ty), mask=inside)
        v_at += v_hop
        out_at += out_hop


@triton.jit
def scale_backward_kernel(
    grad_y, coefficients, grad, kept, norms, lengths,
    members, pixels, width, groups,
    out_n, out_c, out_h, out_w, grad_n, grad_c, grad_h, grad_w, kept_n, kept_c, kept_h, kept_w,
    exponent, delta,
    POWER: tl.constexpr, UNIT: tl.constexpr, FLAT: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The gradient of w·x, and per pixel and group the coefficient of that through the norm (mathematics §2)."""
    tiles = tl.cdiv(pixels, BLOCK_P)
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    group = tl.program_id(1)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    at = (sample * groups + group) * pixels + p
    inverse = _inverse(tl.load(norms + at, mask=p < pixels, other=1.0))
    out_at = grad_y + sample * out_n + _place(p, width, out_h, out_w, FLAT)
    grad_at = grad + sample * grad_n + _place(p, width, grad_h, grad_w, FLAT)
    kept_at = kept + sample * kept_n + _place(p, width, kept_h, kept_w, FLAT)
    total = tl.zeros([BLOCK_P], tl.float32)
    for start in range(0, members, BLOCK_C):
        member = start + tl.arange(0, BLOCK_C)
        unit = group * members + member
        c = unit.to(tl.int64)[None, :]
        inside = (p < pixels)[:, None] & (member < members)[None, :]
        output = tl.load(kept_at[:, None] + c * kept_c, mask=inside, other=0.0).to(tl.float32)
        upstream = tl.load(grad_at[:, None] + c * grad_c, mask=inside, other=0.0).to(tl.float32)
        gain = _gain(lengths, unit, (group + 1) * members, UNIT)
        s, ratio = _aligned(tl.abs(output) * inverse[:, None], exponent, delta, POWER)
        slope = upstream * s * (1.0 + exponent * ratio)
        tl.store(out_at[:, None] + c * out_c, (slope * gain).to(grad_y.dtype.element_ty), mask=inside)
        total += tl.sum(upstream * output * ratio, axis=1)
    tl.store(coefficients + at, -exponent * total * inverse * inverse, mask=p < pixels)


@triton.jit
def project_rows_kernel(grad, weight, lengths, columns, BLOCK: tl.constexpr):
    """Take from a row of grad what points along the row of the weight; a row without length is left alone."""
    row = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + row)
    inverse = tl.where(length == 0.0, 0.0, 1.0 / length)
    along = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        w = tl.load(weight + row * columns + column, mask=column < columns, other=0.0).to(tl.float32)
        g = tl.load(grad + row * columns + column, mask=column < columns, other=0.0).to(tl.float32)
        along += w * inverse * g
    share = tl.sum(along, axis=0) * inverse
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        w = tl.load(weight + row * columns + column, mask=column < columns, other=0.0).to(tl.float32)
        g = tl.load(grad + row * columns + column, mask=column < columns, other=0.0).to(tl.float32)
        tl.store(grad + row * columns + column, (g - share * w).to(grad.dtype.element_ty), mask=column < columns)


@triton.jit
def square_sums_kernel(
    sums, x, members, pixels, width, groups, x_n, x_c, x_h, x_w, eps,
    FINISH: tl.constexpr, FLAT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Per pixel and group the sum of squares over the group's channels; FINISH may make it a norm at once."""
    tiles = tl.cdiv(pixels, BLOCK_P)
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    group = tl.program_id(1)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    x_at = x + sample * x_n + _place(p, width, x_h, x_w, FLAT)
    total = tl.zeros([BLOCK_P], tl.float32)
    for start in range(0, members, BLOCK_C):
        member = start + tl.arange(0, BLOCK_C)
        c = (group * members + member).to(tl.int64)[None, :]
        inside = (p < pixels)[:, None] & (member < members)[None, :]
        value = tl.load(x_at[:, None] + c * x_c, mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(value * value, axis=1)
    if FINISH == "root of sum plus eps":
        total = tl.sqrt(total + eps)
    if FINISH == "root plus eps":
        total = tl.sqrt(total) + eps
    tl.store(sums + (sample * groups + group) * pixels + p, total, mask=p < pixels)


@triton.jit
def box_norm_kernel(
    norms, sums, height, width, out_height, out_width, top, left, eps,
    KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """``sqrt(sum over the window + eps)`` of each plane ``[height, width]`` of sums; outside it are zeros."""
    pixels = out_height * out_width
    tiles = tl.cdiv(pixels, BLOCK_P)
    plane = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    first_h, first_w = p // out_width * STRIDE_H - top, p % out_width * STRIDE_W - left
    total = tl.zeros([BLOCK_P], tl.float32)
    for i in range(KERNEL_H):
        h = first_h + i * DILATION_H
        for j in range(KERNEL_W):
            w = first_w + j * DILATION_W
            inside = (p < pixels) & (h >= 0) & (h < height) & (w >= 0) & (w < width)
            total += tl.load(sums + plane * height * width + h * width + w, mask=inside, other=0.0)
    tl.store(norms + plane * pixels + p, tl.sqrt(total + eps), mask=p < pixels)


@triton.jit
def spread_kernel(
    dx, x, coefficients,
    members, height, width, groups, out_height, out_width, top, left,
    dx_n, dx_c, dx_h, dx_w, x_n, x_c, x_h, x_w,
    KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, FLAT: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """``dx += x`` times the coefficients of all patches that hold the pixel (the adjoint of the box sum)."""
    pixels = height * width
    tiles = tl.cdiv(pixels, BLOCK_P)
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    group = tl.program_id(1)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    plane = coefficients + (sample * groups + group) * out_height * out_width
    last_h, last_w = p // width + top, p % width + left
    coefficient = tl.zeros([BLOCK_P], tl.float32)
    for i in range(KERNEL_H):
        h = last_h - i * DILATION_H
        fits_h = (h >= 0) & (h < out_height * STRIDE_H) & (h % STRIDE_H == 0)
        for j in range(KERNEL_W):
            w = last_w - j * DILATION_W
            inside = (p < pixels) & fits_h & (w >= 0) & (w < out_width * STRIDE_W) & (w % STRIDE_W == 0)
            coefficient += tl.load(plane + h // STRIDE_H * out_width + w // STRIDE_W, mask=inside, other=0.0)
    x_at = x + sample * x_n + _place(p, width, x_h, x_w, FLAT)
    dx_at = dx + sample * dx_n + _place(p, width, dx_h, dx_w, FLAT)
    for start in range(0, members, BLOCK_C):
        member = start + tl.arange(0, BLOCK_C)
        c = (group * members + member).to(tl.int64)[None, :]
        inside = (p < pixels)[:, None] & (member < members)[None, :]
        value = tl.load(x_at[:, None] + c * x_c, mask=inside, other=0.0).to(tl.float32)
        before = tl.load(dx_at[:, None] + c * dx_c, mask=inside, other=0.0).to(tl.float32)
        after = before + value * coefficient[:, None]
        tl.store(dx_at[:, None] + c * dx_c, after.to(dx.dtype.element_ty), mask=inside)
