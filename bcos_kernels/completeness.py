"""Do the contributions add up to the output, and who carries how much of it? (mathematics §3, identity 1)"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm

from bcos_kernels.call import Call, Model
from bcos_kernels.constants import additive_parameters, collecting
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
    element. explained: ``<g, output>``. mass: what each named input, true bias and constant gave to it.
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
        return self.grouped({})

    def grouped(self, groups: Mapping[str, str]) -> dict[str, float]:
        """The budget with names joined: ``{"biases": "*.bias"}`` sums the shares of all that match the pattern.

        A name goes to the first group whose pattern (as in ``fnmatch``) it matches, or stays on its own.
        """
        if self.explained == 0:
            raise ValueError("the explained output is exactly 0 and has no shares; choose another cotangent or target")
        shares: dict[str, float] = {}
        for name, value in self.mass.items():
            group = next((group for group, pattern in groups.items() if fnmatchcase(name, pattern)), name)
            shares[group] = shares.get(group, 0.0) + value / self.explained
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
    or with none. ``offsets`` names further parameters that the model adds, such as a position embedding; those that
    modules list in ``additive_parameters`` are known. What a module computes and declares a constant
    (:mod:`bcos_kernels.constants`), such as an embedding of time, is reported under the module's name. Whatever is
    none of these (a constant in the code, an activation that is not held) shows as ``error`` and as "rest".
    The total comes from forward-mode, the budget from backward-mode differentiation. Not for a model
    that another thread trains meanwhile. Raises ValueError as ``contributions``, or for an unknown offset.
    """
    call = Call.of(model, inputs, constants)
    with _swapping, torch.inference_mode(False):
        call, tangents, means = _with_biases(call, offsets)
        # One pass an input, so that the total is a sum of what each of them gives, rounding included.
        declared = DeclaredConstants(model)
        with collecting(declared.notice):
            passes = [along(call, {name: x}) for name, x in call.inputs.items()]
        if tangents or declared.found:
            with collecting(declared.move):
                passes.append(along(call, {}, tangents))
        output = passes[0][0]
        total = torch.stack([given for _, given in passes]).sum(0)
        explained, mass = _budget(call, cotangent, target, means)
    return Completeness(output, total, explained, mass)


def given_by_biases(call: Call, declared: DeclaredConstants) -> Tensor | None:
    """What true biases and declared constants gave to the output of a call, by element; None where there is none.

    declared: has noticed the constants of the model.
    """
    with _swapping, torch.inference_mode(False):
        call, tangents, _ = _with_biases(call)
        if not tangents and not declared.found:
            return None
        with collecting(declared.move):
            return along(call, {}, tangents)[1]


def _with_biases(
    call: Call, offsets: Sequence[str] = ()
) -> tuple[Call, dict[str, Tensor], dict[str, tuple[str, Tensor]]]:
    """The call with its biases as parameters of its own, their tangents, and the constants of running means."""
    found = _biases(call.model, offsets)
    tangents = {name: b.detach().clone() for name, b in found.items()}
    means = {name: mean for name, mean in _running_means(call.model).items() if mean[0] in found}
    call = replace(call, parameters={name: b.clone() for name, b in tangents.items()})
    for bias, constant in means.values():
        tangents[bias] = tangents[bias] + constant
    return call, tangents, means


def _budget(
    call: Call, cotangent: Cotangent | None, target: Target | None, means: dict[str, tuple[str, Tensor]]
) -> tuple[float, dict[str, float]]:
    """Return ``<g, output>`` and ``<x, W^T g>`` for every input and bias."""
    declared = DeclaredConstants(call.model)
    with torch.enable_grad(), stacked(1), collecting(declared.follow):
        leaves = {name: x.detach().requires_grad_() for name, x in call.inputs.items()}
        biases = {name: b.detach().requires_grad_() for name, b in call.parameters.items()}
        output = Call(call.model, leaves, call.positional, call.constants, biases).run()
        directions, several = cotangents(output, cotangent, target)
        if several:
            raise ValueError("completeness explains one cotangent or target, got several")
        if output.requires_grad:
            wanted = [*leaves.values(), *biases.values(), *(value for _, value in declared.found)]
            gradients = torch.autograd.grad(output, wanted, directions[0], materialize_grads=True)
        else:
            declared.found.clear()
            gradients = tuple(torch.zeros_like(x) for x in (*leaves.values(), *biases.values()))
    slopes = dict(zip(biases, gradients[len(leaves) :], strict=False))
    mass = {name: _inner(x, g) for (name, x), g in zip(leaves.items(), gradients, strict=False)}
    mass |= {name: _inner(b, slopes[name]) for name, b in biases.items()}
    mass |= {name: _inner(constant, slopes[bias]) for name, (bias, constant) in means.items()}
    for (name, value), g in zip(declared.found, gradients[len(leaves) + len(biases) :], strict=True):
        mass[name] = mass.get(name, 0.0) + _inner(value, g)
    return _inner(output, directions[0]), mass


def _modules(model: Model) -> list[tuple[str, nn.Module]]:
    return list(model.named_modules()) if isinstance(model, nn.Module) else []


class DeclaredConstants:
    """The constants that modules of a model declare while it runs, by the modules' names."""

    def __init__(self, model: Model):
        self.names = {module: name for name, module in _modules(model)}
        self.found: list[tuple[str, Tensor]] = []

    def notice(self, module: nn.Module, value: Tensor) -> Tensor:
        """Keep what is declared."""
        if module in self.names:
            self.found.append((self.names[module], value))
        return value

    def follow(self, module: nn.Module, value: Tensor) -> Tensor:
        """Keep it as a leaf of the graph."""
        return self.notice(module, value.requires_grad_() if module in self.names else value)

    def move(self, module: nn.Module, value: Tensor) -> Tensor:
        """Give it itself as tangent."""
        return forward_ad.make_dual(value, value.clone()) if module in self.names else value


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
    added = additive_parameters(model).union(offsets)
    found: dict[str, Tensor] = {
        name: p for name, p in parameters.items() if name in added or "bias" in name.rpartition(".")[2]
    }
    for name, module in model.named_modules():
        if isinstance(module, BatchNorm2d) and (mean := module.subtracted_constant()) is not None:
            found[f"{name}.running_mean" if name else "running_mean"] = mean
    return found


def _running_means(model: Model) -> dict[str, tuple[str, Tensor]]:
    """Per running mean of a batch norm: the bias beside it, and the constant ``-mean * weight / deviation``."""
    found: dict[str, tuple[str, Tensor]] = {}
    for name, module in _modules(model):
        prefix = f"{name}." if name else ""
        if not isinstance(module, _BatchNorm) or module.training or module.weight is None:
            continue
        if isinstance(module, BatchNorm2d) and not module.centred:
            continue
        if module.running_mean is not None and module.running_var is not None:
            scale = module.weight / (module.running_var + module.eps).sqrt()
            found[f"{prefix}running_mean"] = (f"{prefix}bias", (-module.running_mean * scale).detach())
    return found
