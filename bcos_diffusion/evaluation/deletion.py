"""Deletion and insertion: take words out, or put them back, in the order of their scores (Petsiuk et al. 2018).

The curve is how like the whole prompt's image what is left is: 1 - d / d_0, where d is the L2 distance to that image
and d_0 that of the image without any of these words. So it runs from 1 to 0 or from 0 to 1 for every prompt and every
method. The smaller the area under the deletion curve, and the larger that under the insertion curve, the better.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_diffusion.evaluation.ablations import Ablations


def by_score(scores: Tensor, among: Tensor) -> Tensor:
    """Which words are out after each step of deletion: ``[N, K + 1, words]`` bool, K the words among ``among``.

    scores: ``[words, N]``, of which equal ones go in the order of the prompt; among: ``[words]`` bool.
    """
    numbers = among.nonzero().flatten()
    order = numbers[scores[numbers].argsort(dim=0, descending=True, stable=True)]  # [K, N]
    steps = torch.zeros(scores.shape[1], len(numbers) + 1, len(among), dtype=torch.bool)
    for step, words in enumerate(order.tolist(), start=1):
        steps[torch.arange(len(words)), step:, words] = True
    return steps


def deletion(scores: Tensor, among: Tensor, ablations: Ablations) -> Tensor:
    """The curve of each image as words go out, the highest score first: ``[N, K + 1]``; NaN where nothing changes."""
    return _curve(by_score(scores, among), among, ablations)


def insertion(scores: Tensor, among: Tensor, ablations: Ablations) -> Tensor:
    """The curve of each image as words come in, the highest score first: ``[N, K + 1]``; NaN where nothing changes."""
    return _curve(among & ~by_score(scores, among), among, ablations)


def area(curve: Tensor) -> Tensor:
    """The area under curves ``[N, K + 1]`` over the share of words, by trapezoids: ``[N]`` (0 to 1 where monotone)."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1))


def _curve(removed: Tensor, among: Tensor, ablations: Ablations) -> Tensor:
    n = len(removed)
    changes = ablations.changes(removed.flatten(0, 1)).unflatten(0, (n, -1))  # [N, K + 1, N, H, W]
    rows = torch.arange(n)
    distance = changes[rows, :, rows].double().flatten(2).norm(dim=2)  # [N, K + 1]
    none = ablations.changes(among[None])[0].double().flatten(1).norm(dim=1)[:, None]
    return torch.where(none > 0, 1 - distance / none, torch.nan).cpu()
