"""Where the patches of a convolution lie: strides, dilations, groups, and every way to pad."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class Geometry(NamedTuple):
    """A convolution of what is already padded unevenly or not by zeros. Pairs are (height, width)."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @property
    def window(self) -> tuple[Pair, Pair, Padding, Pair]:
        """Kernel, stride, zeros at (top, bottom, left, right) and dilation, as the epilogue takes them."""
        height, width = self.padding
        return self.kernel, self.stride, (height, height, width, width), self.dilation

    def convolve(self, x: Tensor, rows: Tensor) -> Tensor:
        """The plain convolution of x ``[N, C, H, W]`` with rows ``[O, C / groups, h, w]``."""
        return F.conv2d(x, rows, None, self.stride, self.padding, self.dilation, self.groups)


def pair(value: int | tuple[int, ...], name: str, least: int) -> Pair:
    """A number or a pair of numbers as a pair. Raises ValueError naming what is accepted."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2 or any(not isinstance(v, int) or v < least for v in values):
        raise ValueError(f"{name} must be an integer of at least {least} or a pair of them, got {value!r}")
    return values[0], values[1]


def along(value: int | tuple[int, ...], name: str, least: int) -> Pair:
    """An option of a convolution over sequences, as of one over images of one line. Raises ValueError."""
    single = value[0] if isinstance(value, tuple | list) and len(value) == 1 else value
    if not isinstance(single, int) or single < least:
        raise ValueError(f"{name} must be an integer of at least {least} or a tuple of one, got {value!r}")
    return least, single


def resolve(
    kernel: Pair,
    stride: int | tuple[int, ...],
    padding: int | tuple[int, ...] | str,
    dilation: int | tuple[int, ...],
    groups: int,
    padding_mode: str,
) -> tuple[Geometry, Padding | None]:
    """The geometry, and the padding (top, bottom, left, right) to apply before it, if any.

    ``padding``: numbers, ``'valid'`` or ``'same'`` (stride 1 only, as in torch; the odd pixel goes to the
    end). Raises ValueError.
    """
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {PADDING_MODES}, got {padding_mode!r}")
    stride_, dilation_ = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    if padding == "same":
        if stride_ != (1, 1):
            raise ValueError(f"padding='same' needs stride 1, got {stride!r}")
        total = [d * (k - 1) for d, k in zip(dilation_, kernel, strict=True)]
        edges = (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    elif isinstance(padding, str):
        if padding != "valid":
            raise ValueError(f"padding must be numbers, 'valid' or 'same', got {padding!r}")
        edges = (0, 0, 0, 0)
    else:
        height, width = pair(padding, "padding", 0)
        edges = (height, height, width, width)
    even = edges[0] == edges[1] and edges[2] == edges[3]
    if padding_mode == "zeros" and even:
        return Geometry(kernel, stride_, (edges[0], edges[2]), dilation_, groups), None
    return Geometry(kernel, stride_, (0, 0), dilation_, groups), edges if any(edges) else None


def pad(x: Tensor, edges: Padding | None, padding_mode: str) -> Tensor:
    """Pad x ``[N, C, H, W]``. The patch norm then sees what the weights see, so |cos| is at most 1."""
    if edges is None:
        return x
    top, bottom, left, right = edges
    spare = {"reflect": 1, "circular": 0}.get(padding_mode)  # what one turn of the image leaves unused
    if spare is not None and (max(top, bottom) > x.shape[2] - spare or max(left, right) > x.shape[3] - spare):
        raise ValueError(f"{padding_mode} padding {edges} is more than an image of {tuple(x.shape[2:])} has to give")
    return F.pad(x, (left, right, top, bottom), "constant" if padding_mode == "zeros" else padding_mode)
