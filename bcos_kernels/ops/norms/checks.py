"""What the compiled norms require of their tensors: checks with ValueError."""

from __future__ import annotations

from torch import Tensor

from bcos_kernels.ops.epilogue.checks import check_dims, check_factor, check_groups, check_like


def check_forward(x: Tensor, weight: Tensor | None, groups: int, per_pixel: bool) -> Tensor | None:
    """Check an image, its groups and weight, which comes back contiguous."""
    check_dims("x", x, 4)
    check_groups(x, groups)
    if per_pixel and groups != 1:
        raise ValueError(f"statistics per pixel are over all channels: groups must be 1, got {groups}")
    return None if weight is None else _contiguous("weight", weight, (x.shape[1],), x)


def check_given(
    x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor, int]:
    """Check statistics that belong to x; return weight, mean and rstd contiguous, and the number of groups."""
    groups = rstd.shape[1] if rstd.ndim in (2, 4) else 0
    weight = check_forward(x, weight, groups, rstd.ndim == 4)
    shape = (x.shape[0], groups, *x.shape[2:])[: rstd.ndim]
    rstd = _contiguous("rstd", rstd, shape, x)
    return weight, None if mean is None else _contiguous("mean", mean, shape, x), rstd, groups


def check_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor, centred: bool, about_mean: bool
) -> tuple[Tensor | None, Tensor | None, Tensor, int]:  # fmt: skip
    """As :func:`check_given`, with a gradient like x and a mean where one is needed."""
    check_like("grad", grad, x)
    if mean is None and (centred or about_mean):
        raise ValueError("mean must be given where the norm is centred or its squares are about the mean")
    return check_given(x, weight, mean, rstd)


def _contiguous(name: str, factor: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    check_factor(name, factor, shape, like)
    return factor.contiguous()
