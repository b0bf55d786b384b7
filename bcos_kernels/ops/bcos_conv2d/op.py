"""The convolution inside a B-cos convolution layer."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from bcos_kernels.ops.bcos_conv2d import pointwise
from bcos_kernels.ops.bcos_conv2d.geometry import Geometry
from bcos_kernels.ops.bcos_conv2d.reference import DELTA, EPS
from bcos_kernels.ops.dense.rows import Rows
from bcos_kernels.ops.epilogue import cpu, reference


class Convolution(NamedTuple):
    """x ``[N, C, H, W]`` with weight ``[O, C / g, h, w]``, and the lengths of the patches ``[N, g, P, Q]``."""

    geometry: Geometry

    @property
    def delta(self) -> float:
        return DELTA

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        product = pointwise.convolve(x, weight, self.geometry)
        return self.geometry.convolve(x, weight) if product is None else product

    def norm(self, backend: ModuleType, x: Tensor) -> Tensor:
        return backend.patch_norm(x, *self.geometry.window, self.geometry.groups, EPS)  # type: ignore[no-any-return]

    def finish_on_cpu(
        self, x: Tensor, weight: Tensor, w_x: Tensor, unit: bool, b: float
    ) -> tuple[Tensor, Tensor | None]:
        return cpu.finish_patches(x, weight, w_x, unit, EPS, b, DELTA, *self.geometry.window, self.geometry.groups)

    def norm_jvp(self, x: Tensor, x_t: Tensor, n: Tensor) -> Tensor:
        product = reference.by_group(reference.widen(x) * reference.widen(x_t), self.geometry.groups).sum(2)
        return reference.box_sum(product, *self.geometry.window) / n

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        g = self.geometry
        if found := pointwise.backward(grad, x, weight, g, needed):
            return found
        dx, dw, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, g.stride, g.padding, g.dilation, False, [0, 0], g.groups, [*needed, False]
        )
        return dx, dw

    def add_norm_gradient(self, backend: ModuleType, dx: Tensor, x: Tensor, c: Tensor, n: Tensor) -> None:
        backend.spread(dx, x, c, *self.geometry.window, self.geometry.groups)

    def as_rows(self, x: Tensor, weight: Tensor) -> Rows | None:
        kernel, stride, padding, _, groups = self.geometry
        is_product = kernel == (1, 1) and stride == (1, 1) and padding == (0, 0) and groups == 1
        if not is_product or not x.is_contiguous(memory_format=torch.channels_last):
            return None
        return Rows(self.to_rows(x), weight.flatten(1), EPS, root_of_sum=True)

    def to_rows(self, y: Tensor) -> Tensor:
        return y.permute(0, 2, 3, 1).flatten(0, 2)

    def from_rows(self, rows: Tensor, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        return rows.view(n, height, width, -1).permute(0, 3, 1, 2)
