"""Which latents are shown of an autoencoder: the purest of each factor, and the strongest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from bcos_diffusion.features.latents.activations import Activations
from bcos_diffusion.features.latents.purity import label_purity
from bcos_diffusion.features.latents.top import TopImages, top_images
from bcos_diffusion.features.sae import KSparseAutoencoder
from bcos_diffusion.features.sweep.measure import activations_of
from bcos_diffusion.features.sweep.plan import Cell
from bcos_diffusion.features.sweep.run import Work

STRONGEST = 2


@dataclass(frozen=True)
class Chosen:
    """A cell's autoencoder with its latents' top images. latents: which are shown, by what they are shown as."""

    cell: Cell
    autoencoder: KSparseAutoencoder
    top: TopImages
    latents: dict[str, int]


def choose(work: Work, cell: Cell) -> Chosen:
    """Read what a measured cell has, and choose."""
    autoencoder = KSparseAutoencoder.load(work.folder_of(cell))
    activations = activations_of(autoencoder, work.inputs(cell).coded)
    top = top_images([activations])
    latents = _purest(activations, work.store(work.first).labels)
    for place, latent in enumerate(top.strongest(STRONGEST).tolist(), 1):
        latents[f"strongest, {place}"] = latent
    return Chosen(cell, autoencoder, top, latents)


def _purest(activations: Activations, labels: Mapping[str, Tensor]) -> dict[str, int]:
    """Of each factor the latent of the lowest entropy among its top images; of equals the one activated most."""
    found = {}
    for factor, own in labels.items():
        purity = label_purity(activations, own, shuffles=1)
        if len(purity.latents):
            found[f"purest by {factor}"] = int(purity.latents[purity.by_latent[:, 2].argmin()])
    return found
