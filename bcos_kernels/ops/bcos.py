"""The B-cos transform around any linear map, with its closed-form gradients (mathematics §2).

The weight is never normalised: ``ŵx = wx / ‖w‖``, so its length enters where the response is scaled, and the
gradient is projected afterwards. For b = 2 the backward pass needs no response either: ``|cos| = sqrt(|out| / n)``,
and the output is kept by the next layer anyway. A layer then keeps its input, as a plain one does, and the norm.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bcos_kernels import dispatch
from bcos_kernels.ops import maxout
from bcos_kernels.ops.epilogue import operators, reference
from bcos_kernels.ops.weights import lengths as lengths_of
from bcos_kernels.ops.weights import rows_of


class LinearMap(Protocol):
    """What differs between a convolution and a matrix product. ``delta``: added to |cos| where b is not 2."""

    @property
    def delta(self) -> float: ...

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """The response of every unit."""

    def norm(self, backend: ModuleType, x: Tensor) -> Tensor:
        """The length of what each unit sees, by the functions of one backend."""

    def norm_jvp(self, x: Tensor, x_t: Tensor, n: Tensor) -> Tensor:
        """The tangent of that length."""

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of x and of the weight; None where not needed."""

    def add_norm_gradient(self, backend: ModuleType, dx: Tensor, x: Tensor, c: Tensor, n: Tensor) -> None:
        """Add to dx, in place, the gradient through the norm, of which c are the coefficients."""


class Layer(NamedTuple):
    """What a layer does with its weight.

    unit: responses are divided by the lengths of the rows; steer: factors of the responses ``[O * M]`` that decide
    MaxOut alone; held: explanation mode, the factor is a constant in every derivative.
    """

    linear: LinearMap
    unit: bool
    steer: Tensor | None
    b: float
    max_out: int
    held: bool


