"""How well a segmenter finds the objects of held-out scenes, whose masks are known exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bcos_diffusion.encoding import from_pixels
from bcos_diffusion.evaluation.segmenter.classes import classes as classes_of
from bcos_diffusion.evaluation.segmenter.classes import numbers
from bcos_diffusion.evaluation.segmenter.pictures import labels
from bcos_diffusion.evaluation.statistics import bootstrap, mean
from bcos_diffusion.scenes import Scenes

BATCH = 50


def overlap(truth: NDArray[np.int64], found: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """The pixels of each of ``number`` classes in both, in either: ``[2, number]``."""
    there, seen = (np.bincount(part.ravel(), minlength=number) for part in (truth, found))
    both = np.bincount(truth[truth == found], minlength=number)
    return np.stack([both, there + seen - both])


def intersection_over_union(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of each class by an :func:`overlap` ``[2, classes]``; NaN for one that is neither there nor found."""
    both, either = counts.astype(float)
    return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)


def score(
    classes: Callable[[Tensor], Tensor], size: int = 32, split: str = "test", count: int = 1000
) -> dict[str, Any]:
    """IoU on the first ``count`` scenes of a split, classes: images ``[N, 3, H, W]`` to classes ``[N, H, W]``.

    ``miou``: mean over nouns of the IoU over all pixels; ``miou_objects``: mean over visible objects of the IoU of a
    scene's pixels of that noun; both with 95% intervals over scenes. ``by_noun``; ``background``; ``pixels``: the
    share given the right class.
    """
    scenes, names, number = Scenes(size=size, split=split), classes_of(size), numbers(size)
    counts: list[NDArray[np.int64]] = []
    objects: list[list[float]] = []
    for first in range(0, count, BATCH):
        batch = [scenes[i] for i in range(first, min(first + BATCH, count))]
        images = from_pixels(np.stack([scene.image for scene in batch]))
        for scene, found in zip(batch, classes(images).numpy(), strict=True):
            truth = labels(scene)
            counts.append(overlap(truth, found, len(names)))
            iou = intersection_over_union(counts[-1])
            objects.append([float(iou[number[noun]]) for noun in {p.noun for p in scene.objects}])
    total = np.sum(counts, axis=0)
    iou = intersection_over_union(total)
    return {
        "scenes": count,
        "split": split,
        "miou": bootstrap(counts, _mean_over_nouns),
        "miou_objects": bootstrap(objects, lambda drawn: mean([v for scene in drawn for v in scene])),
        "background": float(iou[0]),
        "pixels": float(total[0].sum() / (count * size * size)),
        "by_noun": dict(zip(names[1:], iou[1:].tolist(), strict=True)),
    }


def _mean_over_nouns(counts: Sequence[NDArray[np.int64]]) -> float:
    return mean(intersection_over_union(np.sum(counts, axis=0))[1:].tolist())
