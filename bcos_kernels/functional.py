"""B-cos layers as functions: checks and dtype rules; the work is done in ``ops``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bcos_kernels import dispatch
from bcos_kernels.mode import is_explaining, primal, slices
from bcos_kernels.ops import maxout
from bcos_kernels.ops.bcos import push, transform
from bcos_kernels.ops.bcos_conv2d.geometry import Geometry, Padding, along, pad, pair, resolve
from bcos_kernels.ops.bcos_conv2d.op import Convolution
from bcos_kernels.ops.bcos_linear.op import MATRIX_PRODUCT
from bcos_kernels.ops.epilogue import operators, reference
from bcos_kernels.ops.epilogue.layout import accumulator, patch_counts
from bcos_kernels.ops.layer import Layer, LinearMap
from bcos_kernels.ops.weights import CONVENTIONS, lengths, prepare


def bcos_linear(
    x: Tensor, weight: Tensor, b: float = 2, max_out: int = 1, convention: str = "A", norm: Tensor | None = None
) -> Tensor:
    """B-cos transform of vectors: ``|cos(x, w)|^(b-1) · ŵx`` for each row w of ``weight``.

    x: ``[..., D]``; weight: ``[O * max_out, D]``, of the same floating dtype (or under autocast); returns
    ``[..., O]``. b: any real of at least 1. convention: the scale of the weights, see ``ops/weights.py``.
    norm: ``row_norm(x)``, where several layers read one x and share it. Norms accumulate in fp32 at least. Under
    explanation mode |cos| is a constant; in a stacked batch it is that of the first part. Raises ValueError.
    Source: Böhle et al. 2022, eq. 3; mathematics §1-3.
    """
    _check(x, weight, b, max_out, convention)
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"expected x [..., D] and weight [O, D], got {list(x.shape)} and {list(weight.shape)}")
    if dtype := _autocast_dtype(x):
        with torch.autocast(x.device.type, enabled=False):
            return bcos_linear(x.to(dtype), weight.to(dtype), b, max_out, convention, norm)
    if norm is not None:
        _check_norm(norm, x, x.shape[:-1])
        norm = norm.flatten()
    if x.ndim == 2:
        return _transform(x, weight, norm, MATRIX_PRODUCT, b, max_out, convention)
    flat = x.flatten(0, -2) if x.ndim > 2 else x[None]
    out = _transform(flat, weight, norm, MATRIX_PRODUCT, b, max_out, convention)
    return out.view(*x.shape[:-1], out.shape[-1])


def bcos_conv2d(
    x: Tensor,
    weight: Tensor,
    b: float = 2,
    max_out: int = 1,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    convention: str = "A",
    norm: Tensor | None = None,
) -> Tensor:
    """B-cos transform of patches: ``|cos(patch, w)|^(b-1) · ŵ·patch`` for each filter w of ``weight``.

    x: ``[N, C, H, W]`` or ``[C, H, W]``; weight: ``[O * max_out, C / groups, h, w]``, of the same floating
    dtype (or under autocast); returns ``[N, O, P, Q]``. padding: numbers, ``'valid'`` or ``'same'``, filled
    as ``padding_mode`` says; the patch norm sees the same padding, so |cos| never exceeds 1. norm: :func:`patch_norm`
    of the same x and patches, where layers share it. The rest as in :func:`bcos_linear`. Raises ValueError.
    """
    _check(x, weight, b, max_out, convention)
    if x.ndim == 3:
        if slices() > 1:
            raise ValueError("a stacked batch must be [S * N, C, H, W], got an image without a batch dimension")
        norm = None if norm is None else norm[None]
        return bcos_conv2d(
            x[None], weight, b, max_out, stride, padding, dilation, groups, padding_mode, convention, norm
        )[0]  # fmt: skip
    _check_channels(x, weight, groups, max_out)
    if dtype := _autocast_dtype(x):
        with torch.autocast(x.device.type, enabled=False):
            return bcos_conv2d(
                x.to(dtype), weight.to(dtype), b, max_out, stride, padding, dilation, groups, padding_mode, convention,
                norm,
            )  # fmt: skip
    geometry, extra = _resolved((weight.shape[2], weight.shape[3]), stride, padding, dilation, groups, padding_mode)
    if extra is not None:
        x = pad(x, extra, padding_mode)
    _check_size(x, geometry)
    if norm is not None:
        _check_norm(norm, x, (x.shape[0], groups, *patch_counts(x, *geometry.window)))
    return _transform(x, weight, norm, Convolution(geometry), b, max_out, convention)


def bcos_conv1d(
    x: Tensor,
    weight: Tensor,
    b: float = 2,
    max_out: int = 1,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    convention: str = "A",
) -> Tensor:
    """The same along a sequence: x ``[N, C, L]`` or ``[C, L]``, weight ``[O * max_out, C / groups, l]``.

    Returns ``[N, O, P]``. An image of one line; the rest as in :func:`bcos_conv2d`. Raises ValueError.
    """
    if weight.ndim != 3 or x.ndim not in (2, 3):
        raise ValueError(f"expected x [N, C, L] and weight [O, C, l], got {list(x.shape)}, {list(weight.shape)}")
    stride, dilation = along(stride, "stride", 1), along(dilation, "dilation", 1)
    padding = padding if isinstance(padding, str) else along(padding, "padding", 0)
    line, filters = x.unsqueeze(-2), weight.unsqueeze(2)
    out = bcos_conv2d(line, filters, b, max_out, stride, padding, dilation, groups, padding_mode, convention)
    return out.squeeze(-2)


def row_norm(x: Tensor) -> Tensor:
    """The norms of vectors, as :func:`bcos_linear` takes them: ``[..., D]`` -> ``[...]``, fp32 at least."""
    if not x.is_floating_point() or x.ndim < 1:
        raise ValueError(f"expected floating x [..., D], got {list(x.shape)} {x.dtype}")
    flat = x.to(_autocast_dtype(x) or x.dtype).reshape(-1, x.shape[-1])
    return MATRIX_PRODUCT.norm(_differentiable(), flat).view(x.shape[:-1])


def patch_norm(
    x: Tensor,
    kernel_size: int | tuple[int, ...],
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """The norms of patches, as :func:`bcos_conv2d` takes them: x ``[N, C, H, W]`` -> ``[N, groups, P, Q]``.

    In fp32 at least. Layers with one kernel size, stride, padding, dilation and number of groups that read the same x
    can share it; its gradient is then spread over x once for all of them. x may lack N. Raises ValueError.
    """
    if not x.is_floating_point() or x.ndim not in (3, 4):
        raise ValueError(f"expected floating x [N, C, H, W] or [C, H, W], got {list(x.shape)} {x.dtype}")
    if x.ndim == 3:
        return patch_norm(x[None], kernel_size, stride, padding, dilation, groups, padding_mode)[0]
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"groups must divide {x.shape[1]} channels, got {groups}")
    kernel = pair(kernel_size, "kernel_size", 1)
    geometry, extra = resolve(kernel, stride, padding, dilation, groups, padding_mode)
    x = pad(x.to(_autocast_dtype(x) or x.dtype), extra, padding_mode)
    _check_size(x, geometry)
    return Convolution(geometry).norm(_differentiable(), x)


def _differentiable() -> ModuleType:
    """Norms that autograd can follow: operators, or what torch's transforms can see through."""
    return operators if dispatch.transforms() is None and forward_ad._current_level < 0 else reference


