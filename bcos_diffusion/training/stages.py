"""The parts of a denoiser that are called one after the other: units of sharding and of recomputation."""

from __future__ import annotations

from torch import nn


def stages(module: nn.Module) -> list[nn.Module]:
    """The outermost modules below ``module`` that compute and hold two layers with weights or more.

    Lists, and containers without a ``forward``, are looked into; a single layer stays with what is around it.
    """
    found: list[nn.Module] = []
    for child in module.children():
        if _layers(child) < 2:
            continue
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)) or type(child).forward is nn.Module.forward:
            found += stages(child)
        else:
            found.append(child)
    return found


def _layers(module: nn.Module) -> int:
    return sum(any(True for _ in part.parameters(recurse=False)) for part in module.modules())
