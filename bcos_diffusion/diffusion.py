"""Forward process and DDIM in six channels (mathematics §4), as pure functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.encoding import pair_mean

T = 1000
MU = 0.5
SIGMA = 0.5
UPDATES = ("homogeneous", "standard")


def noise_schedule(steps: int = T, shift: float = 1.0) -> Tensor:
    """ᾱ ``[steps]`` of the "scaled linear" schedule of Stable Diffusion, float64 rounded to float32.

    shift: how many times more noise there is beside the image at every timestep. The mean over s × s pixels has s times
    less of it, so that a picture of s times the size with ``shift`` s is, seen coarsely, as noisy as the small one
    (Hoogeboom et al. 2023).
    """
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, steps, dtype=torch.float64) ** 2
    alpha_bar = torch.cumprod(1 - beta, 0)
    return (alpha_bar / (alpha_bar + (1 - alpha_bar) * shift**2)).float()


def paired_noise(shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """Gaussian noise ``[N, 6, H, W]`` whose channels 4-6 are minus channels 1-3, so that pairs keep their sum."""
    if len(shape) != 4 or shape[1] != 6:
        raise ValueError(f"shape must be [N, 6, H, W], got {list(shape)}")
    noise = torch.randn(shape[0], 3, *shape[2:], generator=generator)
    return torch.cat([noise, -noise], dim=1)


def add_noise(x_0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = √ᾱ·x_0 + (1−√ᾱ)·μ + √(1−ᾱ)·σ·ε. x_0, noise: ``[N, 6, H, W]``; t: ``[N]`` integers."""
    a = alpha_bar[t][:, None, None, None]
    return a.sqrt() * x_0 + (1 - a.sqrt()) * MU + (1 - a).sqrt() * SIGMA * noise


def ddim_timesteps(steps: int, total: int = T) -> list[int]:
    """The timesteps of a run, from ``total - 1`` downwards, evenly spaced. Raises ValueError outside [1, total]."""
    if not 1 <= steps <= total:
        raise ValueError(f"steps must be between 1 and {total}, got {steps}")
    return [round(total * (1 - i / steps)) - 1 for i in range(steps)]


def ddim_step(
    x_t: Tensor,
    x_hat: Tensor,
    alpha_bar: Tensor,
    alpha_bar_next: Tensor,
    update: str = "homogeneous",
    constant: Tensor | float = 1.0,
) -> Tensor:
    """One deterministic DDIM step (Eq. 13) from ᾱ to ᾱ' given a predicted x_0.

    ``update``: "standard" adds the constants of μ, scaled by ``constant`` (0 for a tangent);
    "homogeneous" writes μ as the pair-mean of the images themselves, and has no constant.
    """
    if update not in UPDATES:
        raise ValueError(f"update must be one of {UPDATES}, got {update!r}")
    a, b = alpha_bar.sqrt(), alpha_bar_next.sqrt()
    k = ((1 - alpha_bar_next) / (1 - alpha_bar)).sqrt()
    if update == "homogeneous":
        mean_hat, mean_t = pair_mean(x_hat), pair_mean(x_t)
        return b * x_hat + (1 - b) * mean_hat + k * (x_t - a * x_hat - (1 - a) * mean_t)
    return b * x_hat + (1 - b) * MU * constant + k * (x_t - a * x_hat - (1 - a) * MU * constant)


def predicted_x_0(
    predicted: Tensor,
    x_t: Tensor,
    alpha_bar: Tensor,
    predicts: str,
    update: str = "homogeneous",
    constant: Tensor | float = 1.0,
) -> Tensor:
    """x̂_0 from what a network predicts of x_t (Eq. 11): x_0 itself, or zero-mean unit-variance noise.

    predicted, x_t: ``[N, 6, H, W]``; alpha_bar: broadcasts against them. As in :func:`ddim_step`, ``update`` says
    whether μ is a constant, scaled by ``constant``, or the pair-mean of x_t.
    """
    if predicts == "x_0":
        return predicted
    mean = pair_mean(x_t) if update == "homogeneous" else MU * constant
    return (x_t - (1 - alpha_bar.sqrt()) * mean - (1 - alpha_bar).sqrt() * SIGMA * predicted) / alpha_bar.sqrt()


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance of a run. scale: 1 for none; unguided_below: at smaller timesteps there is none either.

    The last steps draw detail, where the gap between the two predictions is error more than meaning, and a scale above
    one enlarges it (Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval").
    """

    scale: float = 1.0
    unguided_below: int = 0

    def at(self, t: int) -> float:
        """The scale at a timestep."""
        return self.scale if t >= self.unguided_below else 1.0

    def to_dict(self) -> dict[str, float]:
        """As settings and results name it."""
        return {"guidance": self.scale, "unguided_below": self.unguided_below}


def guide(x_cond: Tensor, x_uncond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: linear in both predictions, so it is explained exactly."""
    return x_uncond + scale * (x_cond - x_uncond)


def ddim_path(alpha_bar: Tensor, steps: int) -> list[tuple[int, Tensor, Tensor]]:
    """The steps of a run over ``alpha_bar`` ``[T]``: timestep t, ᾱ_t, and the ᾱ' that the step leads to, 1 at last."""
    timesteps = ddim_timesteps(steps, len(alpha_bar))
    ends = [alpha_bar[t] for t in timesteps[1:]] + [alpha_bar.new_ones(())]
    return [(t, alpha_bar[t], end) for t, end in zip(timesteps, ends, strict=True)]


def sample(
    denoise: Callable[[Tensor, int], Tensor],
    x_T: Tensor,
    alpha_bar: Tensor,
    steps: int,
    update: str = "homogeneous",
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    constant: Tensor | float = 1.0,
) -> Tensor:
    """Run DDIM from ``x_T``; ``denoise(x_t, t)`` predicts x_0; ``callback(number, x_t, x_hat)`` after each step.

    constant: how much of the standard update's constants each part of ``x_T`` receives, as in :func:`ddim_step`.
    """
    x_t = x_T
    for number, (t, here, following) in enumerate(ddim_path(alpha_bar, steps)):
        x_hat = denoise(x_t, t)
        x_t = ddim_step(x_t, x_hat, here, following, update, constant)
        if callback is not None:
            callback(number, x_t, x_hat)
    return x_t
