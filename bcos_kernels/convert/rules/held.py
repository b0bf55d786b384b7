"""The value of a function, and the linear map that it is once its data-dependent factors are held (mathematics §3).

Each helper takes the function itself, so that values stay what they were to the bit, with explanation mode on and
off; under explanation mode the graph behind the value is that of the linear map. In a stacked batch the map is that
of the first part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_kernels.mode import hold, is_explaining, primal, slices, weigh
from bcos_kernels.modules.precision import accumulate
from bcos_kernels.ops.norms.op import Norm, normalise

Function = Callable[[Tensor], Tensor]


def carry(value: Tensor, linear: Tensor) -> Tensor:
    """The value, with the graph of ``linear``, which equals it up to rounding."""
    if slices() > 1:
        return linear
    return value.detach() + (linear - linear.detach())


def gate(function: Function, x: Tensor) -> Tensor:
    """``x * held(f(x) / x)`` for an elementwise f with ``f(0) = 0``."""
    if not is_explaining():
        return function(x)
    first = primal(x).detach()
    with torch.no_grad():
        value = function(first.clone())  # a copy, because f may write in place
        ratio = accumulate(value) / accumulate(first)
        ratio = torch.where(first == 0, torch.zeros_like(ratio), ratio)
    return carry(value, weigh(accumulate(x), ratio).to(value.dtype))


def factor(function: Function, x: Tensor) -> Tensor:
    """``f(x)`` as a held factor of something else."""
    if slices() == 1:
        return hold(function(x))
    found = hold(function(primal(x)))
    return found.repeat(slices(), *[1] * (found.ndim - 1))


def glu(function: Function, x: Tensor, dim: int) -> Tensor:
    """``value * held(sigmoid(gate))`` where value and gate are the halves of x along ``dim``."""
    if not is_explaining():
        return function(x)
    with torch.no_grad():
        value = function(x.detach()) if slices() == 1 else x
    half, gated = x.chunk(2, dim)
    return carry(value, weigh(half, torch.sigmoid(primal(gated))))


def unit(function: Function, x: Tensor, p: float, dim: int, eps: float) -> Tensor:
    """``x / held(norm of x)``, as ``F.normalize``."""
    if not is_explaining():
        return function(x)
    with torch.no_grad():
        value = function(x.detach()) if slices() == 1 else x
    length = torch.linalg.vector_norm(primal(x).detach(), p, dim, keepdim=True).clamp_min(eps)
    return carry(value, weigh(x, 1 / length))


def norm(function: Function, x: Tensor, weight: Tensor | None, bias: Tensor | None, rule: Norm) -> Tensor:
    """A norm whose deviation is held: ``weight * (x - mean) * held(1 / deviation) + bias``.

    weight and bias: by channel, which is dimension 1 of x, or the last one for a norm over the last.
    """
    if not is_explaining():
        return function(x)
    with torch.no_grad():
        value = function(x.detach()) if slices() == 1 else x
    linear = normalise(x, weight, rule, extras=False)[0]
    if bias is not None:
        linear = linear + (bias if rule.over == "last" else bias.view(-1, *[1] * (x.ndim - 2))).to(linear.dtype)
    return carry(value, linear.to(value.dtype))


def last_norm(
    function: Function, x: Tensor, dims: int, weight: Tensor | None, bias: Tensor | None, eps: float | None,
    centred: bool,
) -> Tensor:  # fmt: skip
    """A norm over the last ``dims`` dimensions of x; weight and bias have their shape."""
    rule = Norm("last", 1, torch.finfo(x.dtype).eps if eps is None else eps, centred, centred)
    flat_weight, flat_bias = (None if t is None else t.flatten() for t in (weight, bias))

    def flattened(rows: Tensor) -> Tensor:
        return function(rows.unflatten(-1, x.shape[-dims:])).flatten(-dims)

    return norm(flattened, x.flatten(-dims), flat_weight, flat_bias, rule).unflatten(-1, x.shape[-dims:])


def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:
    """torch's attention with held probabilities: only the value carries signal."""
    query, key = (factor(lambda t: t, t) if is_explaining() else t for t in (query, key))
    return F.scaled_dot_product_attention(query, key, value, *args, **options)
