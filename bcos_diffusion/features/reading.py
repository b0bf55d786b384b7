"""Read what layers put out in one forward pass, which ends as soon as the last of them has run.

Hooks read and never change anything; a pass that need not be finished is cut short by an exception that nobody but
this file sees. So reading costs no more than the bare pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bcos_diffusion.features.layers import find
from bcos_diffusion.features.subject import Subject


class _Enough(Exception):
    """All layers that were asked for have run."""


def capture(
    modules: Mapping[str, nn.Module], run: Callable[[], object], take: Callable[[str, Tensor], Tensor]
) -> dict[str, Tensor]:
    """What ``take(name, output)`` makes of each module's first output while ``run()`` runs.

    Of a module that puts out several values the first is taken. Gradients flow where they are enabled. Raises
    ValueError, naming them, for modules that do not run or put out no tensor.
    """
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            if name not in found:
                found[name] = take(name, _tensor(name, output))
                if len(found) == len(modules):
                    raise _Enough

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        run()
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if idle := [name for name in modules if name not in found]:
        raise ValueError(f"nothing can be read of {', '.join(idle)}: a forward pass does not run it")
    return {name: found[name] for name in modules}


@torch.no_grad()
def read(
    subject: Subject, x_t: Tensor, t: int, condition: Any, layers: Sequence[str], pooled: bool = True
) -> dict[str, Tensor]:
    """The features of layers, by name or alias, at x_t ``[N, C, H, W]``, timestep t and a condition of N texts.

    Returns ``[N, D]``, the mean over places, or with ``pooled`` off ``[N, D, h, w]``; in float32, or float64 of a
    network in float64, where the network is. Raises ValueError for unknown layers and what has no such form.
    """
    modules, sides = find(subject.layers, layers), (x_t.shape[2], x_t.shape[3])
    return capture(
        modules,
        lambda: subject.run(x_t, t, condition),
        lambda name, output: _pool(name, output) if pooled else _spread(name, output, sides),
    )


def first_tensor(output: Any) -> Tensor | None:
    """The first tensor of an output: of a tuple as of diffusers' blocks, or of a mapping of results; None for none."""
    while not isinstance(output, Tensor):
        values = list(output.values()) if isinstance(output, Mapping) else output
        if not isinstance(values, list | tuple) or not values:
            return None
        output = values[0]
    return output


def _tensor(name: str, output: Any) -> Tensor:
    found = first_tensor(output)
    if found is None:
        raise ValueError(f"layer {name} puts out {type(output).__name__}, which holds no features")
    return found


def _pool(name: str, output: Tensor) -> Tensor:
    """The mean over places: of ``[N, D, H, W]``, of tokens ``[N, L, D]``, or ``[N, D]`` as it is."""
    wide = torch.promote_types(output.dtype, torch.float32)
    if output.ndim == 4:
        return output.mean((2, 3), dtype=wide)
    if output.ndim == 3:
        return output.mean(1, dtype=wide)
    if output.ndim == 2:
        return output.to(wide, copy=True)  # a later layer might work in place
    raise ValueError(f"layer {name} puts out {list(output.shape)}; features are [N, D], [N, L, D] or [N, D, H, W]")


def _spread(name: str, output: Tensor, sides: tuple[int, int]) -> Tensor:
    """``[N, D, h, w]``: as it is, or tokens ``[N, L, D]`` in the rows and columns of a picture of ``sides``."""
    if output.ndim == 3:
        output = fold(name, output, sides)
    if output.ndim != 4:
        raise ValueError(f"layer {name} puts out {list(output.shape)}, which has no places: read it pooled")
    wide = torch.promote_types(output.dtype, torch.float32)
    return output.to(wide, copy=True, memory_format=torch.contiguous_format)


def fold(name: str, tokens: Tensor, sides: tuple[int, int]) -> Tensor:
    """Tokens ``[N, h * w, D]``, row by row, as ``[N, D, h, w]`` in the proportions of ``sides`` (H, W).

    Raises ValueError where the tokens are not as many as a picture has patches.
    """
    height = round(math.sqrt(tokens.shape[1] * sides[0] / sides[1]))
    width = round(height * sides[1] / sides[0])
    if height * width != tokens.shape[1]:
        raise ValueError(
            f"layer {name} puts out {tokens.shape[1]} tokens, which fill no picture of {sides[1]}x{sides[0]}:"
            " read it pooled"
        )
    return tokens.transpose(1, 2).unflatten(2, (height, width))
