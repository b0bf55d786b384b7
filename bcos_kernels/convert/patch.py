"""``patch``: the layers of a model built with the ``bcos`` library, computed by ours."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import nn

from bcos_kernels.convert.stand_in import StandIn


@dataclass(frozen=True)
class PatchReport:
    """What :func:`patch` did to a model, by the names of its modules.

    replaced: the library's class that a stand-in computes for; already: the same, since an earlier call; left: why
    a layer stays the library's. A layer that is left computes as before, but follows the library's explanation switch
    alone, not ``bcos_kernels.explanation_mode``.
    """

    replaced: dict[str, str] = field(default_factory=dict)
    already: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} layers replaced{_kinds(self.replaced)}"]
        if self.already:
            lines.append(f"{len(self.already)} replaced before{_kinds(self.already)}")
        if self.left:
            lines.append(f"{len(self.left)} left as they are, which follow the model's own explain() alone:")
            lines += [f"  {name or 'the model itself'}: {reason}" for name, reason in self.left.items()]
        return "\n".join(lines)


def patch(model: nn.Module) -> PatchReport:
    """Compute the layers of a model built with the ``bcos`` library by ours, in place.

    Outputs, gradients, explanations, parameters, buffers, hooks and state_dict stay what they are: an instance changes
    its class to a subclass of its own that computes otherwise. Both explanation switches then work, the library's
    (``model.explanation_mode()``, ``model.explain``, ``set_explanation_mode``) and ``bcos_kernels.explanation_mode``,
    and so do stacked batches. Every layer is looked at before any is changed; one whose results ours would not be, or
    that somebody else has altered, is left as it is with a reason. Calling it again changes nothing.
    Raises ValueError for what is no ``nn.Module``, is a TorchScript model, or has no layer of the library.
    """
    _check(model)
    stand_ins = {kind.original: kind for kind in _stand_ins()}
    inner, report = _inner_parts(model), PatchReport()
    chosen: list[tuple[nn.Module, type[StandIn]]] = []
    for name, module in model.named_modules():
        if isinstance(module, StandIn):
            report.already[name] = module.original.__name__
        elif id(module) in inner:
            continue
        elif stand_in := stand_ins.get(type(module)):
            reason = _altered(module) or stand_in.refusal(module)
            if reason:
                report.left[name] = reason
            else:
                report.replaced[name] = type(module).__name__
                chosen.append((module, stand_in))
        elif reason := _unknown(module, tuple(stand_ins)):
            report.left[name] = reason
    if not (report.replaced or report.already or report.left):
        raise ValueError(f"{type(model).__name__} has no layer of the package bcos (https://pypi.org/project/bcos):"
                         " nothing to patch; bcosify converts models of plain torch layers")  # fmt: skip
    for module, stand_in in chosen:
        module.__class__ = stand_in  # type: ignore[assignment]  # cannot fail: subclasses of one layout
    return report


def unpatch(model: nn.Module) -> list[str]:
    """Give the layers that :func:`patch` replaced their own classes back; return their names, if any.

    Raises ValueError, and changes nothing, for what is no ``nn.Module`` and where a patched layer has been given
    another class since, as ``torch.nn.utils.parametrize`` does: undo that first.
    """
    _check(model)
    patched = [(name, module) for name, module in model.named_modules() if isinstance(module, StandIn)]
    known = _stand_ins()
    for name, module in patched:
        if type(module) not in known:
            raise ValueError(f"{name or 'the model itself'} was patched and then became a {type(module).__name__}"
                             " (parametrized?): undo that before unpatch")  # fmt: skip
    for _, module in patched:
        module.__class__ = module.original  # type: ignore[assignment]
    return [name for name, _ in patched]


def _check(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"expected an nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("a TorchScript model cannot be patched: its code is compiled; patch the model and script that")


def _stand_ins() -> tuple[type[StandIn], ...]:
    """Stand-ins for the layers that a model can have: those of modules of the library that somebody imported."""
    found: tuple[type[StandIn], ...] = ()
    if "bcos.modules" in sys.modules:
        from bcos_kernels.convert import bcos_layers, bcos_norms

        found += *bcos_layers.STAND_INS, *bcos_norms.STAND_INS
    if "bcos.models.vit" in sys.modules:
        from bcos_kernels.convert import bcos_vit

        found += bcos_vit.STAND_INS
    return found


def _inner_parts(model: nn.Module) -> set[int]:
    """The ids of parts of B-cos layers that hold their weight and are of the library themselves."""
    if "bcos.modules" not in sys.modules:
        return set()
    from bcos_kernels.convert.bcos_layers import AROUND_LINEAR

    return {id(module.linear) for module in model.modules() if isinstance(module, AROUND_LINEAR)}


def _altered(module: nn.Module) -> str | None:
    """Why an instance does not compute what its class says."""
    if own := [name for name in ("forward", "forward_impl") if name in module.__dict__]:
        return f"it has a {own[0]} of its own"
    if module._compiled_call_impl is not None:
        return "it was compiled by its compile(): patch first, then compile"
    return None


def _unknown(module: nn.Module, known: tuple[type, ...]) -> str | None:
    """Why a module that is related to the library's layers has no stand-in."""
    if isinstance(module, torch.jit.ScriptModule):
        name = getattr(module, "original_name", "")
        return "it was compiled by TorchScript" if name in {kind.__name__ for kind in known} else None
    parents = [kind.__name__ for kind in type(module).__mro__ if kind in known]
    return f"a {type(module).__name__}, whose forward need not be that of its parent {parents[0]}" if parents else None


def _kinds(names: dict[str, str]) -> str:
    counts = Counter(names.values())
    return ": " + ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) if counts else ""
