"""Bias-free normalisation in pure torch: the truth that the kernels are compared with.

x is an image ``[N, C, H, W]``. Statistics are in the accumulation type (fp32 for half types, else that of x), either
``[N, g]``, over the channels of a group and all pixels, or ``[N, 1, H, W]``, over the channels of each pixel:

    out = weight * (x - mean) * rstd        mean = 0 unless centred
    rstd = 1 / sqrt(power + eps)            power = average of (x - mean)^2 if about_mean, else of x^2

Weights ``[C]`` are in the accumulation type, or None. What a function has nothing to say of comes back with no
elements: the mean where squares are about zero, a gradient that is not needed.
"""

from __future__ import annotations

from torch import Tensor

from bcos_kernels.ops.epilogue.reference import by_group, widen


def forward(
    x: Tensor, weight: Tensor | None, groups: int, eps: float, centred: bool, about_mean: bool, per_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """``out`` like x, ``mean`` and ``rstd``; differentiable."""
    mean, rstd = statistics(x, groups, eps, about_mean, per_pixel)
    return apply(x, weight, mean if centred else None, rstd), mean, rstd


def output(
    x: Tensor, weight: Tensor | None, groups: int, eps: float, centred: bool, about_mean: bool, per_pixel: bool
) -> Tensor:
    """``out`` alone."""
    return forward(x, weight, groups, eps, centred, about_mean, per_pixel)[0]


def statistics(x: Tensor, groups: int, eps: float, about_mean: bool, per_pixel: bool) -> tuple[Tensor, Tensor]:
    """``mean`` and ``rstd`` of x; differentiable."""
    wide = by_group(widen(x), groups)  # [N, g, C / g, H, W]
    axes = _axes(per_pixel)
    mean = wide.mean(axes, keepdim=True) if about_mean else wide.new_zeros(())
    rstd = ((wide - mean).square().mean(axes) + eps).rsqrt()
    return mean.squeeze(axes) if about_mean else wide.new_empty(0), rstd


def apply(x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor) -> Tensor:
    """``weight * (x - mean) * rstd`` like x, of given statistics; differentiable."""
    out = by_group(widen(x), rstd.shape[1])
    if mean is not None:
        out = out - _over(mean)
    out = out * _over(rstd)
    if weight is not None:
        out = out * _per_channel(weight, out)
    return out.reshape(x.shape).to(x.dtype)


def backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor,
    centred: bool, about_mean: bool, held: bool, need_dx: bool, need_dw: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of x, like it, and of the weight ``[C]``; ``held``: rstd is a constant.

    With h the gradient times the weight, averages and sums over the axes of the statistics, and count their size,
    ``dx = rstd (h - average(h)) - rstd^3 sum(h (x - mean)) / count * (x - mean)``: the first average where centred,
    the first mean too, the last where about_mean, the whole second term where not held.
    """
    wide, upstream = by_group(widen(x), rstd.shape[1]), by_group(widen(grad), rstd.shape[1])
    axes, r = _axes(rstd.ndim == 4), _over(rstd)
    offset = wide if mean is None else wide - _over(mean)
    value = offset if centred else wide
    dx = dw = wide.new_empty(0)
    if need_dw:
        dw = (upstream * value * r).sum((0, 3, 4)).reshape(-1)  # legacy vmap knows reshape, not flatten
    if need_dx:
        h = upstream if weight is None else upstream * _per_channel(weight, upstream)
        slope = (h * value).mean(axes, keepdim=True) * r.pow(3)
        flat = h - h.mean(axes, keepdim=True) if centred else h
        dx = (flat * r if held else flat * r - slope * (offset if about_mean else wide)).reshape(x.shape).to(x.dtype)
    return dx, dw


def track(
    running_mean: Tensor | None, running_power: Tensor, mean: Tensor, rstd: Tensor,
    eps: float, share: float, gain: float,
) -> None:  # fmt: skip
    """Move running statistics ``[C]``, in place, by a share of the way to those of a batch ``[1, C]``.

    running_power averages ``gain`` times the power that rstd was made of; running_mean is None where none is kept.
    """
    power = (rstd[0].square().reciprocal() - eps).clamp(min=0) * gain
    running_power.lerp_(power.to(running_power.dtype), share)
    if running_mean is not None:
        running_mean.lerp_(mean[0].to(running_mean.dtype), share)


def jvp(
    x_t: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor, centred: bool
) -> Tensor:  # fmt: skip
    """The tangent of ``out`` along x_t, with the statistics moving along; like x."""
    wide, moved = by_group(widen(x), rstd.shape[1]), by_group(widen(x_t), rstd.shape[1])
    axes, r = _axes(rstd.ndim == 4), _over(rstd)
    offset = wide if mean is None else wide - _over(mean)
    growth = (offset * moved).mean(axes, keepdim=True) * r.square()
    if centred:
        moved = moved - moved.mean(axes, keepdim=True)
    out = (moved - (offset if centred else wide) * growth) * r
    if weight is not None:
        out = out * _per_channel(weight, out)
    return out.reshape(x.shape).to(x.dtype)


def _axes(per_pixel: bool) -> tuple[int, ...]:
    """Of ``[N, g, C / g, H, W]``, what statistics are over."""
    return (2,) if per_pixel else (2, 3, 4)


def _over(statistic: Tensor) -> Tensor:
    """A statistic as it broadcasts against ``[N, g, C / g, H, W]``."""
    return statistic[:, :, None] if statistic.ndim == 4 else statistic[:, :, None, None, None]


def _per_channel(weight: Tensor, grouped: Tensor) -> Tensor:
    return weight.view(grouped.shape[1], grouped.shape[2], 1, 1)
