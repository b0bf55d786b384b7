"""Which images a probe learns from, is chosen by and is judged on; and whether its features and labels are sound."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

NOT_LABELLED = -1
"""The label of an image to which a factor does not apply."""


@dataclass(frozen=True)
class Split:
    """Indices ``[n]`` (int64, on the CPU) of images: to learn from, to choose by, to judge on.

    Raises ValueError for what is not a list of distinct indices, for an empty part, and for an image in two parts.
    """

    train: Tensor
    validation: Tensor
    test: Tensor

    def __post_init__(self) -> None:
        for name, part in self.parts().items():
            if part.ndim != 1 or part.dtype != torch.int64:
                raise ValueError(f"{name} must be int64 indices [n], got {part.dtype} {list(part.shape)}")
            if not len(part) or int(part.min()) < 0:
                raise ValueError(f"{name} must have indices of at least one image, none below 0")
            if len(part.unique()) < len(part):
                raise ValueError(f"{name} names an image twice")
        names = list(self.parts())
        for first, second in ((names[0], names[1]), (names[0], names[2]), (names[1], names[2])):
            shared = int(torch.isin(getattr(self, first), getattr(self, second)).sum())
            if shared:
                raise ValueError(f"{first} and {second} share {shared} images; the parts of a split must be disjoint")

    def parts(self) -> dict[str, Tensor]:
        """The three parts by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def labelled(self, labels: Tensor) -> Split:
        """The images of each part to which the factor applies: whose label ``[N]`` is not -1.

        Raises ValueError where that leaves a part empty.
        """
        kept = {name: part[labels[part] != NOT_LABELLED] for name, part in self.parts().items()}
        for name, part in kept.items():
            if not len(part):
                raise ValueError(f"no image of {name} has a label")
        return Split(**kept)

    def few(self, labels: Tensor, per_class: int) -> Split:
        """The same split with at most ``per_class`` images of each class to learn from, the first of ``train``.

        labels: int64 ``[N]``, -1 for images that are left out. With all of them to learn from, probes of weak features
        are often as accurate as of strong ones. Raises ValueError for less than one image.
        """
        if per_class < 1:
            raise ValueError(f"per_class must be at least 1, got {per_class}")
        own = labels[self.train]
        kept = [self.train[own == label][:per_class] for label in own.unique() if label != NOT_LABELLED]
        return Split(torch.cat(kept) if kept else self.train[:0], self.validation, self.test)


def stratified_split(labels: Tensor, seed: int, shares: tuple[float, float, float] = (0.7, 0.1, 0.2)) -> Split:
    """Split labelled images so that every class is spread over train, validation and test by ``shares``.

    labels: int64 ``[N]``, -1 for images that are left out. Equal seeds give equal splits. Images lie at even steps
    over the shuffled, class-sorted list, so each part has its share of all images to within one, and of each class to
    within two. Raises ValueError for shares that do not sum to 1 and for too few images.
    """
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares must be three numbers above 0 that sum to 1, got {shares}")
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 [N], got {labels.dtype} {list(labels.shape)}")
    generator = torch.Generator().manual_seed(seed)
    labels = labels.cpu()
    shuffled = torch.randperm(len(labels), generator=generator)
    shuffled = shuffled[labels[shuffled] != NOT_LABELLED]
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    owner = _dealt(len(by_class), shares)
    train, validation, test = (by_class[owner == part].sort().values for part in range(3))
    if not (len(train) and len(validation) and len(test)):
        raise ValueError(f"{len(by_class)} labelled images are too few for shares of {shares}")
    return Split(train, validation, test)


def _dealt(count: int, shares: tuple[float, float, float]) -> Tensor:
    """Part 0, 1 or 2 for each of a list: always the part that is furthest behind its share. ``[count]``."""
    given = [0, 0, 0]
    owner = []
    for place in range(1, count + 1):
        behind = [share * place - had for share, had in zip(shares, given, strict=True)]
        owner.append(behind.index(max(behind)))
        given[owner[-1]] += 1
    return torch.tensor(owner, dtype=torch.int64)


def sound_split(features: Tensor, labels: Tensor, classes: int, split: Split, dims: int) -> Split:
    """The labelled part of ``split``, where ``features`` and ``labels`` are what a probe can learn from.

    features: floats ``[N, D]`` (``dims`` 2) or ``[N, D, H, W]`` (``dims`` 4); labels: int64 ``[N]``, from -1 (left
    out) to ``classes`` - 1. Raises ValueError for other shapes or types, values that are not finite, indices or labels
    out of range, and where training has fewer than two classes.
    """
    _check_features(features, dims)
    if labels.dtype != torch.int64 or labels.shape != features.shape[:1]:
        raise ValueError(f"labels must be int64 [{len(features)}], got {labels.dtype} {list(labels.shape)}")
    last = max(int(part.max()) for part in split.parts().values())
    if last >= len(features):
        raise ValueError(f"the split names image {last} of {len(features)}")
    if int(labels.min()) < NOT_LABELLED or int(labels.max()) >= classes:
        raise ValueError(
            f"labels must be -1 or from 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}"
        )
    split = split.labelled(labels)
    seen = labels[split.train].unique()
    if len(seen) < 2:
        raise ValueError(f"training needs at least two classes, it has only class {int(seen[0])}")
    return split


def _check_features(features: Tensor, dims: int) -> None:
    shape = {2: "[N, D]", 4: "[N, D, H, W]"}[dims]
    if features.ndim != dims or not features.is_floating_point() or 0 in features.shape:
        hint = "; pool spatial features with .mean((2, 3)), or .flatten(1)" if dims == 2 and features.ndim == 4 else ""
        raise ValueError(f"features must be floats {shape}, got {features.dtype} {list(features.shape)}{hint}")
    # A sum is finite only where all values are, and makes no mask as large as the features.
    if not bool(features.sum(dtype=torch.float64).isfinite()):
        bad = sum(not bool(image.isfinite().all()) for image in features)
        raise ValueError(f"features of {bad} images have values that are not finite")
