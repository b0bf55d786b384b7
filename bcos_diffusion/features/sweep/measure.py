"""What is measured of one cell: its k-sparse autoencoder, what the latents tell, and what probes read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.features.latents.activations import Activations, collect
from bcos_diffusion.features.latents.monosemanticity import monosemanticity
from bcos_diffusion.features.latents.purity import Purity, label_purity
from bcos_diffusion.features.probe import Accuracy, fit_linear, stratified_split, train_diff_c
from bcos_diffusion.features.sae import KSparseAutoencoder, SAEConfig, evaluate, train
from bcos_diffusion.features.sweep.plan import SweepPlan

DIFF_C_FACTOR = "object"
"""What Diff-C is asked: the finest thing that scenes tell."""
READ_AT_ONCE = 4096


def measure(
    features: Tensor,
    labels: Mapping[str, Tensor],
    classes: Mapping[str, tuple[str, ...]],
    plan: SweepPlan,
    out: Path,
    latents: int | None = None,
) -> dict[str, Any]:
    """All numbers of one cell, as JSON-ready values. The autoencoder stays in ``out``.

    features: ``[N, D, h, w]``; latents: of the autoencoder, where it is not to have ``expansion`` for each dimension.
    """
    pooled = features.mean((2, 3))
    begin = time.perf_counter()
    config = plan.sae if latents is None else replace(plan.sae, latents=latents)
    autoencoder = train(pooled, config, out)
    seconds = time.perf_counter() - begin
    activations = activations_of(autoencoder, pooled)
    read = monosemanticity(activations, labels, classes, seed=plan.seed)
    purity = {factor: label_purity(activations, own, seed=plan.seed) for factor, own in labels.items()}
    return {
        "dim": features.shape[1],
        "places": list(features.shape[2:]),
        "sae": {**asdict(evaluate(autoencoder, pooled)), "latents": autoencoder.latents, "seconds": seconds},
        "purity": {factor: _purity(found) for factor, found in purity.items()},
        "monosemanticity": {
            "summary": asdict(read.summary), "chance": asdict(read.chance), "judged": int(read.judged.sum()),
        },
        **probes(features, pooled, labels, classes, plan),
    }  # fmt: skip


def probes(
    features: Tensor,
    pooled: Tensor,
    labels: Mapping[str, Tensor],
    classes: Mapping[str, tuple[str, ...]],
    plan: SweepPlan,
) -> dict[str, Any]:
    """The linear probe of every factor on pooled features, and Diff-C of the finest on all places."""
    splits = {factor: stratified_split(own, plan.seed) for factor, own in labels.items()}
    linear = {
        factor: fit_linear(pooled, own, len(classes[factor]), splits[factor]).test for factor, own in labels.items()
    }
    own, count = labels[DIFF_C_FACTOR], len(classes[DIFF_C_FACTOR])
    diff_c = train_diff_c(features, own, count, splits[DIFF_C_FACTOR], plan.seed, plan.recipe).test
    return {
        "linear": {factor: _accuracy(found) for factor, found in linear.items()},
        "diff_c": {DIFF_C_FACTOR: _accuracy(diff_c)},
    }


@torch.no_grad()
def activations_of(autoencoder: KSparseAutoencoder, pooled: Tensor) -> Activations:
    """The codes of pooled features ``[N, D]``, by latent and image."""
    codes = (autoencoder.encode(part) for part in pooled.split(READ_AT_ONCE))
    return collect(codes, autoencoder.latents)


def largest_dictionary(config: SAEConfig, dims: Mapping[str, int]) -> int:
    """As many latents as the largest dictionary of layers of these widths has."""
    return max(config.latents_of(dim) for dim in dims.values())


def _purity(found: Purity) -> dict[str, Any]:
    parts = {name: asdict(getattr(found, name)) for name in ("mean", "chance", "spread")}
    return {**parts, "latents": len(found.latents)}


def _accuracy(found: Accuracy) -> dict[str, Any]:
    """As JSON, with what was said of each image, so that two cells can be compared image by image."""
    kept = {name: value for name, value in found.to_dict().items() if name != "per_class"}
    return {**kept, "predicted": found.predicted.tolist(), "truth": found.truth.tolist()}
