"""Push the contributions of tokens and of x_T through a whole sampling run, exactly, in one pass.

The state of the sampler is a stack of parts ``[x_t; c_1; ...; c_n]``: the image and, beside it, what
each source has contributed to it so far. Network, guidance and DDIM update are linear once factors
are held constant (mathematics §3-4), so each step maps the stack to the next stack. No graph is
kept: memory does not grow with the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.denoiser import Conditioning, Denoiser
from bcos_diffusion.diffusion import ddim_step, ddim_timesteps, guide, predicted_x_0
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


@torch.no_grad()
def trace(
    unet: Denoiser,
    text: Conditioning,
    sources: tuple[Source, ...],
    x_T: Tensor,
    alpha_bar: Tensor,
    steps: int = 25,
    guidance: float = 1.0,
    update: str = "homogeneous",
    callback: Callable[[int, Tensor], None] | None = None,
) -> Trace:
    """Sample one image and trace it to its sources.

    text: two rows, the prompt and the negative (or null) prompt; x_T: ``[6, H, W]``; alpha_bar: ``[T]``;
    callback: called with the step number and the stack ``[1 + n + ..., 6, H, W]`` after every step.
    The parts after the tokens are x_T and, where the update or the time conditioning adds any, the
    sampler's constant and time.
    """
    n, rows = len(sources), text.values.shape[0]
    has_constant = update == "standard"
    has_time = unet.time_adds
    parts = 1 + n + 1 + has_constant + has_time
    state = x_T.new_zeros(parts, *x_T.shape)
    state[0] = state[n + 1] = x_T
    stack = Conditioning(stack_values(text.values, sources, blanks=parts - 1 - n), text.keys, text.mask)
    # What the standard update adds belongs to the image and to its own part, not to any token.
    receives_constant = x_T.new_zeros(parts, 1, 1, 1)
    if has_constant:
        receives_constant[0] = receives_constant[n + 2] = 1.0
    timesteps = ddim_timesteps(steps, len(alpha_bar))
    for number, t in enumerate(timesteps):
        with stacked(parts):
            batch = state.repeat_interleave(rows, 0)  # [parts * rows, 6, H, W]
            predicted = unet(batch, torch.full((rows,), int(t), device=x_T.device), stack)
        predicted = predicted.unflatten(0, (parts, rows))
        predicted = guide(predicted[:, 0], predicted[:, 1], guidance) if rows == 2 else predicted[:, 0]
        x_hat = predicted_x_0(predicted, state, alpha_bar[int(t)], unet.predicts, update, receives_constant)
        following = alpha_bar[int(timesteps[number + 1])] if number + 1 < steps else alpha_bar.new_ones(())
        state = ddim_step(state, x_hat, alpha_bar[int(t)], following, update=update, constant=receives_constant)
        if callback is not None:
            callback(number, state)
    nothing = torch.zeros_like(x_T)
    return Trace(
        image=state[0],
        tokens=state[1 : n + 1],
        x_T=state[n + 1],
        time=state[-1] if has_time else nothing,
        constant=state[n + 2] if has_constant else nothing,
        sources=sources,
    )
