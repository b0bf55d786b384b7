"""How a sum of products walks two tensors of any strides: three dimensions that stay and three that are summed."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

Three = tuple[int, int, int]
_MOST = 3


class Axis(NamedTuple):
    """A run of elements: how many, and how far apart in x and in g."""

    size: int
    x: int
    g: int


class Plan(NamedTuple):
    """Sizes and strides, outermost first. What stays is in the order of the result."""

    kept: Three
    summed: Three
    x_kept: Three
    x_summed: Three
    g_kept: Three
    g_summed: Three

    @property
    def along_sums(self) -> bool:
        """Whether neighbours in memory are summed (channels_last, tokens), or stay (NCHW)."""
        stays, summed = self.x_kept[2] + self.g_kept[2], self.x_summed[2] + self.g_summed[2]
        return self.summed[2] > 1 and (self.kept[2] < 8 or summed <= stays)


def plan(x: Tensor, g: Tensor, sum_over: tuple[int, ...]) -> tuple[Tensor, Tensor, Plan]:
    """x and g with the walk over them; copied where their strides need more dimensions than there are."""
    stays = [d for d in range(x.ndim) if d not in sum_over]
    kept, summed = _merged(x, g, stays), _merged(x, g, _by_stride(x, g, sum_over))
    if max(len(kept), len(summed)) > _MOST:
        x, g = (t.permute(*stays, *sum_over).contiguous() for t in (x, g))
        kept, summed = _merged(x, g, range(len(stays))), _merged(x, g, range(len(stays), x.ndim))
    kept, summed = _filled(kept), _filled(summed)
    fields = [tuple(axis[i] for axis in axes) for i in range(3) for axes in (kept, summed)]
    return x, g, Plan(*fields)  # type: ignore[arg-type]


def _by_stride(x: Tensor, g: Tensor, dims: tuple[int, ...]) -> list[int]:
    """Sums have no order of their own: walk them as they lie in memory."""
    return sorted(dims, key=lambda d: (x.stride(d), g.stride(d)), reverse=True)


def _merged(x: Tensor, g: Tensor, dims: list[int] | range) -> list[Axis]:
    """The axes of these dimensions, neighbours joined where both tensors run on without a step."""
    axes: list[Axis] = []
    for d in dims:
        axis = Axis(x.shape[d], x.stride(d), g.stride(d))
        if axis.size == 1:
            continue
        if axes and axes[-1].x == axis.x * axis.size and axes[-1].g == axis.g * axis.size:
            axis = axis._replace(size=axes.pop().size * axis.size)
        axes.append(axis)
    return axes


def _filled(axes: list[Axis]) -> list[Axis]:
    return [Axis(1, 0, 0)] * (_MOST - len(axes)) + axes
