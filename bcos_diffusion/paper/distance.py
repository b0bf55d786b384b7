"""How far two sets of features are apart: Fréchet and kernel distance, both by torch-fidelity."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bcos_diffusion.paper.features import library

SUBSET = 1000
SUBSETS = 50
SPLITS, SPLITS_OF_WIDE, WIDE = 10, 2, 512


def frechet(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """``|μ_x − μ_y|² + tr(C_x + C_y − 2 (C_x C_y)^½)`` of features ``[N, D]`` and ``[M, D]``."""
    metric = library("metric_fid")
    statistics = [metric.fid_features_to_statistics(torch.from_numpy(features)) for features in (x, y)]
    return float(metric.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"])


def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, float]:
    """The unbiased squared MMD with kernel ``(⟨x, y⟩/D + 1)³``: mean and standard deviation over random subsets."""
    metric, subset = library("metric_kid"), min(SUBSET, len(x) // 2, len(y) // 2)
    found = metric.kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=SUBSETS, kid_subset_size=subset, verbose=False
    )
    return {
        "mean": found["kernel_inception_distance_mean"],
        "deviation": found["kernel_inception_distance_std"],
    }


def halves(x: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, float]:
    """The Fréchet distance between random halves of both sets: mean and deviation over splits.

    It is larger than that of the whole sets, by what fewer pictures cost; its spread says how sure a number is.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    splits = SPLITS if x.shape[1] <= WIDE else SPLITS_OF_WIDE
    found = []
    for _ in range(splits):
        found.append(frechet(*(part[rng.permutation(len(part))[: len(part) // 2]] for part in (x, y))))
    return {"mean": float(np.mean(found)), "deviation": float(np.std(found, ddof=1)), "splits": splits}
