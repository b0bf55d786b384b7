"""The B-cos epilogue in float64, layouts and geometries to try it on, and the error that kernels may make."""

import itertools

import torch
import torch.nn.functional as F

IMAGE_LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: inside(x, (2, 3, 2, 3)),
    "cropped": lambda x: inside(x, (1, 1, 1, 1), margin=2),
    "rows_of_channels": lambda x: x.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}
ROW_LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "transposed": lambda x: x.t().contiguous().t(),
    "sliced": lambda x: inside(x, (2, 3)),
    "head_of_wider": lambda x: inside(x, (1, 1), margin=5),
}
# batch, channels, (H, W), kernel, stride, padding (top, bottom, left, right), dilation, groups
GEOMETRIES = {
    "pixel": (2, 6, (5, 7), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "pixel_strided": (2, 6, (5, 7), (1, 1), (2, 3), (0, 0, 0, 0), (1, 1), 2),
    "pixel_padded": (1, 4, (4, 4), (1, 1), (1, 1), (1, 0, 0, 2), (1, 1), 1),
    "patch": (2, 16, (9, 8), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "grouped": (2, 12, (6, 7), (3, 2), (1, 1), (1, 1, 0, 1), (1, 1), 3),
    "depthwise": (2, 5, (6, 7), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 5),
    "strided": (2, 9, (11, 10), (3, 4), (2, 3), (1, 2, 0, 1), (1, 1), 3),
    "dilated": (1, 7, (12, 11), (3, 2), (1, 2), (2, 1, 3, 0), (2, 3), 1),
    "stride_over_kernel": (1, 4, (9, 9), (2, 2), (3, 4), (0, 0, 1, 0), (1, 1), 2),
    "column": (2, 8, (9, 1), (3, 1), (1, 1), (1, 1, 0, 0), (1, 1), 1),
    "empty_batch": (0, 4, (5, 5), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "wide": (1, 37, (40, 50), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
}


def inside(x, steps, margin=0):
    """The same values as a strided part of a larger tensor whose other elements are NaN."""
    sizes = [size * step + 2 * margin for size, step in zip(x.shape, steps, strict=True)]
    parts = tuple(slice(margin, margin + size * step, step) for size, step in zip(x.shape, steps, strict=True))
    whole = torch.full(sizes, float("nan"), dtype=x.dtype, device=x.device)
    whole[parts] = x
    return whole[parts]


def random(shape, dtype, seed=0, device="cpu"):
    """The same numbers on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)


def accumulator(dtype):
    """The type of sums and of what is kept per pixel."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check(out, expected, magnitude, where, roundings=8, last=0.501):
    """|out - expected| within `last`, half a unit of out's type, and `roundings` of the accumulation type."""
    info, accumulation = torch.finfo(out.dtype), torch.finfo(accumulator(out.dtype))
    bound = (
        last * info.eps * expected.abs() + roundings * accumulation.eps * magnitude + info.smallest_normal * info.eps
    )
    error = (out.double() - expected).abs()
    assert torch.isfinite(out).all(), where
    assert (error <= bound).all(), f"{where}: {(error / bound).max().item():.2f} times the bound"


def patches(x, kernel, stride, padding, dilation):
    """float64 patches [N, C, kh * kw, P, Q]."""
    top, bottom, left, right = padding
    padded = F.pad(x.double(), (left, right, top, bottom))
    p = (padded.shape[2] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    q = (padded.shape[3] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    offsets = itertools.product(range(kernel[0]), range(kernel[1]))
    cuts = [padded[:, :, i * dilation[0] :: stride[0], j * dilation[1] :: stride[1]][:, :, :p, :q] for i, j in offsets]
    return torch.stack(cuts, dim=2)


def square_sums(x, geometry):
    """float64 sums of squares [N, g, P, Q] of all patches."""
    kernel, stride, padding, dilation, groups = geometry
    return patches(x, kernel, stride, padding, dilation).square().unflatten(1, (groups, -1)).sum((2, 3))


def cosine_of_output(out, n, b, delta):
    """float64 u = |y| / n of ``out = y (u + delta) ** (b - 1)``, by halving the interval of its logarithm."""
    t = out.double().abs() / n.double()
    high = t ** (1 / b)
    low = t / (high + delta) ** (b - 1)
    low, high = low.clamp(min=1e-300).log(), high.clamp(min=1e-300).log()
    for _ in range(80):
        middle = (low + high) / 2
        above = middle.exp() * (middle.exp() + delta) ** (b - 1) > t
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return torch.where(t == 0, 0.0, low.exp())


def scale_reference(y, n, b, delta):
    """float64 y times its B-cos factor; n broadcasts against y."""
    y, n = y.double(), n.double()
    u = torch.where(y == 0, 0.0, y.abs() / n)
    return y * (u + (0.0 if b == 2 else delta)) ** (b - 1)
