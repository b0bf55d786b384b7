"""The B-cos linear layer in pure torch (mathematics §1), differentiated by autograd."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bcos_kernels.ops import maxout
from bcos_kernels.ops.epilogue import reference as epilogue
from bcos_kernels.ops.weights import prepare

EPS = 1e-12
"""Added to the norm of the input, as in B-cos-v2."""
DELTA = 1e-6
"""Added to |cos| where B is not 2, as in B-cos-v2."""


def bcos_linear(
    x: Tensor, weight: Tensor, b: float = 2, max_out: int = 1, convention: str = "A", held: bool = False
) -> Tensor:
    """What ``functional.bcos_linear`` computes, without checks; ``held``: the scale is a constant."""
    rows, gain = prepare(weight, convention)
    flat = x.flatten(0, -2) if x.ndim > 1 else x[None]
    choice = maxout.choose(F.linear(flat, rows), gain, max_out) if max_out > 1 else None
    out = bcos(flat, rows, choice, b, max_out, held)
    out = out if gain is None else maxout.apply_gain(out, gain, choice, max_out)
    return out.reshape(*x.shape[:-1], out.shape[-1])


def bcos(x: Tensor, rows: Tensor, choice: Tensor | None, b: float, max_out: int, held: bool) -> Tensor:
    """The B-cos part of x ``[R, D]`` for prepared weights and a MaxOut choice that is made."""
    y = F.linear(x, rows)
    y = y if choice is None else maxout.take(y, choice, max_out)
    if b == 1:
        return y
    s = epilogue.factor(y, epilogue.row_norm(x, EPS), b, DELTA)
    return (epilogue.widen(y) * (s.detach() if held else s)).to(y.dtype)
