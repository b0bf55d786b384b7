"""1 × 1 convolutions on a CPU as products of matrices, by sample.

torch's convolution rearranges the image before and after it, and differentiates a stride as if the kernel were larger;
on large maps both cost more than the products themselves (``benchmarks/pointwise.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels import dispatch
from bcos_kernels.ops.bcos_conv2d.geometry import Geometry, Pair

LEAST_PIXELS, LEAST_SAMPLES = 576, 2
"""Of the result: for smaller maps and single images torch's convolution is as fast or faster."""


def convolve(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor | None:
    """The convolution of x ``[N, C, H, W]`` with weight ``[O, C, 1, 1]``; None where torch's own shall run."""
    if torch.is_grad_enabled() or not _is_pointwise(x, weight, geometry) or not _pays(x, weight, geometry.stride):
        return None
    seen = _subsample(x, geometry.stride)
    out = seen.new_empty(len(seen), len(weight), *seen.shape[2:])
    rows = weight.flatten(1).expand(len(seen), -1, -1)  # [N, O, C]
    torch.bmm(rows, seen.flatten(2), out=out.flatten(2))
    return out


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None] | None:
    """The gradients of x and weight, None where not needed; or None where torch's own shall find them."""
    if not _is_pointwise(x, weight, geometry) or not grad.is_contiguous():
        return None
    pays = _pays(x, weight, geometry.stride)
    if not pays and geometry.stride == (1, 1):
        return None
    seen = _subsample(x, geometry.stride)
    if pays:
        dx, dw = _products(grad, seen, weight, needed)
    else:
        dx, dw, _ = torch.ops.aten.convolution_backward(
            grad, seen, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [*needed, False]
        )
    if dx is not None and geometry.stride != (1, 1):
        down, across = geometry.stride
        whole = torch.zeros_like(x)
        whole[:, :, ::down, ::across] = dx
        dx = whole
    return dx, dw


def _is_pointwise(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    kernel, _, padding, _, groups = geometry
    return (
        type(x) is Tensor
        and not dispatch.traces()
        and kernel == (1, 1)
        and padding == (0, 0)
        and groups == 1
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.is_contiguous()
        and not x.is_contiguous(memory_format=torch.channels_last)
        and weight.is_contiguous()
        and x.numel() > 0
    )


def _pays(x: Tensor, weight: Tensor, stride: Pair) -> bool:
    """For several large maps, unless gradients of the weight by sample would take more memory than the maps."""
    height, width = (-(-side // step) for side, step in zip(x.shape[2:], stride, strict=True))
    pixels, (outputs, inputs) = height * width, weight.shape[:2]
    large = pixels >= LEAST_PIXELS and len(x) >= LEAST_SAMPLES
    return large and outputs * inputs <= pixels * (outputs + inputs)


def _products(
    grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    dx = dw = None
    rows, upstream = weight.flatten(1), grad.flatten(2)  # [O, C], [N, O, P]
    if needed[0]:
        dx = torch.empty_like(x)
        torch.bmm(rows.t().expand(len(x), -1, -1), upstream, out=dx.flatten(2))
    if needed[1]:
        dw = torch.bmm(upstream, x.flatten(2).transpose(1, 2)).sum(0).view_as(weight)
    return dx, dw


def _subsample(x: Tensor, stride: Pair) -> Tensor:
    """What a 1 × 1 kernel sees."""
    return x if stride == (1, 1) else x[:, :, :: stride[0], :: stride[1]].contiguous()
