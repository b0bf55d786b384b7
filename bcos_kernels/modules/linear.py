"""Drop-in B-cos linear layer: constructor and state_dict of the ``bcos`` library."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bcos_kernels import functional
from bcos_kernels.ops.weights import CONVENTIONS, prepare


class NormedLinear(nn.Linear):
    """A linear layer whose rows have unit norm."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, prepare(self.weight, "A")[0], self.bias)


class BcosLinear(nn.Module):
    """B-cos transform of ``[..., in_features]`` into ``[..., out_features]``; see ``functional.bcos_linear``.

    The weight is ``linear.weight``. There is no bias: ``bias=True`` raises ValueError.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        b: float = 2,
        max_out: int = 1,
        convention: str = "A",
    ):
        super().__init__()
        check_options(b, max_out, convention)
        if bias:
            raise ValueError("a B-cos layer has no bias: with one, its output would not be explained by its input")
        self.in_features, self.out_features = in_features, out_features
        self.b, self.max_out, self.convention = b, max_out, convention
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.linear = NormedLinear(in_features, out_features * max_out, bias=False, **options)

    def forward(self, in_tensor: Tensor) -> Tensor:
        return functional.bcos_linear(in_tensor, self.linear.weight, self.b, self.max_out, self.convention)

    def extra_repr(self) -> str:
        return f"B={self.b}, max_out={self.max_out}, convention={self.convention},"


def check_options(b: float, max_out: int, convention: str) -> None:
    """Refuse what no B-cos layer can be. Raises ValueError."""
    if not 1 <= b < float("inf"):
        raise ValueError(f"b must be a number of at least 1, got {b}")
    if max_out < 1:
        raise ValueError(f"max_out must be at least 1, got {max_out}")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {CONVENTIONS}, got {convention!r}")
