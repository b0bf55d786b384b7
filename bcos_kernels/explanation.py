"""Explain a network exactly: its dynamic linear map W(x), applied backward and forward (mathematics §3).

    contributions   backward (VJP): what every input gave to one output, ``x * W^T g``
    maps            forward (JVP):  what one input gave to every output, ``W v``
    completeness    whether inputs and biases add up to the output, and who gave how much

``model`` is an ``nn.Module`` or any callable that returns one tensor. ``inputs`` is a tensor, passed
first, or a mapping of named tensors, passed by keyword: those are explained. ``constants`` are passed
by keyword as they are. The model runs in the mode (train or eval) that it is in; its parameters, their
``.grad`` and ``requires_grad`` are left alone, and the caller may be under ``no_grad``. A thread that
the model itself starts has an explanation mode of its own, which is off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from bcos_kernels.call import SINGLE, Call, Model
from bcos_kernels.completeness import Completeness, completeness
from bcos_kernels.cotangents import Cotangent, Target, cotangents
from bcos_kernels.forward import along, through_stack
from bcos_kernels.mode import explanation_mode, is_explaining, stacked
from bcos_kernels.ops.contribution.op import contribution, summed_dims

__all__ = [
    "Completeness",
    "completeness",
    "contributions",
    "explanation_mode",
    "is_explaining",
    "maps",
    "stacked",
]

METHODS = ("stacked", "jvp")
SumOver = Sequence[int] | Mapping[str, Sequence[int]]


@overload
def contributions(
    model: Model,
    inputs: Tensor,
    cotangent: Cotangent | None = None,
    *,
    target: Target | None = None,
    constants: Mapping[str, Any] | None = None,
    sum_over: SumOver | None = None,
) -> Tensor: ...


@overload
def contributions(
    model: Model,
    inputs: Mapping[str, Tensor],
    cotangent: Cotangent | None = None,
    *,
    target: Target | None = None,
    constants: Mapping[str, Any] | None = None,
    sum_over: SumOver | None = None,
) -> dict[str, Tensor]: ...


def contributions(
    model: Model,
    inputs: Tensor | Mapping[str, Tensor],
    cotangent: Cotangent | None = None,
    *,
    target: Target | None = None,
    constants: Mapping[str, Any] | None = None,
    sum_over: SumOver | None = None,
) -> Tensor | dict[str, Tensor]:
    """Contribution of every input element to one output (or several): ``x * W(x)^T g``, by one backward each.

    inputs: floating tensors of any shape and dtype. g is ``cotangent``: a tensor that broadcasts to
    the output, a function of the output, or ``[T, *output.shape]`` for T explanations from one forward
    pass; or g picks ``target`` along dimension 1: a class, a sequence of T classes, or an int64 tensor
    ``[N]`` or ``[T, N]`` with one class a sample; or g is all ones. ``sum_over``: dimensions of the inputs to sum
    over, or a mapping of such by input name, so that products of an input's size are never in memory:
    1 for the map of an image ``[N, C, H, W]``, -1 for the tokens of ``[N, L, D]``, all but 0 for a sample.
    Returns fresh tensors shaped like the inputs, or like what is left of them, which is then in float32 at
    least; with a leading T where several were asked for. Raises ValueError on inputs, targets, shapes or
    dimensions that do not fit. Source: Böhle et al. 2022, "B-cos Networks", eq. 13.
    """
    call = Call.of(model, inputs, constants)
    sums = _sums(call, sum_over)
    with torch.inference_mode(False), torch.enable_grad(), stacked(1):
        leaves = {name: x.detach().requires_grad_() for name, x in call.inputs.items()}
        output = call.with_inputs(leaves).run()
        directions, several = cotangents(output, cotangent, target)
        gathered: list[list[Tensor]] = [[] for _ in leaves]
        for i, direction in enumerate(directions):
            gradients = _pull(output, list(leaves.values()), direction, keep=i + 1 < len(directions))
            for row, (name, leaf), gradient in zip(gathered, leaves.items(), gradients, strict=True):
                x = leaf.detach()
                row.append(contribution(x, gradient, sums[name]) if name in sums else x * gradient)
    parts = {name: torch.stack(row) if several else row[0] for name, row in zip(leaves, gathered, strict=True)}
    return parts[SINGLE] if call.positional else parts


def _sums(call: Call, sum_over: SumOver | None) -> dict[str, tuple[int, ...]]:
    """The dimensions to sum over, for every input that is to be summed."""
    if sum_over is None:
        return {}
    wanted = sum_over if isinstance(sum_over, Mapping) else dict.fromkeys(call.inputs, sum_over)
    if unknown := wanted.keys() - call.inputs.keys():
        raise ValueError(f"sum_over for unknown inputs: {', '.join(sorted(unknown))}; inputs: {', '.join(call.inputs)}")
    return {name: summed_dims(call.inputs[name], dims) for name, dims in wanted.items()}


def _pull(output: Tensor, leaves: list[Tensor], direction: Tensor, keep: bool) -> tuple[Tensor, ...]:
    """Return ``W^T g``; zeros for what the output does not depend on."""
    if not output.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return torch.autograd.grad(output, leaves, direction, retain_graph=keep, materialize_grads=True)


def maps(
    model: Model,
    inputs: Tensor | Mapping[str, Tensor],
    tangents: Tensor | Mapping[str, Tensor],
    *,
    constants: Mapping[str, Any] | None = None,
    method: str = "stacked",
    chunk_size: int = 16,
) -> Tensor:
    """Push tangents forward through the dynamic linear map: ``W(x) v`` for every v, without a graph.

    tangents: ``[T, *x.shape]``, or a mapping of such by input name (a name left out has tangent 0). A
    token's contribution to the whole output is the map of the tangent that is the token's embedding
    and 0 elsewhere. Returns ``[T, *output.shape]``. Two methods:

    - "stacked": one plain forward pass per ``chunk_size`` tangents, as a batch ``[x; v_1; ...]`` that
      shares the primal's factors. Every module must be linear under :func:`stacked`; a bias, an
      activation that is not held, dropout or a batch statistic raises ValueError. That is found by one
      further part, the sum of the others with fixed weights, whose map must be the same sum. Inputs
      and output need the batch in dimension 0, and constants are passed unstacked.
    - "jvp": forward-mode differentiation under explanation mode, one tangent at a time: exact for any
      torch module, about 2 T forward passes. What is not held is linearised, as in the backward.

    Raises ValueError on tangents that do not fit, and for the method as above.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    call = Call.of(model, inputs, constants)
    pushed = _fit(call, {SINGLE: tangents} if isinstance(tangents, Tensor) else dict(tangents))
    if method == "stacked":
        chunks = zip(*(v.split(chunk_size) for v in pushed.values()), strict=True)
        return torch.cat([through_stack(call, dict(zip(pushed, chunk, strict=True))) for chunk in chunks])
    each = zip(*pushed.values(), strict=True)
    return torch.stack([along(call, dict(zip(pushed, v, strict=True)))[1] for v in each])


def _fit(call: Call, tangents: dict[str, Tensor]) -> dict[str, Tensor]:
    """Check tangents against the inputs, and add zeros for inputs without one."""
    if unknown := tangents.keys() - call.inputs.keys():
        raise ValueError(f"tangents for unknown inputs: {', '.join(sorted(unknown))}; inputs: {', '.join(call.inputs)}")
    counts = {v.shape[0] if v.ndim else 0 for v in tangents.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"tangents must be [T, *input.shape] with one T of at least 1, got T in {sorted(counts)}")
    count = counts.pop()
    fitted = {}
    for name, x in call.inputs.items():
        v = tangents.get(name)
        if v is not None and (v.shape[1:] != x.shape or v.dtype != x.dtype or v.device != x.device):
            raise ValueError(
                f"tangents for {name!r} must be [T, {', '.join(map(str, x.shape))}] {x.dtype} on {x.device},"
                f" got {list(v.shape)} {v.dtype} on {v.device}"
            )
        fitted[name] = x.new_zeros(()).expand(count, *x.shape) if v is None else v.detach()
    return fitted
