"""What samplers, traces and the trainer know of a network that denoises: its base class and what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

PREDICTIONS = ("x_0", "noise")


@dataclass(frozen=True)
class Conditioning:
    """A prompt as a denoiser reads it: what tokens say (values) and where they say it (keys).

    values: ``[S * N, L, D]``, one part per slice of a stacked batch; keys: ``[N, L, D]``;
    mask: ``[N, L]`` bool, True where a token may be attended to.
    """

    values: Tensor
    keys: Tensor
    mask: Tensor


class Denoiser(nn.Module):
    """Predict x_0 or the noise, ``[S * N, 6, H, W]``, from x_t of that shape, integer t ``[N]`` and N prompts.

    Under ``stacked(S)`` the parts after the first are tangents. A subclass sets ``config``, which has ``size``,
    the side of its square images in pixels, and ``to_dict``.
    """

    config: Any
    predicts: str = "x_0"
    time_adds: bool = False
    """Whether the timestep adds to the stream. Then its tangent is the last part of a stacked batch."""

    def forward(self, x_t: Tensor, t: Tensor, text: Conditioning) -> Tensor:
        """Predict what ``predicts`` says; a subclass implements it."""
        raise NotImplementedError
