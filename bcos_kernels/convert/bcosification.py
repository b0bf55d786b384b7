"""Any torch model as a B-cos model, by the rules of B-cosification (Arya et al. 2024), and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bcos_kernels.convert.options import Exponent, Options, Stem
from bcos_kernels.convert.plan import Plan, plan
from bcos_kernels.convert.report import Change, Report
from bcos_kernels.convert.rules.layers import Constant
from bcos_kernels.convert.rules.layers import Stem as SixChannelStem
from bcos_kernels.convert.swap import Converted, restore, swap
from bcos_kernels.modules.norms import BatchNorm2d


def bcosify(
    module: nn.Module,
    *,
    b: Exponent = 2,
    convention: str = "B",
    biases: str = "keep",
    max_pool: str = "hold",
    stem: Stem | None = None,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    constants: Sequence[str] = (),
    dry_run: bool = False,
) -> Report:
    """Turn a model into a B-cos one, in place, and say what became of every module.

    Linear layers and convolutions become B-cos layers with exponent ``b`` and a weight ``convention``; the rest is
    held: norms, activations, attention. Modules keep their identity, parameters, names, hooks and ``state_dict``; only
    their class changes. With ``b=1``, convention B or C and everything else left as it is, outputs stay the same.

    b: a number; or a mapping of name patterns to numbers, of which the first that matches counts; or a function of a
    layer's name and depth, from 0 to 1. biases: "keep" them, named in the budget of ``completeness``, or "remove" them
    and the running means of batch norms. max_pool: "hold" the choice or "average". stem: see :class:`Stem`; the model
    then takes :func:`six_channels` of an image. include, exclude: patterns, as in ``fnmatch``, of names that may be
    converted. constants: patterns of modules whose output no input gives, such as an embedding of time.

    Plans first: either all is converted or, with a ValueError that gives the reasons, nothing. What is converted
    already stays as it is. Source: Arya et al. 2024, "B-cosification".
    """
    patterns = _patterns(include), _patterns(exclude), _patterns(constants)
    options = Options(b, convention, biases, max_pool, stem, *patterns)
    found = plan(module, options)
    if found.refused and not dry_run:
        reasons = "; ".join(f"{name or 'the model'}: {reason}" for name, reason in found.refused.items())
        raise ValueError(f"nothing was converted. {reasons}")
    converted = {step.name: Change(type(step.module).__name__, step.became) for step in found.steps}
    if not dry_run:
        _run(found)
    return Report(
        converted,
        found.unchanged,
        found.unconverted,
        found.refused,
        *_budget(module, found if dry_run else Plan()),
        dry_run=dry_run,
    )


def unbcosify(module: nn.Module) -> list[str]:
    """Give every module of a converted model the class and biases that it had; return their names.

    Weights keep what training made of them. A six-channel stem becomes the three-channel one that computes the same
    (up to the constant ``w₊ + w₋``, which is 0 unless trained).
    """
    names = [name for name, each in module.named_modules() if isinstance(each, Converted)]
    for each in list(module.modules()):
        if isinstance(each, Converted):
            restore(each)
    return names


def six_channels(image: Tensor) -> Tensor:
    """``[r, g, b]`` in [0, 1] to ``[r, g, b, 1-r, 1-g, 1-b]``: ``[..., 3, H, W]`` to ``[..., 6, H, W]``.

    What a model with a converted :class:`Stem` takes. Raises ValueError. Source: Böhle et al. 2022, section 4.
    """
    if not image.is_floating_point() or image.ndim < 3 or image.shape[-3] != 3:
        raise ValueError(f"expected a floating image [..., 3, H, W], got {list(image.shape)} {image.dtype}")
    return torch.cat([image, 1 - image], -3)


def _patterns(given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise ValueError(f"give a sequence of patterns, not the string {given!r}")
    return tuple(given)


def _run(found: Plan) -> None:
    """Convert all that is planned, or, should anything fail, nothing."""
    done: list[nn.Module] = []
    try:
        for step in found.steps:
            swap(step.module, step.rule, step.changes)
            done.append(step.module)
    except BaseException:
        for module in reversed(done):
            restore(module)
        raise


def _budget(module: nn.Module, planned: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of biases and of constants that the budget has once the plan is done."""
    steps = {step.name: step for step in planned.steps}
    biases, added, computed = [], [], []
    for name, each in module.named_modules():
        prefix, step = f"{name}." if name else "", steps.get(name)
        changes = step.changes if step else {}
        rule = step.rule if step else type(each)
        biases += [
            prefix + parameter
            for parameter, _ in each.named_parameters(recurse=False)
            if "bias" in parameter and changes.get(parameter, each) is not None
        ]
        added += [prefix + p for p in changes.get("additive_parameters", getattr(each, "additive_parameters", ()))]
        if issubclass(rule, Constant | SixChannelStem):
            computed.append(name)
        if isinstance(each, _BatchNorm) and each.track_running_stats and _subtracts(each, changes):
            added.append(f"{prefix}running_mean")
    return tuple(biases), (*added, *computed)


def _subtracts(norm: _BatchNorm, changes: dict[str, Any]) -> bool:
    """Whether completeness names the running mean of a batch norm: beside a bias, or where the norm is ours."""
    ours = "centred" in changes or isinstance(norm, BatchNorm2d)
    return bool(changes.get("centred", getattr(norm, "centred", True))) and (ours or norm.bias is not None)
