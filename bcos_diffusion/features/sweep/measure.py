"""What is measured of one cell: its k-sparse autoencoder, what the latents tell, and what probes read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.features.latents.activations import Activations, collect
from bcos_diffusion.features.latents.monosemanticity import monosemanticity
from bcos_diffusion.features.latents.purity import Purity, label_purity
from bcos_diffusion.features.probe import Accuracy, fit_linear, majority, stratified_split, train_diff_c
from bcos_diffusion.features.sae import KSparseAutoencoder, SAEConfig, evaluate, train
from bcos_diffusion.features.sweep.plan import SweepPlan

OBJECT = "object"
"""What Diff-C is asked, and all a probe of a few images is: the finest thing that scenes tell."""
READ_AT_ONCE = 4096
PIXEL_SIDE = 8

Labels = Mapping[str, Tensor]
Classes = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Inputs:
    """Features as each reader takes them: Diff-C all places ``[N, D, h, w]``, the linear probe and the autoencoder one
    vector an image, ``[N, P]`` and ``[N, E]``."""

    spatial: Tensor
    vectors: Tensor
    coded: Tensor

    @classmethod
    def of_layer(cls, features: Tensor) -> Inputs:
        """Features of a layer ``[N, D, h, w]``: vectors are their mean over places."""
        pooled = features.mean((2, 3))
        return cls(features, pooled, pooled)

    @classmethod
    def of_pixels(cls, pixels: Tensor) -> Inputs:
        """Pixels ``[N, C, H, W]``: the linear probe reads every one of them; the autoencoder reads a thumbnail, since
        a mean over places would leave a colour alone: about as many numbers as a layer has."""
        size = (min(PIXEL_SIDE, pixels.shape[2]), min(PIXEL_SIDE, pixels.shape[3]))
        return cls(pixels, pixels.flatten(1), F.adaptive_avg_pool2d(pixels, size).flatten(1))


def measure_latents(
    coded: Tensor, labels: Labels, classes: Classes, plan: SweepPlan, out: Path, latents: int | None = None
) -> dict[str, Any]:
    """What an autoencoder of ``coded`` ``[N, E]`` tells, as JSON-ready values. It stays in ``out``.

    How well it reconstructs is told by the images that it did not learn from, and all else by all. latents: of the
    autoencoder, where it is not to have ``expansion`` for each dimension.
    """
    begin = time.perf_counter()
    config = plan.sae if latents is None else replace(plan.sae, latents=latents)
    learned, held = held_out(coded)
    autoencoder = train(learned, config, out)
    seconds = time.perf_counter() - begin
    activations = activations_of(autoencoder, coded)
    read = monosemanticity(activations, labels, classes, seed=plan.seed)
    purity = {factor: label_purity(activations, own, seed=plan.seed) for factor, own in labels.items()}
    return {
        "sae": {
            **asdict(evaluate(autoencoder, held)), "dead_share": float((activations.active == 0).double().mean()),
            "latents": autoencoder.latents, "seconds": seconds,
            "components": share_of_components(learned, held, config.k),
        },
        "purity": {factor: _purity(found) for factor, found in purity.items()},
        "monosemanticity": read.to_dict(),
    }  # fmt: skip


def probes(inputs: Inputs, labels: Labels, classes: Classes, plan: SweepPlan, factors: Sequence[str]) -> dict[str, Any]:
    """The linear probe of factors on vectors, Diff-C of the object on all places, and both of a few images a class."""
    splits = {factor: stratified_split(labels[factor], plan.seed) for factor in factors}

    def linear(factor: str, few: bool = False) -> dict[str, Any]:
        own, split = labels[factor], splits[factor]
        split = split.few(own, plan.few) if few else split
        return _accuracy(fit_linear(inputs.vectors, own, len(classes[factor]), split).test)

    def diff_c(few: bool = False) -> dict[str, Any]:
        own, split = labels[OBJECT], splits[OBJECT]
        split = split.few(own, plan.few) if few else split
        found = train_diff_c(inputs.spatial, own, len(classes[OBJECT]), split, plan.seed, plan.recipe)
        return _accuracy(found.test)

    return {
        "linear": {factor: linear(factor) for factor in factors},
        "diff_c": {OBJECT: diff_c()},
        "few": {"linear": {OBJECT: linear(OBJECT, True)}, "diff_c": {OBJECT: diff_c(True)}},
    }


def unseeing(labels: Labels, classes: Classes, plan: SweepPlan) -> dict[str, Any]:
    """By factor: how many images have a label, and how often one is right who looks at none."""
    found = {}
    for factor, own in labels.items():
        split = stratified_split(own, plan.seed)
        commonest = majority(own, len(classes[factor]), split)
        sizes = {f"{name}_images": len(part) for name, part in split.parts().items()}
        found[factor] = {
            "classes": len(classes[factor]), "labelled": int((own >= 0).sum()), **sizes,
            "few_images": len(split.few(own, plan.few).train), "majority": commonest.top1,
        }  # fmt: skip
    return found


@torch.no_grad()
def activations_of(autoencoder: KSparseAutoencoder, coded: Tensor) -> Activations:
    """The codes of vectors ``[N, E]``, by latent and image."""
    codes = (autoencoder.encode(part) for part in coded.split(READ_AT_ONCE))
    return collect(codes, autoencoder.latents)


def held_out(coded: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors ``[N, E]`` that an autoencoder learns from, and the last tenth, which it is measured on."""
    last = max(2, len(coded) // 10)
    return coded[:-last], coded[-last:]


def share_of_components(learned: Tensor, held: Tensor, count: int) -> float:
    """The share of the variance of ``held`` ``[M, E]`` that the first principal components of ``learned`` explain.

    It says how few directions hold the features, and what the latents are to be compared with.
    """
    _, _, directions = torch.linalg.svd((learned - learned.mean(0)).double(), full_matrices=False)
    centred = (held - held.mean(0)).double()
    kept = centred @ directions[:count].T
    return float(kept.square().sum() / centred.square().sum())


def largest_dictionary(config: SAEConfig, dims: Mapping[str, int]) -> int:
    """As many latents as the largest dictionary of layers of these widths has."""
    return max(config.latents_of(dim) for dim in dims.values())


def _purity(found: Purity) -> dict[str, Any]:
    """As JSON. error: the standard error of each mean over latents, as if these were independent."""
    values, count = found.to_dict(), len(found.latents)
    errors = found.by_latent.std(0, correction=1) / count**0.5 if count > 1 else torch.full((3,), torch.nan)
    return {**values, "error": dict(zip(values["mean"], errors.tolist(), strict=True))}


def _accuracy(found: Accuracy) -> dict[str, Any]:
    """As JSON, with what was said of each image, so that two cells can be compared image by image."""
    kept = {name: value for name, value in found.to_dict().items() if name != "per_class"}
    return {**kept, **found.said()}
