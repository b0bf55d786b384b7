"""Explain a classifier: what every pixel gave to the logit of a class, and who gave the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_kernels.attribution.logit_bias import Added, record_logit_biases
from bcos_kernels.attribution.rgba import CHANNELS, rgba_image
from bcos_kernels.attribution.switches import explaining
from bcos_kernels.call import SINGLE, Call, Model
from bcos_kernels.completeness import DeclaredConstants, given_by_biases
from bcos_kernels.constants import collecting
from bcos_kernels.cotangents import Target, chosen_classes
from bcos_kernels.ops.contribution.op import contribution


@dataclass(frozen=True, eq=False)
class Explanation:
    """Explained logits of a batch of N images; with a leading T where T classes of each image were asked for.

    logits: ``[N, K]``; target: the class explained, int64 ``[T?, N]``; contribution_maps: ``[T?, N, H, W]``, what each
    pixel gave; remainder: what anything else gave, by name, ``[T?, N]``: "logit_bias", the constant of logit layers;
    "biases", all other true biases and what modules declare a constant; "rest", what nobody accounts for, rounding
    included. weights: the dynamic linear map ``W(x)^T e_target``, ``[T?, N, C, H, W]``; images: RGBA
    ``[T?, N, 4, H, W]``; both None if not asked for.
    """

    logits: Tensor
    target: Tensor
    contribution_maps: Tensor
    remainder: dict[str, Tensor]
    weights: Tensor | None
    images: Tensor | None

    @property
    def prediction(self) -> Tensor:
        """The class with the largest logit, ``[N]``."""
        return self.logits.argmax(1)

    @property
    def explained(self) -> Tensor:
        """The logit that is explained, ``[T?, N]``."""
        return self.logits.gather(1, self.target.reshape(-1, len(self.logits)).T).T.reshape(self.target.shape)

    @property
    def total(self) -> Tensor:
        """What all pixels together gave, ``[T?, N]``; with the parts of ``remainder`` it sums to ``explained``."""
        return _sum_of_pixels(self.contribution_maps, self.target.ndim)

    @property
    def error(self) -> Tensor:
        """``|rest|`` over the sum of all sizes of contributions, ``[T?, N]``; rounding alone where it is complete."""
        size = _sum_of_pixels(self.contribution_maps.abs(), self.target.ndim)
        size = size + sum(part.abs() for name, part in self.remainder.items() if name != "rest")
        rest = self.remainder["rest"].abs()
        return torch.where(rest == 0, rest, rest / size)


def explain(
    model: Model,
    x: Tensor,
    target: Target | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
    weights: bool = False,
    images: bool | None = None,
    smooth: int = 15,
    percentile: float = 99.5,
) -> Explanation:
    """Explain logits of a dynamic-linear classifier by one forward pass, and one backward pass a class.

    x: ``[N, C, *]`` of any floating dtype, images mostly; ``model(x, **constants)`` returns logits ``[N, K]``. target:
    one class; a sequence of T classes; int64 ``[N]``, a class an image; int64 ``[T, N]``; or None, the prediction.
    Modules of this package and of the ``bcos`` library, patched or not, are held constant; what neither is, is
    linearised. weights: keep the dynamic linear map too. images: draw RGBA images with ``smooth`` and ``percentile``
    (see :func:`rgba_image`), which takes six channels; by default wherever x is ``[N, 6, H, W]``. A model with true
    biases or declared constants costs one forward-mode pass more, which says what they gave. Maps are float32 at least.
    Parameters and x are left alone. Raises ValueError on inputs, outputs or targets that do not fit, and for a batch
    norm in training mode.
    Source: Böhle et al. 2024, "B-cos Alignment for Inherently Interpretable CNNs and Vision Transformers".
    """
    if not isinstance(x, Tensor) or x.ndim < 3:
        raise ValueError(f"x must be a tensor [N, C, *], got {list(x.shape) if isinstance(x, Tensor) else type(x)}")
    if images is None:
        images = x.ndim == 4 and x.shape[1] == CHANNELS
    call = Call.of(model, x, constants)
    x = call.inputs[SINGLE]
    maps, kept, drawn, given = [], [], [], []
    with torch.inference_mode(False), torch.enable_grad(), explaining(model):
        leaf = x.detach().requires_grad_()
        declared = DeclaredConstants(call.model)
        with record_logit_biases(model) as added, collecting(declared.notice):
            output = call.with_inputs({SINGLE: leaf}).run()
        classes, several = _classes(output, len(x), target)
        for number, chosen in enumerate(classes):
            pulled, constant = _pull(output, leaf, chosen, added, keep=number + 1 < len(classes))
            maps.append(contribution(x, pulled, (1,)))
            given.append(constant)
            if weights:
                kept.append(pulled)
            if images:
                drawn.append(rgba_image(x, pulled, smooth, percentile))
        logits = output.detach()
        by_biases = given_by_biases(call, declared)

    def joined(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts) if several else parts[0]

    stacked_maps = torch.stack(maps)
    remainder = {"logit_bias": torch.stack(given)} if added else {}
    if by_biases is not None:
        remainder["biases"] = by_biases.gather(1, classes.T).T.to(stacked_maps.dtype)
    accounted = sum((part.double() for part in remainder.values()), _sum_of_pixels(stacked_maps, 2).double())
    remainder["rest"] = (logits.gather(1, classes.T).T.double() - accounted).to(stacked_maps.dtype)
    return Explanation(
        logits,
        classes if several else classes[0],
        joined(maps),
        {name: part if several else part[0] for name, part in remainder.items()},
        joined(kept) if weights else None,
        joined(drawn) if images else None,
    )


def _classes(output: Tensor, n: int, target: Target | None) -> tuple[Tensor, bool]:
    """The classes to explain ``[T, N]``, and whether several were asked for."""
    if output.ndim != 2 or len(output) != n:
        raise ValueError(f"the model must return logits [{n}, classes], one row an image, got {list(output.shape)}")
    if target is None:
        return output.detach().argmax(1)[None], False
    return chosen_classes(output, target)


def _pull(output: Tensor, leaf: Tensor, chosen: Tensor, added: Added, keep: bool) -> tuple[Tensor, Tensor]:
    """Return ``W^T e_chosen``, shaped like the input, and what the logit layers' constants gave, ``[N]``."""
    wide = torch.promote_types(leaf.dtype, torch.float32)
    constant = torch.zeros(len(leaf), dtype=wide, device=leaf.device)
    if not output.requires_grad:
        return torch.zeros_like(leaf), constant
    direction = torch.nn.functional.one_hot(chosen, output.shape[1]).to(output.dtype)
    asked = [leaf, *(layer for layer, _ in added)]
    pulled, *slopes = torch.autograd.grad(output, asked, direction, retain_graph=keep, materialize_grads=True)
    for slope, (_, bias) in zip(slopes, added, strict=True):
        constant += bias * slope.to(wide).flatten(1).sum(1)
    return pulled, constant


def _sum_of_pixels(maps: Tensor, leading: int) -> Tensor:
    """The sum over all but the first dimensions, in float64, rounded once."""
    return maps.double().flatten(leading).sum(leading).to(maps.dtype)
