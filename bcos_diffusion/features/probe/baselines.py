"""What a probe must beat without looking: chance, and the commonest class.

The baselines that look are probes themselves, on other features: raw pixels (``images.flatten(1)`` for the linear
probe, images ``[N, 3, H, W]`` for Diff-C), and the features of the same network before training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_diffusion.features.probe.accuracy import Accuracy
from bcos_diffusion.features.probe.splits import Split


def chance(classes: int) -> float:
    """The expected accuracy of guessing evenly among ``classes``. Raises ValueError for fewer than one."""
    if classes < 1:
        raise ValueError(f"classes must be at least 1, got {classes}")
    return 1 / classes


def majority(labels: Tensor, classes: int, split: Split) -> Accuracy:
    """The accuracy on test of always saying the commonest class of training (of equals, the first).

    labels: int64 ``[N]``, -1 for images that are left out.
    """
    labels = labels.cpu()
    split = split.labelled(labels)
    commonest = labels[split.train].bincount(minlength=classes).argmax()
    truth = labels[split.test]
    return Accuracy(torch.full_like(truth, int(commonest)), truth, classes)
