"""A B-cos layer by operations that torch differentiates: for its transforms, for b = 1, for gradients of gradients."""

from __future__ import annotations

from torch import Tensor

from bcos_kernels.ops import maxout
from bcos_kernels.ops.epilogue import reference
from bcos_kernels.ops.layer import Layer, Primal, over_lengths
from bcos_kernels.ops.weights import lengths as lengths_of


def compose(x: Tensor, weight: Tensor, norm: Tensor | None, layer: Layer, choice: Tensor | None = None) -> Primal:
    """The layer on x; ``norm``: of what each unit sees, where it is known; none is taken where b is 1."""
    linear, unit, steer, b, max_out, held = layer
    w_x, used = linear(x, weight), lengths_of(weight) if unit else None
    if max_out > 1:
        y = over_lengths(w_x, used)
        if choice is None:
            choice = maxout.choose(y.detach(), steer, max_out)
        w_x, used = maxout.take(y, choice, max_out), None
    if b == 1:
        return over_lengths(w_x, used), choice, None, used
    n = linear.norm(reference, x) if norm is None else norm
    y = reference.widen(w_x) * reference.gains(used, w_x)
    s = reference.factor(y, n, b, linear.delta)
    out = (y * (s.detach() if held else s)).to(w_x.dtype)
    return out, choice, n, used
