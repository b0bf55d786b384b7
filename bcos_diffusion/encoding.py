"""Six-channel images (Eq. 5): ``z = (r, g, b, 1 - r, 1 - g, 1 - b)``, all in [0, 1]."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def encode(rgb: Tensor) -> Tensor:
    """Encode rgb ``[N, 3, H, W]`` in [0, 1] as ``[N, 6, H, W]`` whose pairs sum to one."""
    if rgb.ndim != 4 or rgb.shape[1] != 3:
        raise ValueError(f"rgb must be [N, 3, H, W], got {list(rgb.shape)}")
    return torch.cat([rgb, 1 - rgb], dim=1)


def decode(z: Tensor) -> Tensor:
    """Recover rgb ``[N, 3, H, W]`` from six channels (Eq. 7): the share of a channel in its pair.

    A pair without mass decodes to 0.5, the colour that says nothing.
    """
    if z.ndim != 4 or z.shape[1] != 6:
        raise ValueError(f"z must be [N, 6, H, W], got {list(z.shape)}")
    total = z[:, :3] + z[:, 3:]
    tiny = torch.finfo(z.dtype).eps
    empty = total.abs() < tiny
    return torch.where(empty, 0.5, z[:, :3] / torch.where(empty, 1.0, total))


def pair_mean(z: Tensor) -> Tensor:
    """The operator M of mathematics §4: each channel becomes the mean of its pair, ``(z_c + z_{c+3}) / 2``."""
    mean = (z[..., :3, :, :] + z[..., 3:, :, :]) / 2
    return torch.cat([mean, mean], dim=-3)


def from_pixels(pixels: NDArray[np.uint8]) -> Tensor:
    """8-bit RGB ``[..., H, W, 3]`` as fp32 ``[..., 3, H, W]`` in [0, 1]."""
    return torch.from_numpy(pixels).movedim(-1, -3).float() / 255


def to_bytes(values: Tensor) -> Tensor:
    """Values in [0, 1], of images or maps, as files hold them: uint8 of the same shape, on the CPU."""
    return (values.float().clamp(0, 1) * 255).round().byte().cpu()


def to_pil(rgb: Tensor) -> Image.Image:
    """An image ``[3, H, W]`` in [0, 1] as 8-bit RGB."""
    return Image.fromarray(to_bytes(rgb).permute(1, 2, 0).numpy())
