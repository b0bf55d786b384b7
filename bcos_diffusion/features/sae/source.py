"""Where features come from: a tensor, or anything that reads rows, so that they need not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Rows(Protocol):
    """Features ``[N, D]`` on a disk, say. ``rows`` reads some: indices int64 ``[B]`` -> floating ``[B, D]``."""

    def __len__(self) -> int: ...

    def rows(self, indices: Tensor) -> Tensor: ...


Features = Tensor | Rows
"""What an autoencoder reads: floating ``[N, D]``; spatial ones flattened to ``[N * H * W, D]``."""


def read(features: Features, indices: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Some rows in the dtype and on the device of a model. Raises ValueError on what is not finite or not a matrix."""
    if isinstance(features, Tensor):
        found = features[indices.to(features.device)]
    else:
        found = features.rows(indices)
    if found.ndim != 2 or not found.is_floating_point() or len(found) != len(indices):
        raise ValueError(f"rows of features must be floating [{len(indices)}, D], got {found.dtype} {list(found.shape)}")
    found = found.to(device, dtype)
    if not found.isfinite().all():
        raise ValueError("features must be finite; some are infinite or NaN")
    return found


def batches(features: Features, size: int, dtype: torch.dtype, device: torch.device) -> Iterator[Tensor]:
    """All rows in their order, ``size`` at a time."""
    for first in range(0, len(features), size):
        yield read(features, torch.arange(first, min(first + size, len(features))), dtype, device)


def check(features: Features) -> None:
    """Raise ValueError unless these are features, two rows of them at least."""
    if isinstance(features, Tensor):
        if features.ndim != 2 or not features.is_floating_point():
            raise ValueError(
                f"features must be floating [N, D], spatial ones flattened to [N * H * W, D]; got {features.dtype}"
                f" {list(features.shape)}"
            )
    elif not isinstance(features, Rows):
        raise ValueError(f"features must be a tensor [N, D], or have __len__ and rows(indices); got {type(features)}")
    if len(features) < 2:
        raise ValueError(f"features must have two rows at least, got {len(features)}")
