"""An ordinary convolutional network that says which noun each pixel shows. It judges pictures and explains nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (24, 64, 128, 128)
_FINE = 32
_GROUP = 8
STRIDE = 2 ** (len(_WIDTHS) - 1)


class _Convolution(nn.Sequential):
    """3×3 convolution, normalisation over groups of channels (which keeps pictures of a batch apart), ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(outputs // _GROUP, outputs), nn.ReLU()
        )


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.convolution = _Convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(x)


class SegmenterNetwork(nn.Module):
    """A small U-Net (Ronneberger et al., 2015): three halvings, sums instead of joins on the way up.

    rgb ``[N, 3, H, W]`` in [0, 1], any size, to logits ``[N, classes, H, W]``.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        first, *rest = _WIDTHS
        self.stem = nn.Sequential(_Convolution(3, first), _Convolution(first, first))
        depth = {0: 1, 1: 2, 2: 1}
        self.down = nn.ModuleList(
            nn.Sequential(_Convolution(a, b, stride=2), *(_Residual(b) for _ in range(depth[i])))
            for i, (a, b) in enumerate(zip(_WIDTHS, rest, strict=False))
        )
        self.up = nn.ModuleList(
            nn.Conv2d(below, above, 1, bias=False) for above, below in zip((_FINE, *rest), rest, strict=False)
        )
        self.merge = nn.ModuleList((_Convolution(first + _FINE, _FINE), _Convolution(rest[0], rest[0]), nn.Identity()))
        self.head = nn.Conv2d(_FINE, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``[N, classes, H, W]``."""
        height, width = image.shape[-2:]
        maps = self.maps(image)[0]
        return self.head(maps)[..., :height, :width]

    def maps(self, image: Tensor) -> list[Tensor]:
        """What each level ends with, finest first: ``[N, C, H / 2**i, W / 2**i]``, sizes rounded up to the stride."""
        height, width = image.shape[-2:]
        x = F.pad(2 * image - 1, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        levels = [self.stem(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x, found = levels.pop(), []
        found.append(x)
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            beside = levels.pop()
            x = F.interpolate(up(x), scale_factor=2, mode="nearest")
            x = merge(torch.cat([beside, x], 1) if not levels else beside + x)
            found.append(x)
        return found[::-1]
