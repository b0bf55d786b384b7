"""The B-cos epilogue in pure torch: the truth that the kernels are compared with.

Every function is differentiable. Norms and sums are taken in fp32 for half types and in the input's own
type otherwise (the accumulation type).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


def widen(x: Tensor) -> Tensor:
    """x in the accumulation type: fp32 for half types, else its own."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def row_norm(x: Tensor, eps: float) -> Tensor:
    """``sqrt(sum of squares) + eps`` of each row: x ``[R, D]`` -> ``[R]``."""
    return torch.linalg.vector_norm(widen(x), dim=1) + eps


def patch_norm(
    x: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int, eps: float
) -> Tensor:
    """``sqrt(sum of squares in the patch + eps)``: x ``[N, C, H, W]`` -> ``[N, groups, P, Q]``.

    Pairs are (height, width); padding is zeros at (top, bottom, left, right).
    """
    energy = by_group(widen(x).square(), groups).sum(2)  # [N, g, H, W]
    return (box_sum(energy, kernel, stride, padding, dilation) + eps).sqrt()


def by_group(x: Tensor, groups: int) -> Tensor:
    """``[N, C, H, W]`` as ``[N, g, C / g, H, W]``."""
    return x.view(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])  # legacy vmap knows view, not unflatten


def box_sum(energy: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair) -> Tensor:
    """Sum ``[N, g, H, W]`` over each patch, one direction after the other: ``[N, g, P, Q]``."""
    top, bottom, left, right = padding
    energy = F.pad(energy, (left, right, top, bottom))
    for dim, size, step, gap in zip((2, 3), kernel, stride, dilation, strict=True):
        count = (energy.shape[dim] - gap * (size - 1) - 1) // step + 1
        ends = [i * gap + (count - 1) * step + 1 for i in range(size)]
        windows = [_every(energy, dim, i * gap, end, step) for i, end in enumerate(ends)]
        energy = torch.stack(windows).sum(0) if size > 1 else windows[0]
    return energy


def _every(x: Tensor, dim: int, start: int, end: int, step: int) -> Tensor:
    return x[:, :, start:end:step] if dim == 2 else x[:, :, :, start:end:step]


def cosine(y: Tensor, n: Tensor) -> Tensor:
    """``|y| / n``; 0 above a norm of 0, where y is 0 too."""
    return widen(y).abs() * per_unit(n.masked_fill(n == 0, 1).reciprocal(), y)


def factor(y: Tensor, n: Tensor, b: float, delta: float) -> Tensor:
    """``(|y| / n + delta) ** (b - 1)``, the scale s of mathematics §1, in the accumulation type.

    y: ``[N, O, P, Q]`` with n ``[N, g, P, Q]``, or ``[R, O]`` with ``[R]``. b = 2 takes delta as 0.
    """
    u = cosine(y, n)
    return u if b == 2 else (u + delta) ** 0.5 if b == 1.5 else (u + delta) ** (b - 1)


