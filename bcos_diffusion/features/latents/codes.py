"""The codes of stored features, a few images at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bcos_diffusion.features.sae.autoencoder import KSparseAutoencoder
from bcos_diffusion.features.stored_rows import StoredRows

_ROWS = 1024


def parts_of(rows: StoredRows) -> list[Tensor]:
    """The numbers of all rows, in parts of whole images each."""
    images = max(1, _ROWS // rows.positions)
    return list(torch.arange(len(rows)).split(images * rows.positions))


@torch.no_grad()
def codes_of(
    autoencoder: KSparseAutoencoder, rows: StoredRows, advance: Callable[[], object] = lambda: None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Values and indices ``[B, k]`` of the rows of :func:`parts_of`, in order. Raises ValueError for another width."""
    if autoencoder.dim != rows.dim:
        raise ValueError(
            f"the autoencoder is of features of width {autoencoder.dim}, those of {rows.key.layer} have {rows.dim}"
        )
    for some in parts_of(rows):
        yield autoencoder.encode(rows.rows(some).to(autoencoder.decoder.device))
        advance()
