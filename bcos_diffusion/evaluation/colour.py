"""The background of a picture: its colour, and whether it is the one that was named."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_diffusion.scenes import COLOURS


def background_colour(image: Tensor) -> Tensor:
    """The median colour ``[3]`` of the outermost pixels of an image ``[3, H, W]``: most are canvas."""
    edge = torch.cat([image[:, 0], image[:, -1], image[:, 1:-1, 0], image[:, 1:-1, -1]], dim=1)
    return edge.median(dim=1).values


def judge_colour(image: Tensor, words: list[str]) -> tuple[float | None, bool | None]:
    """Distance (RMS over channels) of the background to the first colour named, and whether it is the nearest."""
    named = next((word for word in words if word in COLOURS), None)
    if named is None:
        return None, None
    seen = background_colour(image)
    errors = {colour: float((seen - torch.tensor(rgb) / 255).pow(2).mean().sqrt()) for colour, rgb in COLOURS.items()}
    return errors[named], min(errors, key=lambda colour: errors[colour]) == named
