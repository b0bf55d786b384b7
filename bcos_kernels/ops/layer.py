"""What a B-cos layer is made of: a linear map, what is done with its weight, and what tells where it is."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple, Protocol

from torch import Tensor

from bcos_kernels.ops.dense.rows import Rows
from bcos_kernels.ops.epilogue import reference


class LinearMap(Protocol):
    """What differs between a convolution and a matrix product. ``delta``: added to |cos| where b is not 2."""

    @property
    def delta(self) -> float: ...

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """The response of every unit."""

    def norm(self, backend: ModuleType, x: Tensor) -> Tensor:
        """The length of what each unit sees, by the functions of one backend."""

    def finish_on_cpu(
        self, x: Tensor, weight: Tensor, w_x: Tensor, unit: bool, b: float
    ) -> tuple[Tensor, Tensor | None]:
        """``n, lengths`` by the C++ kernels in one call that makes responses w_x the output; the weight is dense."""

    def norm_jvp(self, x: Tensor, x_t: Tensor, n: Tensor) -> Tensor:
        """The tangent of that length."""

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of x and of the weight; None where not needed."""

    def add_norm_gradient(self, backend: ModuleType, dx: Tensor, x: Tensor, c: Tensor, n: Tensor) -> None:
        """Add to dx, in place, the gradient through the norm, of which c are the coefficients."""

    def as_rows(self, x: Tensor, weight: Tensor) -> Rows | None:
        """The same as a product of matrices, where it is no more than that, without a copy."""

    def to_rows(self, y: Tensor) -> Tensor:
        """What has the shape of x or of the output, as rows."""

    def from_rows(self, rows: Tensor, x: Tensor) -> Tensor:
        """Rows as what belongs to the places of x."""


class Layer(NamedTuple):
    """What a layer does with its weight.

    unit: responses are divided by the lengths of the rows; steer: factors of the responses ``[O * M]`` that decide
    MaxOut alone; held: explanation mode, the factor is a constant in every derivative.
    """

    linear: LinearMap
    unit: bool
    steer: Tensor | None
    b: float
    max_out: int
    held: bool


Primal = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
"""``out, choice, n or None, lengths or None``: what tells the linear map that a layer is at an input."""


def over_lengths(w_x: Tensor, lengths: Tensor | None) -> Tensor:
    """``ŵx`` from ``wx``, like it."""
    return w_x if lengths is None else (reference.widen(w_x) * reference.gains(lengths, w_x)).to(w_x.dtype)
