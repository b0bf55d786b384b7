"""The B-cos convolution in pure torch (mathematics §1), differentiated by autograd."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bcos_kernels.ops import maxout
from bcos_kernels.ops.bcos_conv2d.geometry import Geometry, pad, resolve
from bcos_kernels.ops.epilogue import reference as epilogue
from bcos_kernels.ops.weights import prepare

EPS = 1e-6
"""Added to the patch's sum of squares, as in B-cos-v2."""
DELTA = 1e-6
"""Added to |cos| where B is not 2, as in B-cos-v2."""


def bcos_conv2d(
    x: Tensor,
    weight: Tensor,
    b: float = 2,
    max_out: int = 1,
    convention: str = "A",
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    held: bool = False,
) -> Tensor:
    """What ``functional.bcos_conv2d`` computes, without checks; ``held``: the scale is a constant."""
    rows, gain = prepare(weight, convention)
    geometry, extra = resolve((weight.shape[2], weight.shape[3]), stride, padding, dilation, groups, padding_mode)
    x = pad(x, extra, padding_mode)
    choice = None
    if max_out > 1:
        choice = maxout.choose(geometry.convolve(x, rows), gain, max_out)
    out = bcos(x, rows, choice, geometry, b, max_out, held)
    return out if gain is None else maxout.apply_gain(out, gain, choice, max_out)


def bcos(
    x: Tensor, rows: Tensor, choice: Tensor | None, geometry: Geometry, b: float, max_out: int, held: bool
) -> Tensor:
    """The B-cos part for prepared weights and a MaxOut choice that is made."""
    y = F.conv2d(x, rows, None, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
    y = y if choice is None else maxout.take(y, choice, max_out)
    if b == 1:
        return y
    n = epilogue.patch_norm(x, *geometry.window, geometry.groups, EPS)
    s = epilogue.factor(y, n, b, DELTA)
    return (epilogue.widen(y) * (s.detach() if held else s)).to(y.dtype)
