"""Activations as held gates, and functions whose whole output is a held factor of something else."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bcos_kernels.convert.rules import held
from bcos_kernels.convert.rules.functions import Rule

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardtanh, nn.Tanh, nn.Softsign,
)  # fmt: skip
"""Elementwise functions with f(0) = 0."""

FACTORS: tuple[type[nn.Module], ...] = (nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.Softmax2d)
"""Functions that are no multiple of their input; where they are used they weigh something else."""


class Gate(Rule):
    """``x * held(f(x) / x)``; an activation with f(0) = 0."""

    def forward(self, input: Tensor) -> Tensor:
        return held.gate(self.original_forward, input)


class Factor(Rule):
    """The output is a constant under explanation mode; whatever it multiplies carries the signal."""

    def forward(self, input: Tensor) -> Tensor:
        return held.factor(self.original_forward, input)


class GLU(Rule):
    """``value * held(sigmoid(gate))`` of the halves of the input."""

    dim: int

    def forward(self, input: Tensor) -> Tensor:
        return held.glu(self.original_forward, input, self.dim)


def is_gate(module: nn.Module) -> bool:
    """Whether a module is an activation that can be held, its own parameters included."""
    if isinstance(module, nn.Hardtanh) and not module.min_val <= 0 <= module.max_val:
        return False
    return has_forward_of(module, ACTIVATIONS)


def has_forward_of(module: Any, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module is of one of these classes, or of a subclass that computes the same."""
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)
