"""How well a k-sparse autoencoder stands for features: error, sparsity, and latents that are never used."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.features.sae.autoencoder import KSparseAutoencoder
from bcos_diffusion.features.sae.source import Features, batches, check


@dataclass(frozen=True)
class Metrics:
    """Over a set of features x with reconstructions x̂; everything after TopK and ReLU.

    ``normalised_mse``: ``Σ‖x̂ - x‖² / Σ‖x - x̄‖²``, 1 for the mean of the set (Gao et al. 2024, §2.1);
    ``explained_variance``: ``1 - Var(x - x̂) / Var(x)``, variances summed over dimensions, so 1 - normalised_mse is at
    most it; ``l0``: mean number of active latents of a sample; ``dead_share``: share of latents active in none.
    """

    normalised_mse: float
    explained_variance: float
    l0: float
    dead_share: float


@torch.no_grad()
def evaluate(autoencoder: KSparseAutoencoder, features: Features, batch_size: int = 4096) -> Metrics:
    """Measure an autoencoder on features ``[N, D]``, N of 2 at least, a batch at a time. Raises ValueError."""
    check(features)
    used = torch.zeros(autoencoder.latents, dtype=torch.bool, device=autoencoder.decoder.device)
    inputs, residuals, active = Spread(autoencoder.pre_bias), Spread(torch.zeros_like(autoencoder.pre_bias)), 0
    for x in batches(features, batch_size, autoencoder.decoder.dtype, autoencoder.decoder.device):
        values, indices = autoencoder.encode(x)
        used[indices[values > 0]] = True
        active += int((values > 0).sum())
        inputs.add(x)
        residuals.add(x - autoencoder.decode(values, indices))
    variance = inputs.variance()
    if variance <= 0:
        raise ValueError("all features are the same: their variance is 0, and no share of it can be explained")
    return Metrics(
        normalised_mse=residuals.squares / residuals.count / variance,
        explained_variance=1 - residuals.variance() / variance,
        l0=active / len(features),
        dead_share=1 - float(used.double().mean()),
    )


class Spread:
    """Sums in float64 of what is added, less a point near its mean, so that a large mean costs no digits."""

    def __init__(self, near: Tensor):
        self.near = near.double()
        self.total = torch.zeros_like(self.near)
        self.squares, self.count = 0.0, 0

    def add(self, x: Tensor) -> None:
        """Take in rows ``[B, D]``."""
        moved = x.double() - self.near
        self.total += moved.sum(0)
        self.squares += float(moved.square().sum())
        self.count += len(x)

    def variance(self) -> float:
        """Mean squared distance from the mean."""
        return self.squares / self.count - float((self.total / self.count).square().sum())
