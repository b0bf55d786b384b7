"""A heat map over a faded image, and what a word is called beside it."""

from __future__ import annotations

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from bcos_diffusion.explanation.relevance import Part

OVERLAY_SCALE = 8
BACKDROP = 0.45


def overlay(image: Tensor, heat: Tensor) -> Image.Image:
    """Blend a faded image ``[3, H, W]`` with a signed heat map ``[H, W]`` in [-1, 1]: red for, blue against."""
    strength = heat.float().clamp(-1, 1).cpu().numpy()
    colours = matplotlib.colormaps["bwr"]((strength + 1) / 2)[..., :3]
    faded = 1 - BACKDROP * (1 - image.float().mean(0, keepdim=True).cpu().numpy().transpose(1, 2, 0))
    alpha = np.sqrt(np.abs(strength))[..., None]
    blended = faded * (1 - alpha) + colours * alpha
    picture = Image.fromarray((blended * 255).round().clip(0, 255).astype("uint8"))
    return picture.resize((picture.width * OVERLAY_SCALE, picture.height * OVERLAY_SCALE), Image.Resampling.NEAREST)


def label(part: Part) -> str:
    """A word as figures show it; words of the negative prompt carry a minus sign."""
    return f"−{part.text}" if part.negative else part.text
