"""What of an output is explained: all of it, a class, several, or a direction of the caller's choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Target = int | Sequence[int] | Tensor
Cotangent = Tensor | Callable[[Tensor], Tensor]


def cotangents(output: Tensor, cotangent: Cotangent | None, target: Target | None) -> tuple[Tensor, bool]:
    """Return ``[T, *output.shape]`` cotangents and whether the caller asked for several.

    See :func:`bcos_kernels.explanation.contributions` for what may be given.
    """
    if cotangent is not None and target is not None:
        raise ValueError("give cotangent or target, not both")
    if target is not None:
        return _of_target(output, target)
    if cotangent is None:
        return torch.ones_like(output)[None], False
    given = cotangent if isinstance(cotangent, Tensor) else cotangent(output.detach())
    if not isinstance(given, Tensor):
        raise ValueError(f"cotangent must be a tensor or a function that returns one, got {type(given).__name__}")
    several = given.ndim > output.ndim
    shape = (given.shape[0] if several else 1, *output.shape)
    try:
        return given.detach().to(output).expand(shape), several
    except RuntimeError:
        raise ValueError(
            f"cotangent {list(given.shape)} does not fit the output {list(output.shape)}: it must broadcast to it,"
            " or to [T, *output.shape] for T explanations at once"
        ) from None


def _of_target(output: Tensor, target: Target) -> tuple[Tensor, bool]:
    chosen, several = chosen_classes(output, target)
    picked = torch.nn.functional.one_hot(chosen, output.shape[1]).to(output.dtype)  # [T, N, classes]
    return picked.view(*picked.shape, *[1] * (output.ndim - 2)).expand(-1, *output.shape), several


def chosen_classes(output: Tensor, target: Target) -> tuple[Tensor, bool]:
    """Return the classes ``[T, N]`` that ``target`` picks from ``[N, classes, *]``, and whether T were asked for.

    Raises ValueError on a target that is no class of the output.
    """
    if output.ndim < 2:
        raise ValueError(f"target picks a class: the output must be [N, classes, *], got {list(output.shape)}")
    n, classes = output.shape[:2]
    if isinstance(target, Tensor):
        several = target.ndim == 2
        if target.dtype != torch.int64 or target.shape[-1:] != (n,) or target.ndim > 2 or not len(target):
            raise ValueError(
                f"a target tensor must be int64 [{n}], one class a sample, or [T, {n}], got {target.dtype} "
                f"{list(target.shape)}"
            )
        chosen = (target if several else target[None]).to(output.device)
    else:
        several = not isinstance(target, int)
        indices = list(target) if isinstance(target, Sequence) else [target]
        if not indices or not all(isinstance(i, int) for i in indices):
            raise ValueError(f"target must be a class, a sequence of classes or an int64 tensor, got {target!r}")
        chosen = torch.tensor(indices, device=output.device)[:, None].expand(-1, n)
    if chosen.numel() and (int(chosen.min()) < 0 or int(chosen.max()) >= classes):
        raise ValueError(f"target must be in [0, {classes - 1}], got {target}")
    return chosen, several