def per_unit(n: Tensor, y: Tensor) -> Tensor:
    """Repeat what belongs to a pixel and group for each unit of the group, to broadcast against y."""
    if y.ndim == 2:
        return n[:, None]
    return n if n.shape[1] == 1 else n.repeat_interleave(y.shape[1] // n.shape[1], dim=1)


def gains(lengths: Tensor | None, y: Tensor) -> Tensor | float:
    """``1 / ‖w‖`` per unit, to broadcast against y; 1 for a unit without length, and where there are no lengths."""
    if lengths is None:
        return 1.0
    return lengths.masked_fill(lengths == 0, 1).reciprocal().view(-1, *[1] * (y.ndim - 2))


def scale(w_x: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float) -> Tensor:
    """``y * (|y| / n + delta) ** (b - 1)`` of ``y = w_x / lengths``, like w_x; 0 where w_x is 0."""
    y = widen(w_x) * gains(lengths, w_x)
    return (y * factor(y, n, b, delta)).to(w_x.dtype)


def apply_factor(
    v: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float, out: Tensor | None = None
) -> Tensor:
    """``v / lengths`` times the factor of the output ``kept``, which all parts of v ``[S * N, ...]`` share."""
    found = apply_to_parts(v, gains(lengths, kept) * factor_of_kept(kept, n, b, delta))
    return found if out is None else out.copy_(found)


def apply_to_parts(v: Tensor, s: Tensor) -> Tensor:
    """``v * s`` like v, where the parts of v ``[S * N, ...]`` share s ``[N, ...]``."""
    if len(v) == len(s):
        return (widen(v) * s).to(v.dtype)
    return (widen(v).unflatten(0, (-1, len(s))) * s).flatten(0, 1).to(v.dtype)


def factor_of_kept(kept: Tensor, n: Tensor, b: float, delta: float) -> Tensor:
    """:func:`factor` from the output that a forward pass keeps."""
    return aligned(kept, n, b, delta)[0]


def aligned(out: Tensor, n: Tensor, b: float, delta: float) -> tuple[Tensor, Tensor]:
    """``s = (u + delta) ** (b - 1)`` and ``u / (u + delta)`` of ``u = |y| / n``, from the output ``y * s`` alone.

    With ``t = |out| / n``, ``v = u + delta`` solves ``(v - delta) v^(b-1) = t``. It lies between
    ``max(t^(1/b), delta)`` and delta more: the start is within 3% of it, and of an error Chebyshev's step leaves the
    third power.
    """
    t = cosine(out, n)
    if b == 2:
        return t.sqrt(), torch.ones_like(t)
    p, crossing, zero = b - 1, delta**b, t == 0
    known = t.masked_fill(zero, 1)
    base = (known ** (1 / b)).clamp(min=delta)
    share = delta / base
    r = torch.minimum(share, known / crossing) if crossing > 0 else share
    v = base * (1 + r / (1 + p * (1 - share + 0.55 * r)))
    for _ in range(4 if t.dtype == torch.float64 else 2):
        s, u = v.sqrt() if b == 1.5 else v**p, v - delta
        slope = v + p * u
        off = (u - known / s) / slope
        change = -off * (1 + off * p * (v + (p - 1) / 2 * u) / slope)
        v = v * (1 + change)
    s = s * (1 + p * change * (1 + (p - 1) / 2 * change))  # follows the last step by its series
    return s.masked_fill(zero, delta**p), (known / (s * v)).masked_fill(zero, 0)


def scale_backward(
    grad: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float
) -> tuple[Tensor, Tensor]:
    """Gradient of ``w·x``, like kept, and coefficients c, like n, of the gradient through the norm (mathematics §2)."""
    s, ratio = aligned(kept, n, b, delta)
    grad_y = (widen(grad) * s * (1 + (b - 1) * ratio) * gains(lengths, kept)).to(kept.dtype)
    shares = widen(grad) * widen(kept) * ratio
    total = shares.sum(1) if kept.ndim == 2 else by_group(shares, n.shape[1]).sum(2)
    return grad_y, -(b - 1) * total / n.masked_fill(n == 0, 1).square()


def project_rows(grad: Tensor, weight: Tensor, lengths: Tensor) -> None:
    """Take from each row of grad, in place, what points along the weight (mathematics §2); both ``[O, ...]``."""
    unit = widen(weight).reshape(len(weight), -1) / lengths.masked_fill(lengths == 0, torch.inf)[:, None]
    along = (unit * widen(grad).reshape(unit.shape)).sum(1, keepdim=True)
    grad.sub_((along * unit).view_as(grad).to(grad.dtype))


def spread(
    dx: Tensor, x: Tensor, c: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """Add to dx, in place, x times the coefficients c ``[N, groups, P, Q]`` of all patches that hold the pixel."""
    pixels = box_spread(c, (x.shape[2], x.shape[3]), kernel, stride, padding, dilation)  # [N, g, H, W]
    shares = by_group(widen(x), groups) * pixels[:, :, None]
    dx.add_(shares.reshape(x.shape).to(dx.dtype))


def box_spread(c: Tensor, size: Pair, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair) -> Tensor:
    """The adjoint of :func:`box_sum`: ``[N, g, P, Q]`` -> ``[N, g, H, W]``."""
    top, bottom, left, right = padding
    for dim, length, taps, step, gap in zip(
        (3, 2),
        (size[1] + left + right, size[0] + top + bottom),
        kernel[::-1],
        stride[::-1],
        dilation[::-1],
        strict=True,
    ):
        shape = list(c.shape)
        shape[dim] = length
        spread_out = c.new_zeros(shape)
        for i in range(taps):
            end = i * gap + (c.shape[dim] - 1) * step + 1
            _every(spread_out, dim, i * gap, end, step).add_(c)
        c = spread_out
    return c[:, :, top : top + size[0], left : left + size[1]]


def spread_rows(dx: Tensor, x: Tensor, c: Tensor) -> None:
    """Add ``x * c[:, None]`` to dx in place: dx, x ``[R, D]``, c ``[R]``."""
    dx.add_((widen(x) * c[:, None]).to(dx.dtype))


def response(kept: Tensor, n: Tensor, b: float, delta: float) -> Tensor:
    """``y`` from the output ``y * s`` that a forward pass keeps, in the accumulation type."""
    s = factor_of_kept(kept, n, b, delta)
    return widen(kept) / s.masked_fill(s == 0, 1)


def scale_jvp(y_t: Tensor, n_t: Tensor | None, kept: Tensor, n: Tensor, b: float, delta: float, held: bool) -> Tensor:
    """The tangent of the output ``kept`` along (y_t, n_t), in the type of y_t; ``held``: the factor is a constant."""
    s, ratio = aligned(kept, n, b, delta)
    if held:
        return y_t * s
    out_t = y_t * s * (1 + (b - 1) * ratio)
    if n_t is not None:
        out_t = out_t - widen(kept) * (b - 1) * ratio * per_unit(n_t / n, kept)
    return out_t
