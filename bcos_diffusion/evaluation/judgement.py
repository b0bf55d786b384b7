"""One method held against what taking words out does: every metric of faithfulness, per prompt and over prompts.

Metrics are the same for one step and for whole runs: the subject of the ablations is either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.evaluation import deletion, infidelity
from bcos_diffusion.evaluation.ablations import Ablations
from bcos_diffusion.evaluation.faithfulness import correlations
from bcos_diffusion.evaluation.infidelity import Terms
from bcos_diffusion.evaluation.statistics import bootstrap, mean, spearman
from bcos_diffusion.evaluation.words import is_content


@dataclass(frozen=True)
class Scored:
    """A word of one image: its score, and what changed when it was taken out."""

    text: str
    score: float
    effect: float


@dataclass(frozen=True)
class Judged:
    """One method on one prompt under one removal: plain values, so that they can be stored and joined.

    texts: the words of the prompt; scores and effects: ``[words][N]``; pixel: rank correlation of map and true effect,
    mean over content words and images; deletion and insertion: curves ``[N][K + 1]`` over the K content words;
    infidelity and infidelity_pixel: their terms for each image. What a prompt of one content word cannot tell is empty.
    """

    texts: list[str]
    scores: list[list[float]]
    effects: list[list[float]]
    pixel: float
    deletion: list[list[float]]
    insertion: list[list[float]]
    infidelity: list[Terms]
    infidelity_pixel: list[Terms]


def judge(attributed: Attributed, ablations: Ablations) -> Judged:
    """Hold an attribution of the subject of ``ablations`` against what taking its words out does."""
    words = ablations.subject.words
    maps, scores = attributed.maps.cpu(), attributed.scores.cpu()
    changes = ablations.of_words().cpu()  # [words, N, H, W]
    among = torch.tensor([is_content(word) for word in words])
    several = int(among.sum()) > 1
    sets = infidelity.sets_of_words(among)
    true = ablations.changes(sets).cpu() if several else changes[:0]
    return Judged(
        words,
        scores.tolist(),
        changes.double().flatten(2).norm(dim=2).tolist(),
        pixel_correlation(maps[among], changes[among]),
        deletion.deletion(scores, among, ablations).tolist() if several else [],
        deletion.insertion(scores, among, ablations).tolist() if several else [],
        infidelity.terms(scores, true.double().flatten(2).norm(dim=2), sets) if several else [],
        infidelity.terms(maps, true, sets) if several else [],
    )


def pixel_correlation(maps: Tensor, changes: Tensor) -> float:
    """Spearman's rho between maps and true effects ``[words, N, H, W]`` over pixels, the mean over words and images.

    A map that is the same everywhere tells nothing and is left out; NaN where all are.
    """
    pairs = zip(maps.flatten(0, 1), changes.flatten(0, 1), strict=True)
    return mean([spearman(found.flatten(), true.flatten()) for found, true in pairs])


def summarise(judged: Sequence[Judged]) -> dict[str, Any]:
    """The faithfulness of one method under one removal, with intervals over prompts.

    ``spearman_token``: score against true effect, as :func:`correlations`; ``spearman_pixel``; the areas ``deletion``
    (lower is better) and ``insertion`` (higher is better); ``infidelity`` of scores and ``infidelity_pixel`` of maps
    (lower is better); ``curves``: both mean curves at ten equal steps.
    """
    several = [unit for unit in judged if unit.deletion]
    areas = {
        name: bootstrap([mean(_areas(getattr(unit, name))) for unit in several], mean)
        for name in ("deletion", "insertion")
    }
    errors = {
        name: bootstrap([getattr(unit, name) for unit in several], _infidelity)
        for name in ("infidelity", "infidelity_pixel")
    }
    curves = {name: _mean_curve([getattr(unit, name) for unit in several]) for name in ("deletion", "insertion")}
    return {
        "spearman_token": correlations([of_images(unit) for unit in judged], "score"),
        "spearman_pixel": bootstrap([unit.pixel for unit in judged], mean),
        **areas,
        **errors,
        "curves": curves,
    }


def of_images(unit: Judged) -> list[list[Scored]]:
    """The words of every image ``[N][words]``, each with its score and its effect."""
    return scored(unit.texts, unit.scores, unit.effects)


def scored(texts: Sequence[str], scores: list[list[float]], effects: list[list[float]]) -> list[list[Scored]]:
    """Scores and effects ``[words][N]`` by image: ``[N][words]``."""
    return [
        [Scored(text, of_word[row], effect[row])
         for text, of_word, effect in zip(texts, scores, effects, strict=True)]
        for row in range(len(scores[0]))
    ]  # fmt: skip


def _areas(curves: list[list[float]]) -> list[float]:
    areas: list[float] = deletion.area(torch.tensor(curves)).tolist()
    return areas


def _infidelity(units: Sequence[Sequence[Terms]]) -> float:
    return infidelity.infidelity([image for unit in units for image in unit])


def _mean_curve(units: Sequence[list[list[float]]]) -> list[float]:
    grid = np.linspace(0, 1, 11)
    curves = [np.interp(grid, np.linspace(0, 1, len(c)), c) for unit in units for c in unit if not np.isnan(c).any()]
    return np.mean(curves, axis=0).tolist() if curves else []
