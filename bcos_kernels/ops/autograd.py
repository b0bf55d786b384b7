"""The B-cos layer as one node of torch's graph, with its closed-form gradients and tangents (mathematics §2)."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from bcos_kernels.ops import maxout, passes
from bcos_kernels.ops.compose import compose
from bcos_kernels.ops.epilogue import reference
from bcos_kernels.ops.layer import Layer
from bcos_kernels.ops.wanted import wanted


class BcosOp(torch.autograd.Function):
    """``out`` of x, weight ``[O * M, ...]`` and a norm or None; or with ``extras`` a :data:`layer.Primal`.

    Gradients of gradients are those of the reference.
    """

    @staticmethod
    def forward(  # with ctx: torch binds the arguments of a separate setup_context at 50 µs a call
        ctx: Any, x: Tensor, weight: Tensor, norm: Tensor | None, layer: Layer, extras: bool
    ) -> Any:
        out, choice, n, lengths = passes.forward(x, weight, norm, layer)
        if torch.compiler.is_compiling():  # what is kept must not change with the output; this copy costs nothing
            kept, writes = out.clone(), None
        else:  # the output's memory; what users write into it is noticed
            kept, writes = out.data, None if out.is_inference() else _Writes(out)
        ctx.layer, ctx.extras, ctx.writes, ctx.norm_given = layer, extras, writes, norm is not None
        ctx.save_for_backward(x, weight, lengths, kept, n, choice)
        if not extras:
            return out
        rest = choice, n, lengths if choice is None else None
        ctx.mark_non_differentiable(*[t for t in rest if t is not None])
        return out, *rest

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = passes.Kept(*ctx.saved_tensors)
        if torch.is_grad_enabled():
            return *_differentiable_backward(ctx, saved, grad), None, None
        if ctx.writes is not None and ctx.writes.happened():  # the output again, at the price of one more linear map
            norm = saved.n if ctx.norm_given else None
            saved = saved._replace(out=passes.forward(saved.x, saved.weight, norm, ctx.layer)[0])
        return *passes.backward(saved, grad, ctx.layer, wanted(ctx), ctx.norm_given), None, None


class DualBcosOp(BcosOp):
    """The same with tangents: apart, because torch.compile refuses an operation that has any."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, norm: Tensor | None, layer: Layer, extras: bool) -> Any:
        found = BcosOp.forward(ctx, x, weight, norm, layer, extras)
        ctx.save_for_forward(*ctx.to_save)  # here alone: the node keeps them after its backward has freed the others
        return found

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, weight_t: Tensor | None, n_t: Tensor | None, *unused: Any) -> Any:
        x, weight, lengths, out, n, choice = ctx.saved_tensors
        linear, _, _, b, max_out, held = ctx.layer
        y = reference.response(out, n, b, linear.delta)
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
        if not ctx.norm_given:
            n_t = None if x_t is None or held else linear.norm_jvp(x, x_t, n)
        out_t = reference.scale_jvp(y_t, n_t, out, n, b, linear.delta, held).to(out.dtype)
        return (out_t, None, None, None) if ctx.extras else out_t


class _Writes:
    """Notices writes into a tensor without keeping its memory."""

    def __init__(self, watched: Tensor) -> None:
        self._probe = watched.detach()  # shares the counter of writes
        self._probe.data = _nothing(watched.dtype, watched.device)
        self._seen = self._probe._version

    def happened(self) -> bool:
        return self._probe._version != self._seen


@functools.cache
def _nothing(dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.empty(0, dtype=dtype, device=device)


def _chosen(y: Tensor, choice: Tensor | None, max_out: int) -> Tensor:
    return y if choice is None else maxout.take(y, choice, max_out)


def _differentiable_backward(ctx: Any, saved: passes.Kept, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The same gradients, recomputed by the reference so that they can be differentiated again."""
    with torch.enable_grad():
        # Views: where one of them was computed from another, no gradient may take that way a second time.
        x, weight = saved.x.view_as(saved.x), saved.weight.view_as(saved.weight)
        norm = saved.n.view_as(saved.n) if ctx.norm_given else None
        out, *_ = compose(x, weight, norm, ctx.layer, saved.choice)
        candidates = zip((x, weight, norm), ctx.needs_input_grad[:3], strict=True)
        wanted = [t for t, needed in candidates if needed and t is not None]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True, materialize_grads=True))
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad[:3])
