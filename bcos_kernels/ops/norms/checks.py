"""What norms require of their tensors: checks with ValueError. The kernels themselves check nothing."""

from __future__ import annotations

from torch import Tensor

from bcos_kernels.ops.epilogue.checks import check_dims, check_factor, check_like


def check_floating(x: Tensor) -> None:
    """Raise ValueError unless x holds real floating numbers."""
    if not x.is_floating_point():
        raise ValueError(f"x must be a real floating tensor, got {x.dtype}")


def check_constant(name: str, constant: Tensor | None, channels: int) -> None:
    """Raise ValueError unless there is none, or one number a channel, of any type."""
    if constant is not None and constant.shape != (channels,):
        raise ValueError(f"{name} must be [{channels}], got {list(constant.shape)}")


def check_shares(channels: int, groups: int) -> None:
    """Raise ValueError unless the groups share the channels evenly."""
    if groups < 1 or channels % groups:
        raise ValueError(f"groups must divide the {channels} channels, got {groups}")


def check_forward(x: Tensor, weight: Tensor | None, groups: int, per_pixel: bool) -> Tensor | None:
    """Check an image, its groups and weight, which comes back contiguous."""
    check_floating(x)
    check_dims("x", x, 4)
    check_shares(x.shape[1], groups)
    if per_pixel and groups != 1:
        raise ValueError(f"statistics per pixel are over all channels: groups must be 1, got {groups}")
    return None if weight is None else _contiguous("weight", weight, (x.shape[1],), x)


def check_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor, centred: bool, about_mean: bool
) -> tuple[Tensor | None, Tensor | None, Tensor]:  # fmt: skip
    """Check a gradient like x and statistics that belong to x; return weight, mean and rstd contiguous."""
    check_like("grad", grad, x)
    if mean is None and (centred or about_mean):
        raise ValueError("mean must be given where the norm is centred or its squares are about the mean")
    groups = rstd.shape[1] if rstd.ndim in (2, 4) else 0
    weight = check_forward(x, weight, groups, rstd.ndim == 4)
    shape = (x.shape[0], groups, *x.shape[2:])[: rstd.ndim]
    rstd = _contiguous("rstd", rstd, shape, x)
    return weight, None if mean is None else _contiguous("mean", mean, shape, x), rstd


def _contiguous(name: str, factor: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    check_factor(name, factor, shape, like)
    return factor.contiguous()
