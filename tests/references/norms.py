"""Bias-free norms and their gradients in float64 over explicit axes, and the magnitudes that enter them."""

import torch

KINDS = {"centred": (True, True), "deviation": (False, True), "rms": (False, False)}
"""Kind -> (the mean is subtracted, squares are about the mean)"""
EPS = 1e-3


def grouped(x, groups, per_pixel):
    """float64 ``[N, g, C / g, H, W]`` and the axes that statistics are over."""
    return x.double().reshape(x.shape[0], groups, -1, *x.shape[2:]), (2,) if per_pixel else (2, 3, 4)


def truth(x, weight, groups, centred, about_mean, per_pixel):
    """``out``, ``mean`` and ``rstd``, and the magnitudes that enter ``out``."""
    wide, axes = grouped(x, groups, per_pixel)
    mean = wide.mean(axes, keepdim=True)
    about = mean if about_mean else torch.zeros_like(mean)
    rstd = 1 / ((wide - about).pow(2).mean(axes, keepdim=True) + EPS).sqrt()
    gain = rstd * _per_channel(weight, wide)
    out = (wide - mean if centred else wide) * gain
    size = (wide.abs() + wide.abs().mean(axes, keepdim=True)) * gain.abs()
    return out.reshape(x.shape), mean.squeeze(axes), rstd.squeeze(axes), size.reshape(x.shape)


def gradients(grad, x, weight, groups, centred, about_mean, per_pixel, held):
    """dx and dw by autograd, and the magnitudes that enter each."""
    wide, axes = grouped(x, groups, per_pixel)
    wide.requires_grad_()
    factors = _per_channel(weight, wide).requires_grad_()
    mean = wide.mean(axes, keepdim=True)
    about = mean if about_mean else torch.zeros_like(mean)
    rstd = 1 / ((wide - about).pow(2).mean(axes, keepdim=True) + EPS).sqrt()
    out = (wide - mean if centred else wide) * (rstd.detach() if held else rstd) * factors
    upstream = grad.double().reshape(wide.shape)
    dx, dw = torch.autograd.grad(out, (wide, factors), upstream)
    with torch.no_grad():
        h, r, spread = (upstream * factors).abs(), rstd, wide.abs() + wide.abs().mean(axes, keepdim=True)
        share = (h * spread).mean(axes, keepdim=True)
        dx_size = r * (h + h.mean(axes, keepdim=True)) + r**3 * share * spread
        dw_size = (upstream.abs() * spread * r).sum((0, 3, 4))
    return dx.reshape(x.shape), dw.flatten(), dx_size.reshape(x.shape), dw_size.flatten()


def _per_channel(weight, wide):
    if weight is None:
        return wide.new_ones(*wide.shape[1:3], 1, 1)
    return weight.double().view(*wide.shape[1:3], 1, 1)
