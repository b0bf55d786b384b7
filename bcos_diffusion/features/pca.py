"""Three principal components of spatial features as colours, one fit over all images (Plug-and-Play, Revelio Fig. 11).

One fit makes colours mean the same in every image. Fits of other timesteps or layers are turned to one of them
(:meth:`PrincipalComponents.aligned`), since the sign and, of near equals, the order of components are free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

COMPONENTS = 3
RANGE = (0.01, 0.99)
"""The quantiles of a component over all images and places that become black and full colour."""

_AT_ONCE = 64


@dataclass(frozen=True)
class PrincipalComponents:
    """Directions of most variance of a layer's features, and the range of what they say.

    mean: ``[D]``; directions: ``[3, D]`` of unit length; explained: ``[3]``, the share of all variance along each; low,
    high: ``[3]``, scores that become 0 and 1 in colours. All float64 on the CPU.
    """

    mean: Tensor
    directions: Tensor
    explained: Tensor
    low: Tensor
    high: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Features ``[N, D, H, W]`` to how far each place lies along each component: float32 ``[N, 3, H, W]``.

        Raises ValueError for features of another width.
        """
        if features.ndim != 4 or features.shape[1] != len(self.mean):
            raise ValueError(f"features must be [N, {len(self.mean)}, H, W], got {list(features.shape)}")
        centred = features.detach().cpu().double() - self.mean[:, None, None]
        return torch.einsum("kd,ndhw->nkhw", self.directions, centred).float()

    def colours(self, features: Tensor) -> Tensor:
        """Features ``[N, D, H, W]`` to red, green and blue in [0, 1]: float32 ``[N, 3, H, W]``."""
        low, width = self.low[:, None, None], (self.high - self.low)[:, None, None]
        shown = (self.scores(features) - low) / torch.where(width > 0, width, 1)
        return torch.where(width > 0, shown, 0.5).clamp(0, 1).float()

    def aligned(self, own: Tensor, other: Tensor) -> PrincipalComponents:
        """These components in the order and with the signs that agree best with those of another fit.

        own, other: scores ``[N, 3, H, W]`` and ``[N, 3, H', W']`` of both fits on the same images; the finer is
        averaged to the coarser. Of all orders and signs, those of the largest sum of correlations. Raises ValueError
        for scores of other images.
        """
        order, signs = _agreement(own, other)
        low, high = self.low[order] * signs, self.high[order] * signs
        return replace(
            self, directions=self.directions[order] * signs[:, None], explained=self.explained[order],
            low=torch.minimum(low, high), high=torch.maximum(low, high),
        )  # fmt: skip


def fit_components(features: Tensor | Iterable[Tensor]) -> PrincipalComponents:
    """Fit three components to all places of all images.

    features: floats ``[N, D, H, W]``, or batches of them that can be read twice (a list, or an object that opens its
    shards anew in each ``iter``), of which one at a time is held: covariance in float64 first, then scores, for the
    range of the colours. A component points to where its largest weight is above 0 (of equals, the first). Raises
    ValueError for an iterator that can be read once only, for batches of other widths, values that are not finite, and
    fewer than two places.
    """
    if isinstance(features, Iterator):
        raise ValueError("features are read twice: give a list of batches or an object that can be iterated anew")
    moments = _Moments()
    for batch in _batches(features):
        moments.add(batch)
    mean, covariance = moments.result()
    directions, explained = _directions(mean, covariance)
    zeros = torch.zeros(COMPONENTS, dtype=torch.float64)
    unscaled = PrincipalComponents(mean, directions, explained, zeros, zeros)
    scores = torch.cat([unscaled.scores(batch).movedim(1, 0).flatten(1) for batch in _batches(features)], dim=1)
    low, high = torch.from_numpy(np.quantile(scores.numpy(), RANGE, axis=1))  # [2, 3]
    return replace(unscaled, low=low.double(), high=high.double())


def upsampled(colours: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps ``[N, C, h, w]`` at ``size`` (H, W), each place a square: what is between places the layer does not say."""
    return F.interpolate(colours, size, mode="nearest-exact")


class _Moments:
    """Mean and covariance of all that is added, in float64, one batch at a time (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | None = None
        self.scatter: Tensor | None = None

    def add(self, batch: Tensor) -> None:
        """batch: ``[n, D, H, W]``."""
        x = batch.movedim(1, -1).flatten(0, 2).double()  # [n H W, D]
        if not bool(x.sum().isfinite()) or not bool(x.isfinite().all()):
            raise ValueError("features have values that are not finite")
        mean = x.mean(0)
        centred = x - mean
        scatter, count = centred.T @ centred, len(x)
        if self.mean is None or self.scatter is None:
            self.count, self.mean, self.scatter = count, mean, scatter
            return
        if mean.shape != self.mean.shape:
            raise ValueError(f"batches must have {len(self.mean)} channels as the first, got {len(mean)}")
        whole, apart = self.count + count, mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(apart, apart) * (self.count * count / whole)
        self.mean = self.mean + apart * (count / whole)
        self.count = whole

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean ``[D]`` and covariance ``[D, D]``."""
        if self.mean is None or self.scatter is None or self.count < 2:
            raise ValueError(f"components need at least two places, got {self.count}")
        return self.mean, self.scatter / (self.count - 1)


def _batches(features: Tensor | Iterable[Tensor]) -> Iterator[Tensor]:
    """Checked batches ``[n, D, H, W]`` on the CPU."""
    for batch in features.split(_AT_ONCE) if isinstance(features, Tensor) else features:
        if batch.ndim != 4 or not batch.is_floating_point() or 0 in batch.shape:
            raise ValueError(f"features must be floats [N, D, H, W], got {batch.dtype} {list(batch.shape)}")
        yield batch.detach().cpu()


def _directions(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Directions ``[3, D]`` of most variance with their shares ``[3]``; zeros where nothing but rounding is left."""
    values, vectors = torch.linalg.eigh(covariance)
    values, directions = values.flip(0)[:COMPONENTS], vectors.flip(1).T[:COMPONENTS]
    rounding = max(float(values[0]) * 1e-14, float(mean @ mean) * 1e-20)
    varies = values > rounding
    values, directions = values * varies, directions * varies[:, None]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)
    total = covariance.trace() if bool(varies.any()) else torch.ones(())
    missing = COMPONENTS - len(values)  # of a layer with fewer channels than colours
    return F.pad(directions, (0, 0, 0, missing)), F.pad(values / total, (0, missing))


def _agreement(own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Which of ``own`` components is each of the ``other``'s, and its sign: int64 ``[3]`` and float64 ``[3]``."""
    if own.ndim != 4 or other.ndim != 4 or own.shape[:2] != other.shape[:2] or own.shape[1] != COMPONENTS:
        shapes = f"{list(own.shape)} and {list(other.shape)}"
        raise ValueError(f"scores must be [N, {COMPONENTS}, H, W] of the same images, got {shapes}")
    size = (min(own.shape[2], other.shape[2]), min(own.shape[3], other.shape[3]))
    first, second = (F.adaptive_avg_pool2d(s.double(), size).movedim(1, 0).flatten(1) for s in (own, other))
    first, second = (F.normalize(s - s.mean(1, keepdim=True), dim=1) for s in (first, second))
    correlation = first @ second.T  # [own, other]
    orders = list(permutations(range(COMPONENTS)))
    sums = [sum(abs(float(correlation[row, column])) for column, row in enumerate(order)) for order in orders]
    order = torch.tensor(orders[sums.index(max(sums))])
    matched = correlation[order, torch.arange(COMPONENTS)]
    return order, torch.where(matched < 0, -1.0, 1.0).double()
