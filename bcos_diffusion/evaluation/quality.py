"""How good the pictures of a pipeline are, beside held-out scenes: distances between sets, and what each picture shows.

Captions are those of the first test scenes. The pictures drawn of them, and these scenes themselves as what can be
reached at best, are compared with the scenes that follow. Distances are measured on the features of two fixed networks:
the segmenter, which knows what objects look like, and random convolutions, which nothing was ever trained against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bcos_diffusion.encoding import to_bytes
from bcos_diffusion.evaluation.drawn_objects import Drawn, judge
from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.evaluation.statistics import bootstrap, mean, ratio
from bcos_diffusion.paper.distance import frechet
from bcos_diffusion.paper.features import Extractor, library, random_convnet
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes

LEAST = 8
HALVES = 20
_BATCH = 16


def segmenter_features(segmenter: Segmenter) -> Extractor:
    """The segmenter as a fixed network, named by the digest of its weights."""

    def extract(pictures: Tensor) -> Tensor:
        return segmenter.features(pictures.float() / 255)

    return Extractor(segmenter.name, f"Fréchet distance on {segmenter.name} features", extract)


def quality(
    pipeline: BcosDiffusionPipeline,
    count: int,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    segmenter: Segmenter | None = None,
    advance: Callable[[int], object] = lambda pictures: None,
    split: str = "test",
) -> dict[str, Any]:
    """Draw ``count`` captions of a split's scenes, from seeds ``seed, seed + 1, …``, and measure the pictures.

    steps, guidance: the pipeline's own by default; advance: told how many more pictures are drawn. ``drawn`` and
    ``real`` (the captions' own scenes) have ``frechet`` and ``kernel``, by extractor, and what :func:`accuracy` says;
    every number is ``value``, ``low``, ``high``. Raises ValueError for fewer than 8 pictures, for words or a size
    that the pipeline cannot draw, and where torch-fidelity is missing.
    """
    if count < LEAST:
        raise ValueError(f"count must be at least {LEAST}, got {count}")
    library("metric_fid")  # told before minutes of drawing
    judged_by = segmenter or Segmenter.of(pipeline)
    scenes = Scenes(size=pipeline.default_size[0], split=split)
    real, captions = scenes.batch(range(count))
    reference, _ = scenes.batch(range(count, 2 * count))
    words = [caption.split() for caption in captions]
    drawn = _draw(pipeline, captions, seed, steps, guidance, advance)
    extractors = [segmenter_features(judged_by), random_convnet(torch.device("cpu"))]
    known = {extractor.name: _features(extractor, _tensor(reference)) for extractor in extractors}

    def row(pictures: Tensor) -> dict[str, Any]:
        distances = {e.name: _distances(_features(e, pictures), known[e.name]) for e in extractors}
        found = accuracy(judge(judged_by, pictures.float() / 255, words), words)
        return {kind: {name: both[kind] for name, both in distances.items()} for kind in ("frechet", "kernel")} | found

    return {
        "count": count,
        "seed": seed,
        "segmenter": judged_by.name,
        "segmenter_miou": judged_by.card["scores"]["miou"],
        "drawn": row(drawn),
        "real": row(_tensor(real)),
    }


def accuracy(drawn: Sequence[Drawn], words: Sequence[Sequence[str]]) -> dict[str, Any]:
    """How much of what captions name is in their pictures, with 95% intervals over pictures.

    ``objects``: share of named nouns that are there; ``extra``: nouns there but not named, per picture that names any;
    ``counts``: share of several objects of one noun ("three cats") of which there are as many; ``colour`` and
    ``relation``: share of the pictures that have the background, or the arrangement, that their caption names.
    """
    naming = [d for d in drawn if d.named]
    several = [d for d in naming if any(count != 1 for count in d.named.values())]
    colours = [d.colour_right(text) for d, text in zip(drawn, words, strict=True)]
    relations = [d.relation_holds(text) for d, text in zip(drawn, words, strict=True)]
    return {
        "objects": bootstrap([(float(len(d.named) - len(d.missing)), float(len(d.named))) for d in naming], ratio),
        "extra": bootstrap([float(len(d.extra)) for d in naming], mean),
        "counts": bootstrap([mean([float(right) for right in d.counts_right()]) for d in several], mean),
        "colour": bootstrap([float(right) for right in colours if right is not None], mean),
        "relation": bootstrap([float(holds) for holds in relations if holds is not None], mean),
    }


def with_interval(
    distance: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> dict[str, float]:
    """A distance of two sets of features ``[N, D]`` with its 95% interval, by the delete-half jackknife.

    Shao and Wu (1989): over random halves the distance varies as it does over samples as large as the whole. The
    bootstrap would draw the same picture twice, which both distances take for a lack of variety.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    value = distance(x, y)
    halves = [distance(*(part[rng.permutation(len(part))[: len(part) // 2]] for part in (x, y))) for _ in range(HALVES)]
    reach = 1.96 * float(np.std(halves, ddof=1))
    return {"value": value, "low": value - reach, "high": value + reach}


def kernel_distance(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The unbiased squared MMD of ``[N, D]`` and ``[N, D]``, kernel ``(⟨x, y⟩/D + 1)³`` (Bińkowski et al., 2018)."""
    return float(library("metric_kid").kernel_mmd(x, y))


def _draw(
    pipeline: BcosDiffusionPipeline, captions: Sequence[str], seed: int, steps: int | None, guidance: float | None,
    advance: Callable[[int], object],
) -> Tensor:  # fmt: skip
    """Pictures as files would hold them: uint8 ``[N, 3, H, W]``."""
    pipeline.model.tokenizer.encode(list(captions))  # unknown words are told before the first picture
    parts = []
    for first in range(0, len(captions), _BATCH):
        texts = captions[first : first + _BATCH]
        images = pipeline.generate(texts, seed=seed + first, steps=steps, guidance=guidance)
        parts.append(to_bytes(images))
        advance(len(texts))
    return torch.cat(parts)


def _tensor(pictures: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def _features(extractor: Extractor, pictures: Tensor) -> NDArray[np.float64]:
    with torch.no_grad():
        return torch.cat([extractor.extract(part) for part in pictures.split(64)]).double().numpy()


def _distances(found: NDArray[np.float64], reference: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    return {
        "frechet": with_interval(frechet, found, reference),
        "kernel": with_interval(kernel_distance, found, reference),
    }
