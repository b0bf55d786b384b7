"""How pure latents are: do the images that activate one most have one label? (Revelio, Section 4.2)"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.features.latents.activations import Activations
from bcos_diffusion.features.latents.top import IMAGES, LATENTS, top_images

SHUFFLES = 20


@dataclass(frozen=True)
class Measures:
    """Of the labels of latents' top images, a mean over latents.

    sigma: standard deviation of the class numbers, as the paper defines it: its value depends on how classes are
    numbered, and on how many there are; majority: share of the most frequent class; entropy: in bits, of the shares
    of the classes. The last two do not depend on numbers.
    """

    sigma: float
    majority: float
    entropy: float


@dataclass(frozen=True)
class Purity:
    """Label purity of a dictionary, and the same with labels shuffled over the images, which is chance.

    mean: over latents, where ``mean.sigma`` is the paper's σ_label, lower is purer; chance: the mean of it over
    shuffles; spread: its standard deviation over shuffles; latents: ``[n]`` int64, those that were measured, by
    falling mean activation: fewer than asked for where fewer are active on enough images, and with none of them all
    is NaN; by_latent: their own measures, ``[n, 3]`` float64, in the order of :class:`Measures`.
    """

    mean: Measures
    chance: Measures
    spread: Measures
    latents: Tensor
    by_latent: Tensor

    def to_dict(self) -> dict[str, Any]:
        """The means as JSON-ready values, and of how many latents they are."""
        parts = {name: asdict(getattr(self, name)) for name in ("mean", "chance", "spread")}
        return {**parts, "latents": len(self.latents)}


def label_purity(
    activations: Activations,
    labels: Tensor,
    latents: int = LATENTS,
    images: int = IMAGES,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> Purity:
    """Measure the labels of the top ``images`` images of the ``latents`` most highly activating latents.

    labels: int64 ``[activations.images]``, -1 for images that have none: they are left out as if they had never been
    seen. The standard deviation is that of the sample (divided by ``images - 1``), as in the paper's code, which calls
    ``torch.std``; which latents are the most highly activating is said in :meth:`TopImages.strongest`, with more than
    ``images`` images as the least. Raises ValueError for labels that do not fit.
    """
    check_labels(labels, activations.images)
    if images < 2 or shuffles < 1:
        raise ValueError(f"images must be at least 2 and shuffles at least 1, got {images} and {shuffles}")
    labelled = labels >= 0
    top = top_images([activations.among(labelled)], images)
    chosen = top.strongest(latents, more_than=images)
    seen = top.image[chosen]  # [n, images]
    found = _measures(labels[seen])
    generator = torch.Generator().manual_seed(seed)
    known = labels[labelled]
    rounds = []
    for _ in range(shuffles):
        shuffled = labels.clone()
        shuffled[labelled] = known[torch.randperm(len(known), generator=generator)]
        rounds.append(_measures(shuffled[seen]).mean(0))
    by_chance = torch.stack(rounds)  # [shuffles, 3]
    averages = (found.mean(0), by_chance.mean(0), by_chance.std(0, correction=0))
    mean, chance, spread = (Measures(*average.tolist()) for average in averages)
    return Purity(mean, chance, spread, chosen, found)


def check_labels(labels: Tensor, images: int) -> None:
    """Raise ValueError for anything but one class number an image, -1 where there is none."""
    if labels.shape != (images,) or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 [{images}], one an image, got {labels.dtype} {list(labels.shape)}")
    if images and int(labels.min()) < -1:
        raise ValueError(f"labels must be class numbers from 0 on, or -1 for none, got {int(labels.min())}")


def _measures(classes: Tensor) -> Tensor:
    """Of class numbers ``[n, images]``: ``[n, 3]`` float64."""
    table = torch.zeros(len(classes), int(classes.max()) + 1 if classes.numel() else 1, dtype=torch.float64)
    table.scatter_add_(1, classes, torch.ones(classes.shape, dtype=torch.float64))
    shares = table / classes.shape[1]
    entropy = torch.special.entr(shares).sum(1) / math.log(2)
    numbers = classes.double()
    variance = (numbers - numbers.mean(1, keepdim=True)).pow(2).sum(1) / (classes.shape[1] - 1)
    return torch.stack([variance.sqrt(), shares.amax(1), entropy], dim=1)
