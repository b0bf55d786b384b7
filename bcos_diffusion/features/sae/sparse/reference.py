"""The three sums in plain torch, which forms every product: what transforms see through, and tests compare with."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_rows(values: Tensor, indices: Tensor, table: Tensor) -> Tensor:
    """``[N, d]``."""
    return torch.einsum("nk,nkd->nd", values, table[indices])


def row_products(x: Tensor, indices: Tensor, table: Tensor) -> Tensor:
    """``[N, k]``."""
    return torch.einsum("nd,nkd->nk", x, table[indices])


def scattered_rows(values: Tensor, indices: Tensor, x: Tensor, rows: int) -> Tensor:
    """``[rows, d]``."""
    products = values[:, :, None] * x[:, None]  # [N, k, d]
    return x.new_zeros(rows, x.shape[1]).index_add(0, indices.flatten(), products.flatten(0, 1))