def _resolved(*options: Any) -> tuple[Geometry, Padding | None]:
    """:func:`resolve`, remembered, because it takes longer than some convolutions."""
    if torch.compiler.is_compiling():
        return resolve(*options)
    key = repr(options)  # not the options themselves: 1.0 equals 1, and is refused
    if key not in _geometries:
        _geometries[key] = resolve(*options)
    return _geometries[key]


_geometries: dict[str, tuple[Geometry, Padding | None]] = {}


def _transform(
    x: Tensor, weight: Tensor, norm: Tensor | None, linear: LinearMap, b: float, max_out: int, convention: str
) -> Tensor:
    """The layer on x; in a stacked batch on the first part as if it were alone, and by its factors on the others.

    What the first part gives is then the same to the bit with and without others beside it.
    """
    if x.dtype != weight.dtype or x.device != weight.device:
        found = f"{x.dtype} on {x.device} and {weight.dtype} on {weight.device}"
        raise ValueError(f"x and weight must have one dtype and one device, got {found}")
    first, stack, unit = primal(x), slices() > 1, convention != "B"
    gain = lengths(weight).to(weight.dtype) if convention == "C" else None
    if unit and (b == 1 or weight.dtype == torch.float16):  # nothing else to scale; w·x may overflow, ŵ·x does not
        weight, unit = prepare(weight, "A")[0], False
    layer = Layer(linear, unit, None if gain is None else gain.detach(), b, max_out, is_explaining())
    extras = stack or (gain is not None and max_out > 1)
    whole = transform(first, weight, norm if norm is None else primal(norm), layer, extras)
    out, choice, *_ = whole
    if stack:
        out = push(x[len(first) :], weight, layer, whole)
        choice = None if choice is None else choice.repeat(slices(), *[1] * (choice.ndim - 1))
    return out if gain is None else maxout.apply_gain(out, gain.to(out.dtype), choice, max_out)


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The type in which autocast would have a layer run on x; None where it is off, or x double."""
    if not torch._C._is_any_autocast_enabled():
        return None
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return None if x.dtype == torch.float64 else torch.get_autocast_dtype(device)


def _check(x: Tensor, weight: Tensor, b: float, max_out: int, convention: str) -> None:
    if not x.is_floating_point() or not weight.is_floating_point():
        raise ValueError(f"x and weight must be real floating tensors, got {x.dtype} and {weight.dtype}")
    if not 1 <= b < float("inf"):
        raise ValueError(f"b must be a number of at least 1, got {b}")
    if max_out < 1 or weight.shape[0] % max_out:
        raise ValueError(f"max_out must be at least 1 and divide the {weight.shape[0]} rows of weight, got {max_out}")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {CONVENTIONS}, got {convention!r}")


def _check_channels(x: Tensor, weight: Tensor, groups: int, max_out: int) -> None:
    if weight.ndim != 4 or x.ndim != 4:
        raise ValueError(f"expected x [N, C, H, W] and weight [O, C, h, w], got {list(x.shape)}, {list(weight.shape)}")
    if groups < 1 or x.shape[1] % groups or (weight.shape[0] // max_out) % groups:
        raise ValueError(f"groups must divide {x.shape[1]} and {weight.shape[0] // max_out} channels, got {groups}")
    if x.shape[1] != weight.shape[1] * groups:
        raise ValueError(f"x has {x.shape[1]} channels, weight takes {weight.shape[1] * groups}")


def _check_norm(norm: Tensor, x: Tensor, shape: tuple[int, ...]) -> None:
    if norm.shape != shape or norm.dtype != accumulator(x):
        raise ValueError(f"norm must be {list(shape)} {accumulator(x)}, got {list(norm.shape)} {norm.dtype}")


def _check_size(x: Tensor, geometry: Geometry) -> None:
    (height, width), _, padding, dilation, _ = geometry
    kernel, room = (height, width), (x.shape[2] + 2 * padding[0], x.shape[3] + 2 * padding[1])
    if room[0] <= dilation[0] * (height - 1) or room[1] <= dilation[1] * (width - 1):
        raise ValueError(f"a {kernel} kernel with dilation {dilation} does not fit the padded image of {room}")
