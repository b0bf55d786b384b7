"""What every layer of a subject puts out, in shapes, by one pass over an empty image."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bcos_diffusion.features.reading import first_tensor
from bcos_diffusion.features.subject import Subject


@torch.no_grad()
def output_shapes(subject: Subject) -> dict[str, tuple[int, ...]]:
    """Of every layer that a forward pass runs and that puts out a tensor, by name and alias: its shape for one image.

    ``(D, H, W)`` of a map, ``(L, D)`` of tokens, ``(D,)`` of what has no places; in the order of ``subject.layers``.
    """
    found: dict[nn.Module, tuple[int, ...]] = {}

    def hook(module: nn.Module, given: Any, output: Any) -> None:
        first = first_tensor(output)
        if first is not None and first.ndim in (2, 3, 4):
            found.setdefault(module, tuple(first.shape[1:]))

    handles = [module.register_forward_hook(hook) for module in set(subject.layers.values())]
    try:
        x_t = subject.noise(subject.encode(torch.zeros(1, 3, subject.size, subject.size)), 0, [0])
        subject.run(x_t, 0, subject.condition([""]))
    finally:
        for handle in handles:
            handle.remove()
    return {name: found[module] for name, module in subject.layers.items() if module in found}


def listed(subject: Subject) -> list[str]:
    """A line for each layer that can be read, aliases first, with the module that each of them stands for."""
    shapes, modules = output_shapes(subject), dict(subject.network.named_modules())
    dotted = {module: name for name, module in reversed(modules.items())}
    width = max(map(len, shapes), default=0)
    return [
        f"{name:<{width}}  {_shape(shape)}{'' if name in modules else f'  = {dotted[subject.layers[name]]}'}"
        for name, shape in shapes.items()
    ]


def _shape(shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return f"{shape[0]} channels, {shape[1]}x{shape[2]} places"
    return f"{shape[-1]} channels, {f'{shape[0]} tokens' if len(shape) == 2 else 'no places'}"
