"""The three sums of a sparse autoencoder as differentiable functions that touch active rows alone.

With active latents ``i = indices[s, j]`` of sample s: ``weighted_rows`` is the decoder, ``row_products`` its gradient to
the values and the encoder at the latents that were picked, ``scattered_rows`` the gradient to either weight. Each is
linear in two tensors, and its gradients are the other two: so they can be differentiated as often as one likes, and no
pass makes activations ``[N, n]``. An index may occur more than once in a sample.

Shapes of every function. indices: int64 ``[N, k]``; values: ``[N, k]``; table: ``[n, d]``; x: ``[N, d]``; values, table
and x of one floating dtype, any strides, on one device; sums are in float32 for half types. Peers: embedding_bag of
torch, which runs here on the CPU, and the kernels of OpenAI's sparse_autoencoder, which add up the rows of a
latent by atomics, in no fixed order: these repeat to the last bit. ValueError on what does not fit.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from bcos_diffusion.features.sae.sparse import bags, reference, triton
from bcos_kernels import dispatch
from bcos_kernels.ops.wanted import wanted

BACKENDS: dict[str, ModuleType] = {"cpu": bags, "triton": triton, "reference": bags}


def weighted_rows(values: Tensor, indices: Tensor, table: Tensor) -> Tensor:
    """``Σ_j values[s, j] · table[indices[s, j]]``: the decoder, ``[N, d]``."""
    _check(indices, table, values=values, table=table)
    if dispatch.traces():
        return reference.weighted_rows(values, indices, table)
    return _WeightedRows.apply(values, table, indices)  # type: ignore[no-any-return]


def row_products(x: Tensor, indices: Tensor, table: Tensor) -> Tensor:
    """``⟨x[s], table[indices[s, j]]⟩``, ``[N, k]``."""
    _check(indices, table, x=x, table=table)
    if dispatch.traces():
        return reference.row_products(x, indices, table)
    return _RowProducts.apply(x, table, indices)  # type: ignore[no-any-return]


def scattered_rows(values: Tensor, indices: Tensor, x: Tensor, rows: int) -> Tensor:
    """``Σ values[s, j] · x[s]`` over all places where ``indices[s, j]`` is the row: ``[rows, d]``, zero where none is."""
    _check(indices, x, values=values, x=x)
    if dispatch.traces():
        return reference.scattered_rows(values, indices, x, rows)
    return _ScatteredRows.apply(values, x, indices, rows)  # type: ignore[no-any-return]


class _WeightedRows(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, table: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(values, table, indices)
        return _backend(values, table).weighted_rows(values, indices, table)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, table, indices = ctx.saved_tensors
        of_values, of_table = wanted(ctx)
        return (
            row_products(grad, indices, table) if of_values else None,
            scattered_rows(values, indices, grad, len(table)) if of_table else None,
            None,
        )


class _RowProducts(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(x, table, indices)
        return _backend(x, table).row_products(x, indices, table)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, table, indices = ctx.saved_tensors
        of_x, of_table = wanted(ctx)
        return (
            weighted_rows(grad, indices, table) if of_x else None,
            scattered_rows(grad, indices, x, len(table)) if of_table else None,
            None,
        )


class _ScatteredRows(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, x: Tensor, indices: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(values, x, indices)
        return _backend(values, x).scattered_rows(values, indices, x, rows)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, x, indices = ctx.saved_tensors
        of_values, of_x = wanted(ctx)
        return (
            row_products(x, indices, grad) if of_values else None,
            weighted_rows(values, indices, grad) if of_x else None,
            None,
            None,
        )


def _backend(*tensors: Tensor) -> ModuleType:
    return BACKENDS[dispatch.choose(*tensors, among=BACKENDS)]


def _check(indices: Tensor, like: Tensor, /, **tensors: Tensor) -> None:
    first = next(iter(tensors.values()))
    if indices.ndim != 2 or indices.dtype != torch.int64:
        raise ValueError(f"indices must be int64 [N, k], got {indices.dtype} {list(indices.shape)}")
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or not tensor.is_floating_point():
            raise ValueError(f"{name} must be a floating matrix, got {tensor.dtype} {list(tensor.shape)}")
        if tensor.dtype != first.dtype or tensor.device != indices.device:
            raise ValueError(
                f"{' and '.join(tensors)} must have one dtype, and with indices one device; {name} is {tensor.dtype} on"
                f" {tensor.device}, {next(iter(tensors))} is {first.dtype}, indices are on {indices.device}"
            )
    values, x = tensors.get("values"), tensors.get("x")
    if values is not None and values.shape != indices.shape:
        raise ValueError(f"values {list(values.shape)} and indices {list(indices.shape)} must have one shape")
    if x is not None and (len(x) != len(indices) or x.shape[1] != like.shape[1]):
        raise ValueError(f"x {list(x.shape)} must be [{len(indices)}, {like.shape[1]}], as indices and table say")
