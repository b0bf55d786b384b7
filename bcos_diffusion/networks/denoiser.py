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
    explainable: bool = True
    """Whether the prediction is the sum of what its inputs contribute: not so where layers have biases."""
    stride: int
    """Height and width may be any multiples of it."""

    def forward(self, x_t: Tensor, t: Tensor, text: Conditioning) -> Tensor:
        """Predict what ``predicts`` says; a subclass implements it."""
        raise NotImplementedError

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError for images that the network cannot draw."""
        if min(height, width) < 1 or height % self.stride or width % self.stride:
            raise ValueError(f"width and height must be multiples of {self.stride} pixels, got {width}x{height}")

    def check_input(self, x_t: Tensor) -> None:
        """Raise ValueError for anything but ``[N, 6, H, W]`` of a size that the network can draw."""
        if x_t.ndim != 4 or x_t.shape[1] != 6:
            raise ValueError(f"x_t must be [N, 6, H, W], got {list(x_t.shape)}")
        self.check_size(x_t.shape[2], x_t.shape[3])

    def check_explainable(self) -> None:
        """Raise ValueError where an image is not the sum of what its words gave."""
        if not self.explainable:
            raise ValueError("this model has ordinary layers with biases: it draws, but words have no part of an image")
