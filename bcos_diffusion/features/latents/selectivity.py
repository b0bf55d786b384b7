"""How well the activation of every latent tells every class of one factor, from sparse activations alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.features.latents.activations import Activations

_LEVELS = 3  # not active, weakly, strongly


@dataclass(frozen=True)
class Selectivity:
    """Of n latents and C classes, over the N images that have a label. All float64.

    auroc, average_precision: ``[n, C]``, of the activation as a score of the class against all others; an image on
    which a latent is not active has score 0. NaN where a class has no image, or all of them. Ties count half in the
    first; in the second they are one threshold (as in scikit-learn). share: ``[n, C]``, of the sum of a latent's
    activation, what falls on images of the class; 0 for dead latents. active: ``[n, C]``, on how many images of the
    class it is active. information: ``[n]``, mutual information of the label and of the activation in three levels
    (none, up to its median where active, above), as a share of the label's entropy. base: ``[C]``, the share of each
    class in the images.
    """

    auroc: Tensor
    average_precision: Tensor
    share: Tensor
    active: Tensor
    information: Tensor
    base: Tensor


def selectivity(activations: Activations, labels: Tensor, classes: int) -> Selectivity:
    """Measure all latents at once, in O(M log M) for M activations.

    labels: int64 ``[activations.images]`` below ``classes``, -1 for images without one, which are left out.
    """
    labelled = labels >= 0
    entries = activations.among(labelled)
    label = labels[entries.image]  # [M]
    sizes = torch.bincount(labels[labelled], minlength=classes).double()  # [C]
    first, last = _ties(entries.latent, entries.value)
    active = entries.active.double()  # [n]
    cell = entries.latent * classes + label
    count = _table(cell, None, entries.latents, classes)
    mass = _table(cell, entries.value.double(), entries.latents, classes)
    middle = (first + last) / 2 + 1  # rank among the latent's own, from 1
    return Selectivity(
        auroc=_auroc(cell, middle, active, count, sizes),
        average_precision=_average_precision(entries, cell, first, active, count, sizes),
        share=mass / mass.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny),
        active=count,
        information=_information(entries, label, middle, active, sizes),
        base=sizes / sizes.sum(),
    )


def _table(cell: Tensor, weights: Tensor | None, rows: int, columns: int) -> Tensor:
    """Sum weights, or count, by cell ``row * columns + column``: ``[rows, columns]`` float64."""
    return torch.bincount(cell, weights, minlength=rows * columns).double().unflatten(0, (rows, columns))


def _ties(group: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Where each entry stands in rising order within its group, from 0: the first and the last of its equals."""
    order = torch.argsort(value, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    by_group, by_value = group[order], value[order]
    place = torch.arange(len(order))
    changes = torch.ones(len(order), dtype=torch.bool)
    changes[1:] = (by_group[1:] != by_group[:-1]) | (by_value[1:] != by_value[:-1])
    run = torch.cumsum(changes, 0) - 1
    begins = place[changes]
    ends = torch.cat([begins[1:], place.new_tensor([len(order)])]) - 1
    sizes = torch.bincount(group)
    start = (torch.cumsum(sizes, 0) - sizes)[by_group]
    first, last = torch.empty(len(order)).double(), torch.empty(len(order)).double()
    first[order], last[order] = (begins[run] - start).double(), (ends[run] - start).double()
    return first, last


def _auroc(cell: Tensor, middle: Tensor, active: Tensor, count: Tensor, sizes: Tensor) -> Tensor:
    """Mann and Whitney: from the sum of ranks of a class, where all images without activation share one rank."""
    silent = (sizes.sum() - active)[:, None]  # [n, 1]
    ranks = _table(cell, middle, *count.shape) + count * silent + (sizes - count) * (silent + 1) / 2
    return (ranks - sizes * (sizes + 1) / 2) / (sizes * (sizes.sum() - sizes))


def _average_precision(
    entries: Activations, cell: Tensor, first: Tensor, active: Tensor, count: Tensor, sizes: Tensor
) -> Tensor:
    """Σ precision · rise of recall over thresholds, the last of which is 0 and takes all images."""
    first_of_class, _ = _ties(cell, entries.value)
    above = active[entries.latent] - first  # images at or above the entry's activation, and of its class alone
    above_of_class = count.flatten()[cell] - first_of_class
    found = _table(cell, above_of_class / above, *count.shape)
    precision = (found + (sizes - count) * sizes / sizes.sum()) / sizes
    return torch.where((sizes == 0) | (sizes == sizes.sum()), torch.nan, precision)


def _information(entries: Activations, label: Tensor, middle: Tensor, active: Tensor, sizes: Tensor) -> Tensor:
    strong = (2 * middle > active[entries.latent] + 1).long()
    cell = ((entries.latent * _LEVELS) + 1 + strong) * len(sizes) + label
    table = _table(cell, None, entries.latents * _LEVELS, len(sizes)).unflatten(0, (entries.latents, _LEVELS))
    table[:, 0] = sizes - table[:, 1:].sum(1)
    joint = table / sizes.sum()  # [n, levels, C]
    entropy = torch.special.entr(sizes / sizes.sum()).sum()
    information = (
        entropy + torch.special.entr(joint.sum(2)).sum(1) - torch.special.entr(joint).sum((1, 2))
    )  # H(label) + H(level) - H(both)
    return (information / entropy).clamp(min=0)
