"""The Triton kernels of the bias-free norms whose statistics are over the channels of each pixel.

``triton.py`` launches them. A program owns BLOCK_P pixels with all their channels. WHOLE: the channels fit one tile,
which is then read once; otherwise they are read once for every sum.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bcos_kernels.ops.epilogue.triton_kernels import _place


@triton.jit
def _tile(at, c, stride, inside):
    """A tile ``[pixels, channels]`` in fp32."""
    return tl.load(at[:, None] + c.to(tl.int64)[None, :] * stride, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def rows_kernel(
    out, x, mean, rstd, weight,
    channels, pixels, width, out_n, out_c, out_h, out_w, x_n, x_c, x_h, x_w, eps,
    ABOUT_MEAN: tl.constexpr, CENTRED: tl.constexpr, WEIGHT: tl.constexpr, WRITE: tl.constexpr,
    WHOLE: tl.constexpr, FLAT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Statistics of every pixel and, to WRITE, ``weight * (x - mean) * rstd``."""
    tiles = tl.cdiv(pixels, BLOCK_P)
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    known = p < pixels
    x_at = x + sample * x_n + _place(p, width, x_h, x_w, FLAT)
    out_at = out + sample * out_n + _place(p, width, out_h, out_w, FLAT)
    c = tl.arange(0, BLOCK_C)
    inside = known[:, None] & (c < channels)[None, :]
    center = tl.zeros([BLOCK_P], tl.float32)
    square = tl.zeros([BLOCK_P], tl.float32)
    if WHOLE:
        value = _tile(x_at, c, x_c, inside)
        if ABOUT_MEAN:
            center = tl.sum(value, axis=1) / channels
        distance = tl.where(inside, value - center[:, None], 0.0)
        square = tl.sum(distance * distance, axis=1)
    else:
        if ABOUT_MEAN:
            for start in range(0, channels, BLOCK_C):
                inside = known[:, None] & (start + c < channels)[None, :]
                center += tl.sum(_tile(x_at, start + c, x_c, inside), axis=1)
            center /= channels
        for start in range(0, channels, BLOCK_C):
            inside = known[:, None] & (start + c < channels)[None, :]
            distance = tl.where(inside, _tile(x_at, start + c, x_c, inside) - center[:, None], 0.0)
            square += tl.sum(distance * distance, axis=1)
    inverse = 1.0 / tl.sqrt(square / channels + eps)
    if ABOUT_MEAN:
        tl.store(mean + sample * pixels + p, center, mask=known)
    tl.store(rstd + sample * pixels + p, inverse, mask=known)
    if WRITE:
        for start in range(0, channels, BLOCK_C):
            unit = start + c
            inside = known[:, None] & (unit < channels)[None, :]
            if not WHOLE:
                value = _tile(x_at, unit, x_c, inside)
            result = value
            if CENTRED:
                result = value - center[:, None]
            result *= inverse[:, None]
            if WEIGHT:
                result *= tl.load(weight + unit, mask=unit < channels, other=0.0)[None, :]
            to = out_at[:, None] + unit.to(tl.int64)[None, :] * out_c
            tl.store(to, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def rows_gradient_kernel(
    dx, dw, grad, x, mean, rstd, weight,
    channels, pixels, width, tiles, steps,
    dx_n, dx_c, dx_h, dx_w, grad_n, grad_c, grad_h, grad_w, x_n, x_c, x_h, x_w,
    CENTRED: tl.constexpr, ABOUT_MEAN: tl.constexpr, HELD: tl.constexpr, WEIGHT: tl.constexpr,
    NEED_DX: tl.constexpr, NEED_DW: tl.constexpr,
    WHOLE: tl.constexpr, FLAT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The gradient of x, and each program's share of that of the weight, a row of dw that starts at zero."""
    c = tl.arange(0, BLOCK_C)
    shares = tl.zeros([BLOCK_C], tl.float32)
    own = dw + tl.program_id(0).to(tl.int64) * channels
    for step in range(0, steps):
        tile = step * tl.num_programs(0) + tl.program_id(0)
        across = tl.cdiv(pixels, BLOCK_P)
        sample = (tile // across).to(tl.int64)
        p = tile % across * BLOCK_P + tl.arange(0, BLOCK_P)
        known = p < tl.where(tile < tiles, pixels, 0)
        x_at = x + sample * x_n + _place(p, width, x_h, x_w, FLAT)
        grad_at = grad + sample * grad_n + _place(p, width, grad_h, grad_w, FLAT)
        dx_at = dx + sample * dx_n + _place(p, width, dx_h, dx_w, FLAT)
        inverse = tl.load(rstd + sample * pixels + p, mask=known, other=0.0)
        center = tl.zeros([BLOCK_P], tl.float32)
        if ABOUT_MEAN:
            center = tl.load(mean + sample * pixels + p, mask=known, other=0.0)
        base = tl.zeros([BLOCK_P], tl.float32)
        slope = tl.zeros([BLOCK_P], tl.float32)
        if NEED_DX:
            for start in range(0, channels, BLOCK_C):
                unit = start + c
                inside = known[:, None] & (unit < channels)[None, :]
                flow = _tile(grad_at, unit, grad_c, inside)
                if WEIGHT:
                    flow *= tl.load(weight + unit, mask=unit < channels, other=0.0)[None, :]
                base += tl.sum(flow, axis=1)
                value = _tile(x_at, unit, x_c, inside)
                if CENTRED:
                    value -= center[:, None]
                slope += tl.sum(flow * value, axis=1)
            base *= inverse / channels
            slope *= inverse * inverse * inverse / channels
        for start in range(0, channels, BLOCK_C):
            unit = start + c
            inside = known[:, None] & (unit < channels)[None, :]
            upstream = _tile(grad_at, unit, grad_c, inside)
            value = _tile(x_at, unit, x_c, inside)
            offset = value
            if ABOUT_MEAN:
                offset = value - center[:, None]
            if CENTRED:
                value = offset
            if NEED_DW:
                share = tl.sum(upstream * value * inverse[:, None], axis=0)
                if WHOLE:
                    shares += share
                else:
                    before = tl.load(own + unit, mask=unit < channels, other=0.0)
                    tl.store(own + unit, before + share, mask=unit < channels)
            if NEED_DX:
                flow = upstream * inverse[:, None]
                if WEIGHT:
                    flow *= tl.load(weight + unit, mask=unit < channels, other=0.0)[None, :]
                if CENTRED:
                    flow -= base[:, None]
                if not HELD:
                    flow -= slope[:, None] * offset
                to = dx_at[:, None] + unit.to(tl.int64)[None, :] * dx_c
                tl.store(to, flow.to(dx.dtype.element_ty), mask=inside)
    if NEED_DW and WHOLE:
        tl.store(own + c, shares, mask=c < channels)
