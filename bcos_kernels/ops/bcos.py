"""The B-cos layer around any linear map: on an input, and as the linear map that it is there, on other inputs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bcos_kernels import dispatch
from bcos_kernels.ops import maxout, passes
from bcos_kernels.ops.autograd import BcosOp, DualBcosOp
from bcos_kernels.ops.compose import compose
from bcos_kernels.ops.epilogue import operators, reference
from bcos_kernels.ops.layer import Layer, Primal, over_lengths
from bcos_kernels.ops.weights import lengths as lengths_of


def transform(x: Tensor, weight: Tensor, norm: Tensor | None, layer: Layer, extras: bool) -> Primal:
    """The layer on x, by kernels where they can run; without ``extras`` only the output is sure to be there.

    norm: of what each unit sees, where it is known already; the gradient then goes through it.
    """
    if layer.b == 1 or dispatch.transforms() is not None:  # nothing to scale, or torch sees through its own operations
        return compose(x, weight, norm, layer)
    if extras and torch.compiler.is_compiling():  # which takes no operation that returns None
        return compose(x, weight, norm, layer)
    learns = x.requires_grad or weight.requires_grad or (norm is not None and norm.requires_grad)
    if forward_ad._current_level >= 0:
        found = DualBcosOp.apply(x, weight, norm, layer, extras)  # type: ignore[no-untyped-call]
    elif learns and torch.is_grad_enabled():
        found = BcosOp.apply(x, weight, norm, layer, extras)  # type: ignore[no-untyped-call]
    else:
        out, choice, n, lengths = passes.forward(x, weight, norm, layer)
        return out, choice, n, lengths if choice is None else None
    return found if extras else (found, None, None, None)


def push(others: Tensor, weight: Tensor, layer: Layer, primal: Primal) -> Tensor:
    """The output of the primal, and after it the linear map that the layer is there, on others."""
    (out, choice, n, used), linear = primal, layer.linear
    v = linear(others, weight)
    if choice is not None:
        v = over_lengths(v, lengths_of(weight) if layer.unit else None)
        v = maxout.take(v, choice.repeat(len(v) // len(choice), *[1] * (choice.ndim - 1)), layer.max_out)
    if n is None:
        return torch.cat([out, over_lengths(v, used)])
    kept, n = out.detach(), n.detach()
    if torch.is_grad_enabled() and v.requires_grad:  # the lengths are part of the map, but not of the held factor
        factor = reference.factor_of_kept(kept, n, layer.b, linear.delta)
        v = v if used is None else over_lengths(v, lengths_of(weight))
        return torch.cat([out, reference.apply_to_parts(v, factor)])
    backend = passes.epilogue(v, kept, n)
    if backend is operators:
        return torch.cat([out, backend.apply_factor(v, kept, n, used, layer.b, linear.delta)])
    shape = len(out) + len(v), *v.shape[1:]
    stack = torch.empty(shape, dtype=v.dtype, device=v.device, memory_format=_order(v))
    stack[: len(out)] = out
    backend.apply_factor(v, kept, n, used, layer.b, linear.delta, stack[len(out) :])
    return stack


def _order(v: Tensor) -> torch.memory_format:
    """The memory format of v, as convolutions know it."""
    planar = v.ndim < 4 or v.is_contiguous() or not v.is_contiguous(memory_format=torch.channels_last)
    return torch.contiguous_format if planar else torch.channels_last
