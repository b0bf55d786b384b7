"""Features of a store as a k-sparse autoencoder reads them: rows, an image or a place of an image each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bcos_diffusion.features.key import Key
from bcos_diffusion.features.store import FeatureStore

HELD_BYTES = 2**29
"""Rows of at most so many bytes in float32 are held in memory; of more, those are read that are asked for."""
_IMAGES_AT_ONCE = 256


class StoredRows:
    """Rows ``[N * positions, D]``: the mean over places of each image (``positions`` 1), or each of its places.

    Those of an image follow one another, row-major. grid: rows and columns of places, None for means. Raises
    ValueError for places of pooled features.
    """

    def __init__(self, store: FeatureStore, key: Key, places: bool = False):
        shape = store.shapes[key.layer]
        if places and len(shape) == 1:
            raise ValueError(f"the features in {store.folder} are pooled and have no places; extract with --spatial")
        self.store, self.key, self.dim = store, key, shape[0]
        self.grid = (shape[1], shape[2]) if places else None
        self.positions = math.prod(shape[1:]) if places else 1

    def __len__(self) -> int:
        return len(self.store) * self.positions

    def rows(self, indices: Tensor) -> Tensor:
        """Rows ``[B, D]`` in float32 by their numbers, int64 ``[B]``."""
        images, which = torch.unique(indices // self.positions, return_inverse=True)
        found = self.store.read(*self.key, images)
        if self.grid is not None:
            return found.flatten(2)[which, :, indices % self.positions]
        return (found if found.ndim == 2 else found.mean((2, 3)))[which]

    def held(self) -> Tensor | StoredRows:
        """All rows as a tensor where they fit into memory, else these."""
        if 4 * self.dim * len(self) > HELD_BYTES:
            return self
        every = torch.arange(len(self)).split(_IMAGES_AT_ONCE * self.positions)
        return torch.cat([self.rows(some) for some in every])
