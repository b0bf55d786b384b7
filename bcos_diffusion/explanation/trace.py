"""Push the contributions of tokens and of x_T through a whole sampling run, exactly, in one pass.

The state of the sampler is a stack of parts ``[x_t; c_1; ...; c_n]``: the image and, beside it, what
each source has contributed to it so far. Network, guidance and DDIM update are linear once factors
are held constant (mathematics §3-4), so each step maps the stack to the next stack. No graph is
kept: memory does not grow with the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.diffusion import Guidance, guide, predicted_x_0, sample
from bcos_diffusion.networks.denoiser import Conditioning, Denoiser
from bcos_kernels.mode import stacked


@dataclass(frozen=True)
class Source:
    """One token that carries signal: ``row`` 0 is the prompt, 1 the negative prompt."""

    row: int
    position: int


@dataclass(frozen=True)
class Trace:
    """An image and its parts, six channels each; ``image = Σ tokens + x_T + time + constant``.

    image, x_T, time, constant: ``[6, H, W]``; tokens: ``[n, 6, H, W]``, in the order of ``sources``.
    ``constant`` is what the standard DDIM update adds by itself (zero in the homogeneous one);
    ``time`` is what additive time conditioning adds (zero in the "scale" form).
    """

    image: Tensor
    tokens: Tensor
    x_T: Tensor
    time: Tensor
    constant: Tensor
    sources: tuple[Source, ...]

    @property
    def total(self) -> Tensor:
        """The sum of all parts ``[6, H, W]``, which completeness says equals the image."""
        return self.tokens.sum(0) + self.x_T + self.time + self.constant


Watcher = Callable[[int, Tensor, Tensor], None]
"""Called after every step with its number, the stack of x_t and the stack of the predicted x_0."""


def signal_tokens(value_mask: Tensor) -> tuple[Source, ...]:
    """The tokens of a prompt and its negative that carry a value. value_mask: ``[2, L]`` bool."""
    return tuple(Source(int(row), int(position)) for row, position in value_mask.nonzero().tolist())


def stack_values(values: Tensor, sources: tuple[Source, ...], blanks: int) -> Tensor:
    """Stack values ``[R, L, D]`` with one part per source, holding that token alone, and blank parts.

    Returns ``[(1 + n + blanks) * R, L, D]``.
    """
    parts = values.new_zeros(1 + len(sources) + blanks, *values.shape)
    parts[0] = values
    for index, source in enumerate(sources, start=1):
        parts[index, source.row, source.position] = values[source.row, source.position]
    return parts.flatten(0, 1)


def predict_x_0(
    unet: Denoiser,
    text: Conditioning,
    state: Tensor,
    t: int,
    alpha_bar: Tensor,
    guidance: Guidance,
    update: str,
    constant: Tensor | float = 1.0,
) -> Tensor:
    """Denoise and guide a stack ``[S, N, 6, H, W]``, of which all parts but the first are tangents.

    text: ``N * rows`` prompts, each with its counterpart beside it where there is guidance; its values are stacked
    like the state; alpha_bar: ᾱ_t; constant: how much of μ each part receives (:func:`predicted_x_0`).
    """
    parts, n = state.shape[:2]
    rows = len(text.keys) // n
    batch = state.flatten(0, 1).repeat_interleave(rows, 0)  # [S * N * rows, 6, H, W]
    timesteps = torch.full((n * rows,), t, device=state.device)
    if parts > 1:
        with stacked(parts):
            predicted = unet(batch, timesteps, text)
    else:
        predicted = unet(batch, timesteps, text)
    predicted = predicted.unflatten(0, (parts, n, rows))
    scale = guidance.at(t)
    alone = rows == 1 or scale == 1.0
    predicted = predicted[:, :, 0] if alone else guide(predicted[:, :, 0], predicted[:, :, 1], scale)
    return predicted_x_0(predicted, state, alpha_bar, unet.predicts, update, constant)


@torch.no_grad()
def push(
    unet: Denoiser,
    text: Conditioning,
    state: Tensor,
    alpha_bar: Tensor,
    steps: int,
    guidance: Guidance,
    update: str,
    constant: Tensor,
    watch: Watcher | None = None,
) -> Tensor:
    """Run the sampler on a stack ``[S, N, 6, H, W]``; arguments as for :func:`predict_x_0` and :func:`trace`."""

    def denoise(state: Tensor, t: int) -> Tensor:
        return predict_x_0(unet, text, state, t, alpha_bar[t], guidance, update, constant)

    return sample(denoise, state, alpha_bar, steps, update, watch, constant)


def trace(
    unet: Denoiser,
    text: Conditioning,
    sources: tuple[Source, ...],
    x_T: Tensor,
    alpha_bar: Tensor,
    steps: int = 25,
    guidance: Guidance = Guidance(),
    update: str = "homogeneous",
    callback: Callable[[int, Tensor], None] | None = None,
) -> Trace:
    """Sample one image and trace it to its sources.

    text: two rows, the prompt and the negative (or null) prompt; x_T: ``[6, H, W]``; alpha_bar: ``[T]``, of which
    sampling begins at the last; callback: called with the step number and the stack ``[1 + n + ..., 6, H, W]``
    after every step. The parts after the tokens are x_T and, where the update or the time conditioning adds any,
    the sampler's constant and time.
    """

    def watch(number: int, state: Tensor, _: Tensor) -> None:
        if callback is not None:
            callback(number, state[:, 0])

    return trace_batch(unet, text, [sources], x_T[None], alpha_bar, steps, guidance, update, watch)[0]


def first_stack(
    unet: Denoiser, text: Conditioning, sources: Sequence[tuple[Source, ...]], x_T: Tensor, update: str
) -> tuple[Conditioning, Tensor, Tensor]:
    """Where N traced runs start; arguments as for :func:`trace_batch`.

    Returns the prompts with a part per source, the stack ``[S, N, 6, H, W]``, of which x_T has all, and how much of the
    update's constants each part receives, ``[S, 1, 1, 1, 1]``.
    """
    count, n = len(x_T), max(map(len, sources))
    rows = len(text.keys) // count
    has_constant = update == "standard"
    parts = 1 + n + 1 + has_constant + unet.time_adds
    state = x_T.new_zeros(parts, *x_T.shape)
    state[0] = state[n + 1] = x_T
    values = text.values.unflatten(0, (count, rows))
    stacks = [stack_values(v, own, blanks=parts - 1 - len(own)) for v, own in zip(values, sources, strict=True)]
    joined = torch.stack([s.unflatten(0, (parts, rows)) for s in stacks], dim=1).flatten(0, 2)  # [S * N * rows, L, D]
    # What the standard update adds belongs to the image and to its own part, not to any token.
    constant = x_T.new_zeros(parts, 1, 1, 1, 1)
    if has_constant:
        constant[0] = constant[n + 2] = 1.0
    return Conditioning(joined, text.keys, text.mask), state, constant


def trace_batch(
    unet: Denoiser,
    text: Conditioning,
    sources: Sequence[tuple[Source, ...]],
    x_T: Tensor,
    alpha_bar: Tensor,
    steps: int = 25,
    guidance: Guidance = Guidance(),
    update: str = "homogeneous",
    watch: Watcher | None = None,
) -> list[Trace]:
    """Sample N images and trace each to its own sources, in one pass over all.

    text: ``N * rows`` prompts, each with its counterpart beside it where there is guidance; sources: of each image,
    counted within its rows; x_T: ``[N, 6, H, W]``; watch: sees stacks ``[S, N, 6, H, W]`` with the parts of
    :func:`trace`, where n is the largest number of tokens.
    """
    unet.check_explainable()
    stack, state, constant = first_stack(unet, text, sources, x_T, update)
    state = push(unet, stack, state, alpha_bar, steps, guidance, update, constant, watch)
    return unstack(unet, state, sources, update)


def unstack(unet: Denoiser, state: Tensor, sources: Sequence[tuple[Source, ...]], update: str) -> list[Trace]:
    """A stack ``[S, N, 6, H, W]`` of a run, of x_t or of the predicted x_0, as N images with their parts.

    Arguments as for :func:`first_stack`, where the stack came from.
    """
    n = max(map(len, sources))
    has_constant, has_time = update == "standard", unet.time_adds
    nothing = torch.zeros_like(state[0])
    return [
        Trace(
            image=state[0, i],
            tokens=state[1 : len(own) + 1, i],
            x_T=state[n + 1, i],
            time=state[-1, i] if has_time else nothing[i],
            constant=state[n + 2, i] if has_constant else nothing[i],
            sources=own,
        )
        for i, own in enumerate(sources)
    ]