Primal = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""``out, choice, w_x or None, n or None, lengths or None``: what tells the linear map that a layer is at an input."""


def transform(x: Tensor, weight: Tensor, layer: Layer, extras: bool) -> Primal:
    """The layer on x, by kernels where they can run; without ``extras`` only the output is sure to be there."""
    if layer.b == 1 or dispatch.transforms() is not None:  # nothing to scale, or torch sees through its own operations
        return compose(x, weight, layer)
    if extras and torch.compiler.is_compiling():  # which takes no operation that returns None
        return compose(x, weight, layer)
    if forward_ad._current_level >= 0:
        found = DualBcosOp.apply(x, weight, layer, extras)  # type: ignore[no-untyped-call]
    elif torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        found = BcosOp.apply(x, weight, layer, extras)  # type: ignore[no-untyped-call]
    else:
        out, choice, w_x, n, lengths = _run(x, weight, layer)
        return out, choice, None if layer.b == 2 else w_x, n, lengths if choice is None else None
    return found if extras else (found, None, None, None, None)


def _run(x: Tensor, weight: Tensor, layer: Layer) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor | None]:
    """``out, choice, w_x, n, lengths`` by the kernels; for b = 2 out takes the memory of w_x."""
    linear, unit, steer, b, max_out, _ = layer
    w_x, choice = linear(x, weight), None
    backend = _epilogue(x, weight, w_x)
    lengths = used = backend.row_norm(rows_of(weight), 0.0) if unit else None
    if max_out > 1:
        y = over_lengths(w_x, lengths)
        choice = maxout.choose(y, steer, max_out)
        w_x, used = maxout.take(y, choice, max_out).data, None  # .data: an output that is a view is read-only
    n = linear.norm(backend, x)
    return backend.scale(w_x, n, used, b, linear.delta), choice, w_x, n, lengths


def _epilogue(*tensors: Tensor) -> ModuleType:
    """Kernels for these tensors; as operators, which pick their own, where torch.compile writes down what runs."""
    return operators if torch.compiler.is_compiling() else dispatch.epilogue(*tensors)


class BcosOp(torch.autograd.Function):
    """``out`` of x and weight ``[O * M, ...]``, or with ``extras`` a :data:`Primal`.

    Gradients of gradients are those of the reference.
    """

    @staticmethod
    def forward(  # with ctx: torch binds the arguments of a separate setup_context at 50 µs a call
        ctx: Any, x: Tensor, weight: Tensor, layer: Layer, extras: bool
    ) -> Any:
        out, choice, w_x, n, lengths = _run(x, weight, layer)
        traced = torch.compiler.is_compiling()
        kept = w_x
        if layer.b == 2:  # .data: what users do to the output in place is noticed; in a graph a copy costs nothing
            kept = out.clone() if traced else out.data
        ctx.layer, ctx.extras = layer, extras
        ctx.writes = None if layer.b != 2 or traced or out.is_inference() else _Writes(out)
        ctx.save_for_backward(x, weight, lengths, kept, n, choice)
        if not extras:
            return out
        rest = choice, None if layer.b == 2 else w_x, n, lengths if choice is None else None
        ctx.mark_non_differentiable(*[t for t in rest if t is not None])
        return out, *rest

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, lengths, kept, n, choice = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            return *_differentiable_backward(ctx, grad), None, None
        layer: Layer = ctx.layer
        linear, b = layer.linear, layer.b
        used = None if choice is not None else lengths
        backend, c = _epilogue(grad, x, kept), None
        if ctx.writes is not None and ctx.writes.happened():
            kept = _output_again(ctx, backend)
        if layer.held:
            grad_y = backend.apply_factor(grad, kept, n, used, b, linear.delta)
        else:
            grad_y, c = backend.scale_backward(grad, kept, n, used, b, linear.delta)
        if choice is not None:
            grad_y = over_lengths(maxout.put(grad_y, choice, layer.max_out), lengths)
        dx, dw = linear.backward(grad_y, x, weight, needed)
        if c is not None and dx is not None:
            linear.add_norm_gradient(backend, dx, x, c, n)
        if dw is not None and lengths is not None:
            one_order = dw.stride() == weight.stride() and rows_of(weight).is_contiguous()
            (backend if one_order else reference).project_rows(dw, weight, lengths)
        return dx, dw, None, None


class DualBcosOp(BcosOp):
    """The same with tangents: apart, because torch.compile refuses an operation that has any."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: Layer, extras: bool) -> Any:
        found = BcosOp.forward(ctx, x, weight, layer, extras)
        ctx.save_for_forward(
            *ctx.to_save
        )  # not in BcosOp: the node would keep them after its backward has freed its own
        return found

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, weight_t: Tensor | None, *unused: Any) -> Any:
        x, weight, lengths, kept, n, choice = ctx.saved_tensors
        linear, _, _, b, max_out, held = ctx.layer
        y = reference.response(kept, n, None if choice is not None else lengths, b)
        y_t = torch.zeros_like(y)
        parts = [linear(x_t, weight)] if x_t is not None else []
        parts += [linear(x, weight_t)] if weight_t is not None else []
        if parts:
            w_x_t = reference.widen(torch.stack(parts).sum(0))
            y_t = _chosen(w_x_t * reference.gains(lengths, w_x_t), choice, max_out)
        if weight_t is not None and lengths is not None:
            along = (reference.widen(weight) * reference.widen(weight_t)).flatten(1).sum(1)
            growth = along / lengths.masked_fill(lengths == 0, 1).square()  # of the length, as a share of it
            every = growth.view(1, -1, *[1] * (y.ndim - 2)).expand(y.shape[0], -1, *y.shape[2:])
            y_t = y_t - y * _chosen(every, choice, max_out)
        n_t = None if x_t is None or held else linear.norm_jvp(x, x_t, n)
        out_t = reference.scale_jvp(y_t, n_t, y, n, b, linear.delta, held).to(kept.dtype)
        return (out_t, None, None, None, None) if ctx.extras else out_t


