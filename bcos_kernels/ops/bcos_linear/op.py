"""The matrix product inside a B-cos linear layer."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor
from torch.nn import functional as F

from bcos_kernels.ops.bcos_linear.reference import DELTA, EPS
from bcos_kernels.ops.dense.rows import Rows, norm_slope
from bcos_kernels.ops.epilogue import cpu
from bcos_kernels.ops.epilogue.reference import widen


class MatrixProduct:
    """x ``[R, D]`` with weight ``[O, D]``, and the lengths of the rows of x ``[R]``."""

    delta = DELTA

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    def norm(self, backend: ModuleType, x: Tensor) -> Tensor:
        return backend.row_norm(x, EPS)  # type: ignore[no-any-return]

    def finish_on_cpu(
        self, x: Tensor, weight: Tensor, w_x: Tensor, unit: bool, b: float
    ) -> tuple[Tensor, Tensor | None]:
        return cpu.finish_rows(x, weight, w_x, unit, EPS, b, DELTA)

    def norm_jvp(self, x: Tensor, x_t: Tensor, n: Tensor) -> Tensor:
        return (widen(x) * widen(x_t)).sum(1) / n * norm_slope(n, EPS)

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        return grad @ weight if needed[0] else None, grad.t() @ x if needed[1] else None

    def add_norm_gradient(self, backend: ModuleType, dx: Tensor, x: Tensor, c: Tensor, n: Tensor) -> None:
        backend.spread_rows(dx, x, c * norm_slope(n, EPS))

    def as_rows(self, x: Tensor, weight: Tensor) -> Rows | None:
        return Rows(x, weight, EPS, root_of_sum=False)

    def to_rows(self, y: Tensor) -> Tensor:
        return y

    def from_rows(self, rows: Tensor, x: Tensor) -> Tensor:
        return rows


MATRIX_PRODUCT = MatrixProduct()
