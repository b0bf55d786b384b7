"""One prediction of a B-cos network and one layer of it: what the layer says, and what passes on from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from bcos_diffusion.diffusion import predicted_x_0
from bcos_diffusion.networks.denoiser import Conditioning, Denoiser
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch
from bcos_kernels.mode import stacked


class Dictionary(Protocol):
    """What is read of a k-sparse autoencoder: encoder and decoder ``[n, d]``, pre_bias ``[d]``, encoder_bias ``[n]``.

    It is of features as they are; one that was trained on scaled features has the scale in its biases. Its latents mean
    something at the timestep and for the kind of prompt (none, or one of its own) of the features it was trained on.
    """

    @property
    def encoder(self) -> Tensor: ...

    @property
    def decoder(self) -> Tensor: ...

    @property
    def pre_bias(self) -> Tensor: ...

    @property
    def encoder_bias(self) -> Tensor: ...

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[N, d]`` to values and indices ``[N, k]``."""


@dataclass(frozen=True, eq=False)
class Step:
    """One prediction of x_0, without guidance, and the layer that is read.

    batch, text: one prompt, as words and as the network reads it; x_t: ``[6, H, W]``; alpha_bar: ᾱ_t; update: which
    form of the sampler's constants (:func:`bcos_diffusion.diffusion.predicted_x_0`).
    """

    unet: Denoiser
    layer: nn.Module
    batch: TextBatch
    text: Conditioning
    x_t: Tensor
    t: int
    alpha_bar: Tensor
    update: str

    @classmethod
    def of(cls, pipeline: BcosDiffusionPipeline, layer: nn.Module, batch: TextBatch, x_t: Tensor, t: int) -> Step:
        """A prediction of a pipeline. batch: one tokenized prompt; x_t: ``[6, H, W]``; t: its timestep.

        layer: a module of ``pipeline.model.unet`` whose output is ``[N, D, H, W]`` or tokens ``[N, HW, D]``. Raises
        ValueError for a network that has biases, for another's layer, and for a batch, x_t or t that do not fit.
        """
        unet = pipeline.model.unet
        unet.check_explainable()
        if all(layer is not module for module in unet.modules()):
            raise ValueError(f"the layer, a {type(layer).__name__}, is no module of the network")
        if len(batch.ids) != 1:
            raise ValueError(f"a step has one prompt, got {len(batch.ids)}")
        if not 0 <= t < len(pipeline.alpha_bar):
            raise ValueError(f"t must be in [0, {len(pipeline.alpha_bar)}), got {t}")
        unet.check_input(x_t[None])
        with torch.no_grad():
            text = pipeline.model.condition(batch)
        return cls(unet, layer, batch, text, x_t, t, pipeline.alpha_bar.to(x_t)[t], pipeline.defaults.update)

    def predict(self, x_t: Tensor, values: Tensor) -> Tensor:
        """What the network says of ``[S, 6, H, W]`` and values ``[S, L, D]``, S the parts of a stacked batch or 1."""
        timestep = torch.tensor([self.t], device=x_t.device)
        predicted: Tensor = self.unet(x_t, timestep, Conditioning(values, self.text.keys, self.text.mask))
        return predicted

    @torch.no_grad()
    def x_0(self) -> Tensor:
        """The predicted x_0 ``[6, H, W]``."""
        x_t = self.x_t[None]
        predicted = self.predict(x_t, self.text.values)
        return predicted_x_0(predicted, x_t, self.alpha_bar, self.unet.predicts, self.update)[0]


def by_position(output: Tensor) -> Tensor:
    """A layer's output, ``[N, D, H, W]`` or ``[N, P, D]``, by position: ``[N, P, D]``."""
    return output.flatten(2).transpose(1, 2) if output.ndim == 4 else output


def read_at(features: Tensor, position: int | None) -> Tensor:
    """What a dictionary reads of features ``[..., P, D]``: their mean over positions, or one: ``[..., D]``."""
    if position is None:
        return features.mean(-2)
    if not 0 <= position < features.shape[-2]:
        raise ValueError(f"the layer has {features.shape[-2]} positions, counted from 0, got {position}")
    return features[..., position, :]


@contextmanager
def hooked(layer: nn.Module, change: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Let ``change`` see the layer's output, once; what it returns takes the output's place.

    Raises ValueError on leaving where the layer did not run once in the block, and where its output cannot be read.
    """
    runs = 0

    def hook(module: nn.Module, inputs: object, output: object) -> Tensor | None:
        nonlocal runs
        runs += 1
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            said = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"the layer's output must be a tensor [N, D, H, W] or [N, HW, D], got {said}")
        return change(output)

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if runs != 1:
        raise ValueError(f"the layer must run once in a prediction, it ran {runs} times")


@torch.no_grad()
def features_of(step: Step) -> Tensor:
    """The layer's output by position: ``[P, D]``."""
    found: list[Tensor] = []
    with hooked(step.layer, lambda output: found.append(by_position(output))):
        step.predict(step.x_t[None], step.text.values)
    return found[0][0]


@torch.no_grad()
def time_features(step: Step) -> Tensor:
    """What the timestep adds to the layer's output, by position ``[P, D]``: zero where time does not add."""
    found: list[Tensor] = []
    blank = torch.zeros_like(step.x_t)
    with stacked(2), hooked(step.layer, lambda output: found.append(by_position(output))):
        step.predict(torch.stack([step.x_t, blank]), torch.cat([step.text.values, torch.zeros_like(step.text.values)]))
    return found[0][1]


@torch.no_grad()
def pass_on(step: Step, tangents: Tensor, everything_else: bool = False) -> tuple[Tensor, Tensor]:
    """Put tangents into the layer's output, ``[J, P, D]``, and push them on to x_0 with all factors held.

    everything_else: a last part beside them has x_t, words and time, and nothing at the layer: what reaches x_0
    without it. Returns the predicted x_0 ``[6, H, W]``, which the tangents leave as it is, and the parts
    ``[J (+ 1), 6, H, W]``.
    """
    count = len(tangents)
    # In the "additive" form the last part carries the tangent of time, which no direction may be.
    parts = 1 + count + int(everything_else or step.unet.time_adds)
    full = [0, parts - 1] if everything_else else [0]
    state = step.x_t.new_zeros(parts, 1, *step.x_t.shape)
    values = step.text.values.new_zeros(parts, *step.text.values.shape[1:])
    constant = state.new_zeros(parts, 1, 1, 1, 1)
    state[full], values[full], constant[full] = step.x_t, step.text.values, 1.0

    def inject(output: Tensor) -> Tensor:
        shape = (count, *output.shape[1:])
        put = output.clone()
        put[1 : 1 + count] = (tangents.transpose(1, 2) if output.ndim == 4 else tangents).reshape(shape)
        put[1 + count :] = 0
        return put

    with stacked(parts), hooked(step.layer, inject):
        predicted = step.predict(state[:, 0], values)[:, None]
    x_0 = predicted_x_0(predicted, state, step.alpha_bar, step.unet.predicts, step.update, constant)[:, 0]
    return x_0[0], x_0[1:] if everything_else else x_0[1 : 1 + count]
