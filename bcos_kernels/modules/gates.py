"""Activations as held gates: ``x * gate(x)``, where explanation holds the gate constant (mathematics §3).

The same formula runs with the mode on and off, so the value never changes; it equals torch's own
activation to rounding. In a stacked batch the primal's gate opens every part.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bcos_kernels.mode import primal, weigh
from bcos_kernels.modules.precision import accumulate

_APPROXIMATIONS = ("none", "tanh")


def _gaussian_gate(x: Tensor, approximate: str) -> Tensor:
    """The normal distribution function, or the tanh form of it (Hendrycks and Gimpel 2016)."""
    if approximate == "none":
        return 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _check_approximate(approximate: str) -> str:
    if approximate not in _APPROXIMATIONS:
        raise ValueError(f"approximate must be one of {_APPROXIMATIONS}, got {approximate!r}")
    return approximate


class _Gate(nn.Module):
    """``x * gate(x)`` on a tensor of any shape; a subclass says what the gate is."""

    def gate(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        wide = accumulate(x)
        return weigh(wide, self.gate(primal(wide))).to(x.dtype)


class ReLU(_Gate):
    """``x * [x > 0]``; unlike ``nn.ReLU`` it may stand in a stacked batch."""

    def gate(self, x: Tensor) -> Tensor:
        """The step function of x: ``[...]`` to ``[...]``."""
        return (x > 0).to(x.dtype)


class SiLU(_Gate):
    """``x * sigmoid(x)`` with the sigmoid held constant (Elfwing et al. 2017)."""

    def gate(self, x: Tensor) -> Tensor:
        """The logistic function of x: ``[...]`` to ``[...]``."""
        return torch.sigmoid(x)


class GELU(_Gate):
    """``x * Φ(x)`` with Φ held constant; ``approximate`` is "none" or "tanh" as in ``nn.GELU``."""

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = _check_approximate(approximate)

    def gate(self, x: Tensor) -> Tensor:
        """The normal distribution function of x: ``[...]`` to ``[...]``."""
        return _gaussian_gate(x, self.approximate)

    def extra_repr(self) -> str:
        """Constructor arguments, as nn.GELU prints them."""
        return f"approximate={self.approximate!r}"


class _GatedUnit(nn.Module):
    """``value * act(gate)`` where value and gate are the halves of x along ``dim``; only the value carries signal."""

    def __init__(self, dim: int = -1):
        super().__init__()
        self.dim = dim

    def activation(self, gate: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[self.dim] % 2:
            raise ValueError(f"dimension {self.dim} holds value and gate: its size must be even, got {list(x.shape)}")
        value, gate = accumulate(x).chunk(2, self.dim)
        return weigh(value, self.activation(primal(gate))).to(x.dtype)

    def extra_repr(self) -> str:
        """Constructor arguments."""
        return f"dim={self.dim}"


class GEGLU(_GatedUnit):
    """``value * gelu(gate)``, x = [value, gate] along ``dim`` (Shazeer 2020; the order of diffusers)."""

    def __init__(self, dim: int = -1, approximate: str = "none"):
        super().__init__(dim)
        self.approximate = _check_approximate(approximate)

    def activation(self, gate: Tensor) -> Tensor:
        """GELU of the gate half: ``[...]`` to ``[...]``."""
        return F.gelu(gate, approximate=self.approximate)


class SwiGLU(_GatedUnit):
    """``value * silu(gate)``, x = [value, gate] along ``dim`` (Shazeer 2020)."""

    def activation(self, gate: Tensor) -> Tensor:
        """SiLU of the gate half: ``[...]`` to ``[...]``."""
        return F.silu(gate)