def compose(x: Tensor, weight: Tensor, layer: Layer, choice: Tensor | None = None) -> Primal:
    """The same by operations that torch differentiates; no norm where b is 1."""
    linear, unit, steer, b, max_out, held = layer
    w_x, used = linear(x, weight), lengths_of(weight) if unit else None
    if max_out > 1:
        y = over_lengths(w_x, used)
        if choice is None:
            choice = maxout.choose(y.detach(), steer, max_out)
        w_x, used = maxout.take(y, choice, max_out), None
    if b == 1:
        return over_lengths(w_x, used), choice, w_x, None, used
    n = linear.norm(reference, x)
    y = reference.widen(w_x) * reference.gains(used, w_x)
    s = reference.factor(y, n, b, linear.delta)
    out = (y * (s.detach() if held else s)).to(w_x.dtype)
    return out, choice, None if b == 2 else w_x, n, used


def push(others: Tensor, weight: Tensor, layer: Layer, primal: Primal) -> Tensor:
    """The linear map that the layer is at the primal, on others."""
    (out, choice, w_x, n, used), linear = primal, layer.linear
    v = linear(others, weight)
    if choice is not None:
        v = over_lengths(v, lengths_of(weight) if layer.unit else None)
        v = maxout.take(v, choice.repeat(len(v) // len(choice), *[1] * (choice.ndim - 1)), layer.max_out)
    if n is None:
        return over_lengths(v, used)
    kept, n = (out if w_x is None else w_x).detach(), n.detach()
    if torch.is_grad_enabled() and v.requires_grad:  # the lengths are part of the map, but not of the held factor
        factor = reference.factor_of_kept(kept, n, None if used is None else used.detach(), layer.b, linear.delta)
        return reference.apply_to_parts(v if used is None else over_lengths(v, lengths_of(weight)), factor)
    return _epilogue(v, kept, n).apply_factor(v, kept, n, used, layer.b, linear.delta)  # type: ignore[no-any-return]


class _Writes:
    """Notices writes into a tensor without keeping its memory."""

    def __init__(self, watched: Tensor) -> None:
        self._probe = watched.detach()  # shares the counter of writes
        self._probe.data = watched.new_empty(0)
        self._seen = self._probe._version

    def happened(self) -> bool:
        return self._probe._version != self._seen


def _output_again(ctx: Any, backend: ModuleType) -> Tensor:
    """The output that the user has overwritten, at the price of one more linear map."""
    x, weight, lengths, _, n, choice = ctx.saved_tensors
    layer: Layer = ctx.layer
    w_x = layer.linear(x, weight)
    if choice is not None:
        w_x, lengths = maxout.take(over_lengths(w_x, lengths), choice, layer.max_out), None
    return backend.scale(w_x, n, lengths, layer.b, layer.linear.delta)  # type: ignore[no-any-return]


def over_lengths(w_x: Tensor, lengths: Tensor | None) -> Tensor:
    """``ŵx`` from ``wx``, like it."""
    return w_x if lengths is None else (reference.widen(w_x) * reference.gains(lengths, w_x)).to(w_x.dtype)


def _chosen(y: Tensor, choice: Tensor | None, max_out: int) -> Tensor:
    return y if choice is None else maxout.take(y, choice, max_out)


def _differentiable_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The same gradients, recomputed by the reference so that they can be differentiated again."""
    x, weight, _, _, _, choice = ctx.saved_tensors
    with torch.enable_grad():
        # Views: where one of the two was computed from the other, no gradient may take that way a second time.
        x, weight = x.view_as(x), weight.view_as(weight)
        out, *_ = compose(x, weight, ctx.layer, choice)
        wanted = [t for t, needed in zip((x, weight), ctx.needs_input_grad[:2], strict=True) if needed]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    dx, dw = (next(found) if needed else None for needed in ctx.needs_input_grad[:2])
    return dx, dw
