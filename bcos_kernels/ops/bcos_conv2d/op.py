"""The B-cos convolution with its closed-form gradients (mathematics §2) around one plain convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bcos_kernels import dispatch
from bcos_kernels.ops import maxout
from bcos_kernels.ops.bcos_conv2d.geometry import Geometry
from bcos_kernels.ops.bcos_conv2d.reference import DELTA, EPS, bcos
from bcos_kernels.ops.epilogue import reference


class BcosConv2dOp(torch.autograd.Function):
    """``out, choice, y, n`` of x ``[N, C, H, W]``, rows ``[O * M, C / g, h, w]`` and a gain for the choice.

    ``held``: explanation mode, the scale is a constant in every derivative. Gradients of gradients, which
    only this op's users need, are those of the reference.
    """

    @staticmethod
    def forward(  # with ctx: torch binds the arguments of a separate setup_context at 50 µs a call
        ctx: Any, x: Tensor, rows: Tensor, gain: Tensor | None, geometry: Geometry, b: float, max_out: int, held: bool
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        y, choice = geometry.convolve(x, rows), None
        if max_out > 1:
            choice = maxout.choose(y, gain, max_out)
            y = maxout.take(y, choice, max_out)
        backend = dispatch.epilogue(x, y)
        n = backend.patch_norm(x, *geometry.window, geometry.groups, EPS)
        ctx.geometry, ctx.b, ctx.max_out, ctx.held = geometry, b, max_out, held
        ctx.save_for_backward(x, rows, y, n, choice)
        if forward_ad._current_level >= 0:  # else the node would keep them after the backward has freed its own
            ctx.save_for_forward(x, rows, y, n, choice)
        ctx.mark_non_differentiable(*[t for t in (choice, y, n) if t is not None])
        return backend.scale(y, n, b, DELTA), choice, y, n

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
        x, rows, y, n, choice = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_differentiable_backward(ctx, grad), None, None, None, None, None
        geometry: Geometry = ctx.geometry
        backend, c = dispatch.epilogue(grad, x, y), None
        if ctx.held:
            grad_y = backend.apply_factor(grad, y, n, ctx.b, DELTA)
        else:
            grad_y, c = backend.scale_backward(grad, y, n, ctx.b, DELTA)
        if choice is not None:
            grad_y = maxout.put(grad_y, choice, ctx.max_out)
        dx, drows, _ = torch.ops.aten.convolution_backward(
            grad_y, x, rows, None, geometry.stride, geometry.padding, geometry.dilation, False, [0, 0],
            geometry.groups, [*ctx.needs_input_grad[:2], False],
        )  # fmt: skip
        if c is not None and ctx.needs_input_grad[0]:
            backend.spread(dx, x, c, *geometry.window, geometry.groups)
        return dx, drows, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, rows_t: Tensor | None, *unused: Any) -> tuple[Tensor | None, ...]:
        x, rows, y, n, choice = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        parts = [geometry.convolve(x_t, rows)] if x_t is not None else []
        parts += [geometry.convolve(x, rows_t)] if rows_t is not None else []
        y_t = torch.stack(parts).sum(0) if parts else torch.zeros_like(y)
        if choice is not None and parts:
            y_t = maxout.take(y_t, choice, ctx.max_out)
        n_t = None
        if x_t is not None and not ctx.held:
            product = reference.by_group(reference.widen(x) * reference.widen(x_t), geometry.groups).sum(2)
            n_t = reference.box_sum(product, *geometry.window) / n
        return reference.scale_jvp(y_t, n_t, y, n, ctx.b, DELTA, ctx.held), None, None, None


def _differentiable_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The same gradients, recomputed by the reference so that they can be differentiated again."""
    x, rows, _, _, choice = ctx.saved_tensors
    with torch.enable_grad():
        # Views: where one of the two was computed from the other, no gradient may take that way a second time.
        x, rows = x.view_as(x), rows.view_as(rows)
        out = bcos(x, rows, choice, ctx.geometry, ctx.b, ctx.max_out, ctx.held)
        wanted = [t for t, needed in zip((x, rows), ctx.needs_input_grad[:2], strict=True) if needed]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    dx, drows = (next(found) if needed else None for needed in ctx.needs_input_grad[:2])
    return dx, drows
