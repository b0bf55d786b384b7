"""The images that activate each latent most, which latents are alive, and which are activated most of all.

Revelio (Kim et al. 2025) ranks latents by their mean activation over the images on which they are active, among
latents that are active on more than ten images, and takes of each the ten images of highest activation. Its code
measures all of that on the pre-activations, before TopK: latents then count as active on images whose code does not
have them, and top images are padded with image 0. Here an activation is what the code holds, after TopK.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.features.latents.activations import Activations

IMAGES = 10
LATENTS = 1000


@dataclass(frozen=True)
class TopImages:
    """The ``count`` images of highest activation of each of n latents, and how active it is over all images.

    image: ``[n, count]`` int64, highest first and equals in the order of their numbers, -1 where a latent is active
    on fewer; value: ``[n, count]``, 0 there; place: ``[n, count]`` int64, where on the image (:class:`Activations`),
    -1 there; active: ``[n]`` int64, the number of images it is active on; mean: ``[n]`` float64, its mean activation
    over those, 0 for dead latents; images: how many images were read.
    """

    image: Tensor
    value: Tensor
    place: Tensor
    active: Tensor
    mean: Tensor
    images: int

    @property
    def alive(self) -> Tensor:
        """Which latents are active on any image: ``[n]`` bool."""
        return self.active > 0

    def strongest(self, count: int = LATENTS, more_than: int = IMAGES) -> Tensor:
        """The "most highly activating" latents: those of the highest mean activation, highest first.

        Among latents active on more than ``more_than`` images; equals in the order of their numbers. Returns int64
        ``[count]``, or fewer where there are not so many.
        """
        eligible = (self.active > more_than).nonzero().flatten()
        order = torch.argsort(self.mean[eligible], descending=True, stable=True)
        return eligible[order[:count]]


def top_images(batches: Iterable[Activations], count: int = IMAGES) -> TopImages:
    """Find the top images in one pass over a stream; memory does not grow with the number of images.

    Raises ValueError where there is no batch, or for a count below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    kept: Activations | None = None
    for batch in batches:
        if kept is None:
            active, total = batch.active, _sums(batch)
            kept = _highest(batch, count)
        else:
            active, total = active + batch.active, total + _sums(batch)
            kept = _highest(_merge(kept, batch), count)
    if kept is None:
        raise ValueError("there are no codes to read")
    mean = total / active.clamp(min=1)
    # Entries are in the order of latents, each with its highest first: the place in the table is its number there.
    ends = torch.cumsum(kept.active, 0)
    column = torch.arange(len(kept)) - (ends - kept.active)[kept.latent]
    shape = (kept.latents, count)
    image, place = torch.full(shape, -1), torch.full(shape, -1)
    value = kept.value.new_zeros(shape)
    image[kept.latent, column], value[kept.latent, column] = kept.image, kept.value
    place[kept.latent, column] = kept.place
    return TopImages(image, value, place, active, mean, kept.images)


def _sums(batch: Activations) -> Tensor:
    return torch.bincount(batch.latent, weights=batch.value.double(), minlength=batch.latents)


def _merge(kept: Activations, batch: Activations) -> Activations:
    parts = {n: torch.cat([getattr(kept, n), getattr(batch, n)]) for n in ("latent", "image", "value", "place")}
    return Activations(**parts, latents=kept.latents, images=max(kept.images, batch.images))


def _highest(entries: Activations, count: int) -> Activations:
    """The ``count`` highest entries of each latent: by latent, then falling value, then image."""
    order = torch.argsort(entries.image, stable=True)
    order = order[torch.argsort(entries.value[order], descending=True, stable=True)]
    order = order[torch.argsort(entries.latent[order], stable=True)]
    ordered = entries.keep(order)
    starts = torch.cumsum(ordered.active, 0) - ordered.active
    return ordered.keep(torch.arange(len(ordered)) - starts[ordered.latent] < count)
