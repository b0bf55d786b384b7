"""The Triton kernels of the bias-free norms whose statistics are over groups of channels and all pixels.

``triton.py`` launches them; those whose statistics are per pixel are in ``triton_row_kernels.py``. Sums over pixels go
in two steps, per channel and split of the pixels, ``[N, C, splits]``, and then per group, so that any layout is read in
the order of memory and few groups still give every multiprocessor work. All arithmetic is fp32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bcos_kernels.ops.epilogue.triton_kernels import _place


@triton.jit
def moments_kernel(
    means, squares, x, channels, pixels, width, splits, span, x_n, x_c, x_h, x_w,
    ABOUT_MEAN: tl.constexpr, FLAT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Per channel and split of ``span`` pixels, the mean and the sum of squares about it, or about zero.

    Tiles are joined by their means, so that no large sums are subtracted from one another.
    """
    sample = (tl.program_id(0) // splits).to(tl.int64)
    split = tl.program_id(0) % splits
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = split * span
    last = tl.minimum(first + span, pixels)
    x_at = x + sample * x_n + c.to(tl.int64)[None, :] * x_c
    mean = tl.zeros([BLOCK_C], tl.float32)
    square = tl.zeros([BLOCK_C], tl.float32)
    before = tl.zeros([BLOCK_C], tl.float32)
    for start in range(first, last, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (p < last)[:, None] & (c < channels)[None, :]
        value = tl.load(x_at + _place(p, width, x_h, x_w, FLAT)[:, None], mask=inside, other=0.0).to(tl.float32)
        if ABOUT_MEAN:
            count = tl.sum((p < last).to(tl.float32), axis=0)
            part = tl.sum(value, axis=0) / count
            value = tl.where(inside, value - part[None, :], 0.0)
            apart = part - mean
            share = count / (before + count)
            mean += apart * share
            square += apart * apart * (before * share)
            before += count
        square += tl.sum(value * value, axis=0)
    at = (sample * channels + c) * splits + split
    if ABOUT_MEAN:
        tl.store(means + at, mean, mask=c < channels)
    tl.store(squares + at, square, mask=c < channels)


@triton.jit
def finish_moments_kernel(
    mean, rstd, means, squares, members, pixels, splits, span, eps, ABOUT_MEAN: tl.constexpr, BLOCK: tl.constexpr
):
    """The statistics of a group from those of its channels and splits, which follow one another."""
    group = tl.program_id(0).to(tl.int64)
    parts = members * splits
    center = tl.zeros([BLOCK], tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    size = 1.0 * members * pixels
    if ABOUT_MEAN:
        for start in range(0, parts, BLOCK):
            part = start + tl.arange(0, BLOCK)
            share = tl.minimum(span, pixels - part % splits * span).to(tl.float32) / size
            center += share * tl.load(means + group * parts + part, mask=part < parts, other=0.0)
    middle = tl.sum(center, axis=0)
    for start in range(0, parts, BLOCK):
        part = start + tl.arange(0, BLOCK)
        total += tl.load(squares + group * parts + part, mask=part < parts, other=0.0)
        if ABOUT_MEAN:
            count = tl.minimum(span, pixels - part % splits * span).to(tl.float32)
            apart = tl.load(means + group * parts + part, mask=part < parts, other=0.0) - middle
            total += tl.where(part < parts, count * apart * apart, 0.0)
    if ABOUT_MEAN:
        tl.store(mean + group, middle)
    tl.store(rstd + group, 1.0 / tl.sqrt(tl.sum(total, axis=0) / size + eps))


@triton.jit
def normalise_kernel(
    out, x, mean, rstd, weight,
    channels, members, pixels, width, groups, out_n, out_c, out_h, out_w, x_n, x_c, x_h, x_w,
    CENTRED: tl.constexpr, WEIGHT: tl.constexpr, PER_PIXEL: tl.constexpr, FLAT: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """``weight * (x - mean) * rstd`` of given statistics."""
    tiles = tl.cdiv(pixels, BLOCK_P)
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    wide_c = c.to(tl.int64)[None, :]
    inside = (p < pixels)[:, None] & (c < channels)[None, :]
    if PER_PIXEL:
        at, known = (sample * pixels + p)[:, None], (p < pixels)[:, None]
    else:
        at, known = (sample * groups + c // members)[None, :], (c < channels)[None, :]
    gain = tl.load(rstd + at, mask=known, other=0.0)
    if WEIGHT:
        gain = gain * tl.load(weight + c, mask=c < channels, other=0.0)[None, :]
    x_at = x + sample * x_n + _place(p, width, x_h, x_w, FLAT)[:, None] + wide_c * x_c
    value = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
    if CENTRED:
        value -= tl.load(mean + at, mask=known, other=0.0)
    out_at = out + sample * out_n + _place(p, width, out_h, out_w, FLAT)[:, None] + wide_c * out_c
    tl.store(out_at, (value * gain).to(out.dtype.element_ty), mask=inside)


@triton.jit
def gradient_sums_kernel(
    plain, along, grad, x, mean,
    channels, members, pixels, width, groups, splits, span, grad_n, grad_c, grad_h, grad_w, x_n, x_c, x_h, x_w,
    CENTRED: tl.constexpr, FLAT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Per channel and split the sums of grad and of ``grad * (x - mean)``, of ``grad * x`` where not centred."""
    sample = (tl.program_id(0) // splits).to(tl.int64)
    split = tl.program_id(0) % splits
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    wide_c = c.to(tl.int64)[None, :]
    last = tl.minimum(split * span + span, pixels)
    center = tl.zeros([BLOCK_C], tl.float32)
    if CENTRED:
        center = tl.load(mean + sample * groups + c // members, mask=c < channels, other=0.0)
    first_sum = tl.zeros([BLOCK_C], tl.float32)
    second_sum = tl.zeros([BLOCK_C], tl.float32)
    for start in range(split * span, last, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (p < last)[:, None] & (c < channels)[None, :]
        x_at = x + sample * x_n + _place(p, width, x_h, x_w, FLAT)[:, None] + wide_c * x_c
        grad_at = grad + sample * grad_n + _place(p, width, grad_h, grad_w, FLAT)[:, None] + wide_c * grad_c
        value = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
        upstream = tl.load(grad_at, mask=inside, other=0.0).to(tl.float32)
        first_sum += tl.sum(upstream, axis=0)
        second_sum += tl.sum(upstream * (value - center[None, :]), axis=0)
    at = (sample * channels + c) * splits + split
    tl.store(plain + at, first_sum, mask=c < channels)
    tl.store(along + at, second_sum, mask=c < channels)


@triton.jit
def finish_gradient_sums_kernel(
    base, slope, plain, along, rstd, weight, members, pixels, splits, groups,
    CENTRED: tl.constexpr, HELD: tl.constexpr, WEIGHT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Per group what ``dx = grad * weight * rstd - base - slope * (x - mean)`` takes away."""
    at = tl.program_id(0).to(tl.int64)
    parts = members * splits
    first_sum = tl.zeros([BLOCK], tl.float32)
    second_sum = tl.zeros([BLOCK], tl.float32)
    for start in range(0, parts, BLOCK):
        part = start + tl.arange(0, BLOCK)
        inside = part < parts
        factor = 1.0
        if WEIGHT:
            factor = tl.load(weight + at % groups * members + part // splits, mask=inside, other=0.0)
        first_sum += factor * tl.load(plain + at * parts + part, mask=inside, other=0.0)
        second_sum += factor * tl.load(along + at * parts + part, mask=inside, other=0.0)
    inverse = tl.load(rstd + at)
    size = 1.0 * members * pixels
    if CENTRED:
        tl.store(base + at, inverse * tl.sum(first_sum, axis=0) / size)
    if not HELD:
        tl.store(slope + at, inverse * inverse * inverse * tl.sum(second_sum, axis=0) / size)


@triton.jit
def gradient_kernel(
    dx, grad, x, mean, rstd, weight, base, slope,
    channels, members, pixels, width, groups,
    dx_n, dx_c, dx_h, dx_w, grad_n, grad_c, grad_h, grad_w, x_n, x_c, x_h, x_w,
    CENTRED: tl.constexpr, ABOUT_MEAN: tl.constexpr, HELD: tl.constexpr, WEIGHT: tl.constexpr, FLAT: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """``dx = grad * weight * rstd - base - slope * (x - mean)``."""
    tiles = tl.cdiv(pixels, BLOCK_P)
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    wide_c = c.to(tl.int64)[None, :]
    inside = (p < pixels)[:, None] & (c < channels)[None, :]
    at = sample * groups + c // members
    gain = tl.load(rstd + at, mask=c < channels, other=0.0)
    if WEIGHT:
        gain *= tl.load(weight + c, mask=c < channels, other=0.0)
    grad_at = grad + sample * grad_n + _place(p, width, grad_h, grad_w, FLAT)[:, None] + wide_c * grad_c
    flow = tl.load(grad_at, mask=inside, other=0.0).to(tl.float32) * gain[None, :]
    if CENTRED:
        flow -= tl.load(base + at, mask=c < channels, other=0.0)[None, :]
    if not HELD:
        x_at = x + sample * x_n + _place(p, width, x_h, x_w, FLAT)[:, None] + wide_c * x_c
        value = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
        if ABOUT_MEAN:
            value -= tl.load(mean + at, mask=c < channels, other=0.0)[None, :]
        flow -= value * tl.load(slope + at, mask=c < channels, other=0.0)[None, :]
    dx_at = dx + sample * dx_n + _place(p, width, dx_h, dx_w, FLAT)[:, None] + wide_c * dx_c
    tl.store(dx_at, flow.to(dx.dtype.element_ty), mask=inside)
