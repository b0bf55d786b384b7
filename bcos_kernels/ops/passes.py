"""A B-cos layer forward and backward by the kernels of one backend, without a graph.

The weight is never normalised: ``ŵx = wx / ‖w‖``, so its length enters where the response is scaled, and the
gradient is projected afterwards. The response is not kept either: the output takes its memory, and determines it
(``epilogue/reference.py``, ``aligned``). The next layer keeps the output anyway. So a layer keeps its input, as a
plain one does, and the norm.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from bcos_kernels import dispatch
from bcos_kernels.ops import maxout
from bcos_kernels.ops.dense import operators as dense_operators
from bcos_kernels.ops.dense import triton as dense_triton
from bcos_kernels.ops.dense.rows import Alignment
from bcos_kernels.ops.epilogue import cpu, operators, reference, triton
from bcos_kernels.ops.layer import Layer, over_lengths
from bcos_kernels.ops.weights import is_dense, rows_of


class Kept(NamedTuple):
    """What a backward pass starts from."""

    x: Tensor
    weight: Tensor
    lengths: Tensor | None
    out: Tensor
    n: Tensor
    choice: Tensor | None


def epilogue(*tensors: Tensor) -> ModuleType:
    """Kernels for these tensors; as operators, which pick their own, where torch.compile writes down what runs."""
    return operators if torch.compiler.is_compiling() else dispatch.epilogue(*tensors)


def forward(
    x: Tensor, weight: Tensor, norm: Tensor | None, layer: Layer
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """``out, choice, n, lengths``."""
    linear, unit, steer, b, max_out, held = layer
    backend, choice = epilogue(x, weight), None
    if norm is None and max_out == 1 and (dense := _dense(backend, x)) and (rows := linear.as_rows(x, weight)):
        out, n, lengths = dense.forward(rows, Alignment(unit, b, linear.delta, held))
        n = n if x.ndim == 2 else linear.from_rows(n[:, None], x)
        return linear.from_rows(out, x).data, None, n, lengths  # .data: an output that is a view is read-only
    w_x = linear(x, weight)
    if backend is cpu and norm is None and max_out == 1 and is_dense(weight):
        n, lengths = linear.finish_on_cpu(x, weight, w_x, unit, b)
        return w_x, None, n, lengths
    lengths = used = backend.row_norm(rows_of(weight), 0.0) if unit else None
    if max_out > 1:
        y = over_lengths(w_x, lengths)
        choice = maxout.choose(y, steer, max_out)
        w_x, used = maxout.take(y, choice, max_out).data, None  # .data: an output that is a view is read-only
    n = linear.norm(backend, x) if norm is None else norm.contiguous()
    return backend.scale(w_x, n, used, b, linear.delta), choice, n, lengths


def backward(
    saved: Kept, grad: Tensor, layer: Layer, needed: tuple[bool, bool], norm_given: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, of the weight, and of a norm that was given (mathematics §2); None where not needed."""
    (x, weight, lengths, out, n, choice), linear = saved, layer.linear
    backend = epilogue(grad, x, out)
    used = None if choice is not None else lengths
    dense = _dense(backend, x) if needed[0] and not norm_given and choice is None else None
    if dense and (rows := linear.as_rows(x, weight)):
        alignment = Alignment(layer.unit, layer.b, linear.delta, layer.held)
        dx, grad_y = dense.backward(rows, alignment, linear.to_rows(grad), linear.to_rows(out), n.view(-1), used)
        dw = (grad_y.t() @ rows.x).view_as(weight) if needed[1] else None
        _project(backend, dw, weight, lengths)
        return linear.from_rows(dx, x), dw, None
    if layer.held:
        grad_y, c = backend.apply_factor(grad, out, n, used, layer.b, linear.delta), None
    else:
        grad_y, c = backend.scale_backward(grad, out, n, used, layer.b, linear.delta)
    if choice is not None:
        grad_y = over_lengths(maxout.put(grad_y, choice, layer.max_out), lengths)
    dx, dw = linear.backward(grad_y, x, weight, needed)
    _project(backend, dw, weight, lengths)
    if c is None or norm_given:
        return dx, dw, c * n if c is not None else None
    if dx is not None:
        linear.add_norm_gradient(backend, dx, x, c, n)
    return dx, dw, None


def _dense(backend: ModuleType, x: Tensor) -> ModuleType | None:
    """Who computes a whole layer that is a matrix product, where the backend has that."""
    if backend is triton:
        return dense_triton
    return dense_operators if backend is operators and x.is_cuda else None


def _project(backend: ModuleType, dw: Tensor | None, weight: Tensor, lengths: Tensor | None) -> None:
    if dw is not None and lengths is not None:
        one_order = dw.stride() == weight.stride() and is_dense(weight)
        (backend if one_order else reference).project_rows(dw, weight, lengths)
