"""Do the contributions add up to the output, and who carries how much of it? (mathematics §3, identity 1)"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bcos_kernels.call import Call, Model
from bcos_kernels.cotangents import Cotangent, Target, cotangents
from bcos_kernels.forward import along
from bcos_kernels.mode import stacked
from bcos_kernels.modules.norms import BatchNorm2d

# functional_call swaps parameters in place for the length of a call: two at once could restore each other's.
_swapping = threading.RLock()


@dataclass(frozen=True, eq=False)
class Completeness:
    """How far an output is the sum of contributions, and whose.

    output, total: the model's output and the sum of what inputs and biases gave to it, element by
    element. explained: ``<g, output>``. mass: what each named input and each true bias gave to it.
    """

    output: Tensor
    total: Tensor
    explained: float
    mass: dict[str, float]

    @property
    def error(self) -> float:
        """``|output - total| / |output|`` in the L2 norm over all elements; 0 when the explanation is complete."""
        output = self.output.double()
        missing, size = float((output - self.total.double()).norm()), float(output.norm())
        return missing / size if size else (0.0 if missing == 0 else float("inf"))

    @property
    def budget(self) -> dict[str, float]:
        """Shares of ``explained`` by input and bias, and what nobody accounts for as "rest"; they sum to 1."""
        if self.explained == 0:
            raise ValueError("the explained output is exactly 0 and has no shares; choose another cotangent or target")
        shares = {name: value / self.explained for name, value in self.mass.items()}
        return shares | {"rest": 1.0 - sum(shares.values())}

    def __str__(self) -> str:
        lines = [f"relative error {self.error:.2e}, explained {self.explained:.6g}"]
        shares = {name: value / self.explained for name, value in self.mass.items()} if self.explained else {}
        for name, value in sorted(self.mass.items(), key=lambda item: -abs(item[1])):
            lines.append(f"  {value:12.5g}  {shares.get(name, 0.0):8.2%}  {name}")
        return "\n".join(lines)


def completeness(
    model: Model,
    inputs: Tensor | Mapping[str, Tensor],
    cotangent: Cotangent | None = None,
    *,
    target: Target | None = None,
    constants: Mapping[str, Any] | None = None,
    offsets: Sequence[str] = (),
) -> Completeness:
    """Measure ``output = sum of contributions`` over all elements, and the budget of one explained sum.

    Arguments as :func:`bcos_kernels.explanation.contributions`, with a single cotangent. A parameter b
    whose name contains "bias" is an input of its own: it gives ``<b, dL/db>`` and is reported under its
    name, as is the constant that the running mean of a batch norm subtracts, in evaluation, with a bias beside it
    or with none. ``offsets`` names further
    parameters that the model adds, such as a position embedding. Whatever is neither (a constant in the
    code, an activation that is not held) shows as ``error`` and as the budget's "rest".
    The total comes from forward-mode, the budget from backward-mode differentiation. Not for a model
    that another thread trains meanwhile. Raises ValueError as ``contributions``, or for an unknown offset.
    """
    call = Call.of(model, inputs, constants)
    found = _biases(model, offsets)
    with _swapping, torch.inference_mode(False):
        tangents = {name: b.detach().clone() for name, b in found.items()}
        call = replace(call, parameters={name: b.clone() for name, b in tangents.items()})
        means = {name: mean for name, mean in _running_means(model).items() if mean[0] in found}
        for bias, constant in means.values():
            tangents[bias] = tangents[bias] + constant
        # One pass an input, so that the total is a sum of what each of them gives, rounding included.
        passes = [along(call, {name: x}) for name, x in call.inputs.items()]
        if tangents:
            passes.append(along(call, {}, tangents))
        output = passes[0][0]
        total = torch.stack([given for _, given in passes]).sum(0)
        explained, mass = _budget(call, cotangent, target, means)
    return Completeness(output, total, explained, mass)


def _budget(
    call: Call, cotangent: Cotangent | None, target: Target | None, means: dict[str, tuple[str, Tensor]]
) -> tuple[float, dict[str, float]]:
    """Return ``<g, output>`` and ``<x, W^T g>`` for every input and bias."""
    with torch.enable_grad(), stacked(1):
        leaves = {name: x.detach().requires_grad_() for name, x in call.inputs.items()}
        biases = {name: b.detach().requires_grad_() for name, b in call.parameters.items()}
        output = Call(call.model, leaves, call.positional, call.constants, biases).run()
        directions, several = cotangents(output, cotangent, target)
        if several:
            raise ValueError("completeness explains one cotangent or target, got several")
        if output.requires_grad:
            wanted = [*leaves.values(), *biases.values()]
            gradients = torch.autograd.grad(output, wanted, directions[0], materialize_grads=True)
        else:
            gradients = tuple(torch.zeros_like(x) for x in (*leaves.values(), *biases.values()))
    slopes = dict(zip(biases, gradients[len(leaves) :], strict=True))
    mass = {name: _inner(x, g) for (name, x), g in zip(leaves.items(), gradients, strict=False)}
    mass |= {name: _inner(b, slopes[name]) for name, b in biases.items()}
    mass |= {name: _inner(constant, slopes[bias]) for name, (bias, constant) in means.items()}
    return _inner(output, directions[0]), mass


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() * b.double()).sum())


def _biases(model: Model, offsets: Sequence[str]) -> dict[str, Tensor]:
    """Parameters that are true biases, by name, and running means that a batch norm without a bias subtracts."""
    if not isinstance(model, nn.Module):
        if offsets:
            raise ValueError("offsets name parameters: the model must be an nn.Module")
        return {}
    parameters = dict(model.named_parameters())
    if unknown := set(offsets) - parameters.keys():
        raise ValueError(f"offsets that are no parameter of the model: {', '.join(sorted(unknown))}")
    found: dict[str, Tensor] = {
        name: p for name, p in parameters.items() if name in offsets or "bias" in name.rpartition(".")[2]
    }
    for name, module in model.named_modules():
        if isinstance(module, BatchNorm2d) and (mean := module.subtracted_constant()) is not None:
            found[f"{name}.running_mean" if name else "running_mean"] = mean
    return found


def _running_means(model: Model) -> dict[str, tuple[str, Tensor]]:
    """Per running mean of a batch norm: the bias beside it, and the constant ``-mean * weight / deviation``."""
    found: dict[str, tuple[str, Tensor]] = {}
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        prefix = f"{name}." if name else ""
        if not isinstance(module, _BatchNorm) or module.training or module.weight is None:
            continue
        if isinstance(module, BatchNorm2d) and not module.centred:
            continue
        if module.running_mean is not None and module.running_var is not None:
            scale = module.weight / (module.running_var + module.eps).sqrt()
            found[f"{prefix}running_mean"] = (f"{prefix}bias", (-module.running_mean * scale).detach())
    return found
