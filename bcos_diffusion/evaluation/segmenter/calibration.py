"""From which share of its usual area on an object counts as drawn: chosen on validation scenes alone.

Real scenes leave a wide gap between objects that are there and classes that are not, in which any share is right. So
the share is chosen on the same scenes bent, blurred and tinted as unsure generators do, where both errors occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bcos_diffusion.encoding import from_pixels
from bcos_diffusion.evaluation.drawn_objects import area_shares
from bcos_diffusion.evaluation.segmenter.degradation import degrade, draw
from bcos_diffusion.evaluation.segmenter.pictures import generator, labels
from bcos_diffusion.evaluation.segmenter.segmenter import Segmenter
from bcos_diffusion.scenes import Scenes

_SHARES = np.arange(0.05, 0.96, 0.01)
_BATCH = 50


def calibrate(segmenter: Segmenter, count: int = 1000) -> dict[str, Any]:
    """The share at which both errors on degraded validation scenes are nearest to equal, and what it does on them.

    ``real`` and ``degraded``: how many of the objects are found (``present``), in how many pictures nothing else is
    (``nothing_else``), and the largest shares below (``low``) and above (``high``) which 99.5% of objects are found
    and 99% of pictures have nothing else.
    """
    real, degraded = (_shares(segmenter, count, degraded) for degraded in (False, True))
    gaps = [abs((degraded[0] < share).mean() - (degraded[1] >= share).mean()) for share in _SHARES]
    share = round(float(_SHARES[int(np.argmin(gaps))]), 2)
    told = {"real": _describe(*real, share), "degraded": _describe(*degraded, share)}
    return {"present_share": share, "calibration": {"scenes": count, "split": "validation", **told}}


def _describe(there: NDArray[np.float64], others: NDArray[np.float64], share: float) -> dict[str, float]:
    return {
        "present": float((there >= share).mean()),
        "nothing_else": float((others < share).mean()),
        "low": float(np.quantile(others, 0.99)),
        "high": float(np.quantile(there, 0.005)),
    }


def _shares(segmenter: Segmenter, count: int, degraded: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of every object of validation scenes, and the largest share of a noun that is not there of each."""
    scenes = Scenes(size=segmenter.size, split="validation")
    there: list[float] = []
    others: list[float] = []
    for first in range(0, count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        batch = [scenes[i] for i in numbers]
        images = from_pixels(np.stack([scene.image for scene in batch]))
        if degraded:
            truth = torch.from_numpy(np.stack([labels(scene) for scene in batch]))
            images = degrade(images, truth, [draw(generator(0, i, part=2), segmenter.size) for i in numbers])[0]
        for scene, classes in zip(batch, segmenter.classes(images), strict=True):
            own, rest = _split(classes, [placed.noun for placed in scene.objects], segmenter.names)
            there += own
            others.append(max(rest, default=0.0))
    return np.array(there), np.array(others)


def _split(classes: Tensor, nouns: list[str], names: Sequence[str]) -> tuple[list[float], list[float]]:
    """The shares of a scene's own nouns, and of all others."""
    shares = area_shares(classes, len(nouns), names)
    own = [shares.get(noun, 0.0) for noun in dict.fromkeys(nouns)]
    return own, [share for noun, share in shares.items() if noun not in nouns]
