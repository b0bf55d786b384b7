"""What a norm is over, as an image ``[N, C, H, W]`` and back: views alone, of up to four dimensions.

group      ``[N, C, *]``, over the channels of a group and all positions
position   ``[N, C, *]``, over the channels of each position
last       ``[..., D]``, over the last dimension: positions whose channels are the features
batch      ``[parts * N, C, *]``, over the samples and positions of each channel and part: the image of one sample a
           part, each line of which is a sample of the batch
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Over = Literal["group", "position", "last", "batch"]


def as_image(x: Tensor, over: Over, parts: int = 1) -> Tensor:
    """x as an image."""
    if over == "last":
        if x.ndim == 3:
            x = x.unsqueeze(1)
        elif x.ndim != 4:
            x = x.reshape(-1, 1, 1, x.shape[-1])
        return x.permute(0, 3, 1, 2)
    if over == "batch":
        n, c = x.shape[:2]
        return x.reshape(parts, n // parts, c, -1 if x.numel() else x.shape[2:].numel()).transpose(1, 2)
    if x.ndim == 2:
        return x[:, :, None, None]
    if x.ndim == 3:
        return x[:, :, None]
    return x if x.ndim == 4 else x.reshape(*x.shape[:3], x.shape[3:].numel())


def from_image(image: Tensor, like: Tensor, over: Over) -> Tensor:
    """The inverse of :func:`as_image` for an x like this one."""
    if over == "batch":
        return image.transpose(1, 2).reshape(like.shape)
    if over == "last":
        image = image.permute(0, 2, 3, 1)
        return image.squeeze(1) if like.ndim == 3 else image if like.ndim == 4 else image.reshape(like.shape)
    return image if image.shape == like.shape else image.reshape(like.shape)
