"""A B-cos layer that is a matrix product, as two torch operators: what torch.compile calls on a CUDA device."""

from __future__ import annotations

from torch import Tensor

from bcos_kernels import dispatch
from bcos_kernels.ops.dense import rows as apart
from bcos_kernels.ops.dense import triton
from bcos_kernels.ops.dense.rows import Alignment, Forward, Rows
from bcos_kernels.ops.epilogue import triton as triton_epilogue
from bcos_kernels.ops.epilogue.checks import check_dims, check_like, check_scale
from bcos_kernels.ops.epilogue.layout import accumulator
from bcos_kernels.ops.library import register

_LAYER = "Tensor x, Tensor weight, float eps, bool root_of_sum, bool unit, float b, float delta"


def forward(rows: Rows, alignment: Alignment) -> Forward:
    """As :func:`bcos_kernels.ops.dense.rows.forward`, by the backend that runs."""
    out, n, lengths = _forward(*rows, *alignment[:3])
    return out, n, lengths if alignment.unit else None


def backward(
    rows: Rows, alignment: Alignment, grad: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As :func:`bcos_kernels.ops.dense.rows.backward`, by the backend that runs."""
    return _backward(*rows, *alignment, grad, kept, n, lengths)  # type: ignore[no-any-return]


def _run_forward(
    x: Tensor, weight: Tensor, eps: float, root_of_sum: bool, unit: bool, b: float, delta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A schema has no optional results: an empty tensor stands for lengths that there are none of."""
    _check(x, weight)
    rows, alignment = Rows(x, weight, eps, root_of_sum), Alignment(unit, b, delta, False)
    backend = dispatch.epilogue(x, weight)
    whole = triton.forward(rows, alignment) if backend is triton_epilogue else apart.forward(backend, rows, alignment)
    out, n, lengths = whole
    return out, n, n.new_empty(0) if lengths is None else lengths


def _run_backward(
    x: Tensor, weight: Tensor, eps: float, root_of_sum: bool, unit: bool, b: float, delta: float, held: bool,
    grad: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    _check(x, weight)
    check_scale(kept, n, lengths, b)
    check_like("grad", grad, kept)
    if kept.shape != (x.shape[0], weight.shape[0]):
        raise ValueError(f"kept must be [{x.shape[0]}, {weight.shape[0]}], got {tuple(kept.shape)}")
    rows, alignment = Rows(x, weight, eps, root_of_sum), Alignment(unit, b, delta, held)
    n, lengths = n.contiguous(), None if lengths is None else lengths.contiguous()
    backend = dispatch.epilogue(x, weight, grad, kept)
    if backend is triton_epilogue:
        return triton.backward(rows, alignment, grad, kept, n, lengths)
    return apart.backward(backend, rows, alignment, grad, kept, n, lengths)


def _check(x: Tensor, weight: Tensor) -> None:
    check_dims("x", x, 2)
    check_dims("weight", weight, 2)
    if x.shape[1] != weight.shape[1] or x.dtype != weight.dtype:
        raise ValueError(f"weight must be [O, {x.shape[1]}] {x.dtype}, got {tuple(weight.shape)} {weight.dtype}")


def _shapes_forward(
    x: Tensor, weight: Tensor, eps: float, root_of_sum: bool, unit: bool, b: float, delta: float
) -> tuple[Tensor, Tensor, Tensor]:
    out = x.new_empty(x.shape[0], weight.shape[0])
    n = x.new_empty(x.shape[0], dtype=accumulator(x))
    return out, n, n.new_empty(weight.shape[0] if unit else 0)


def _shapes_backward(x: Tensor, weight: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0], weight.shape[0])


_forward = register(f"dense_forward({_LAYER}) -> (Tensor, Tensor, Tensor)", _run_forward, _shapes_forward)
_backward = register(
    f"dense_backward({_LAYER}, bool held, Tensor grad, Tensor kept, Tensor n, Tensor? lengths) -> (Tensor, Tensor)",
    _run_backward,
    _shapes_backward,
)
