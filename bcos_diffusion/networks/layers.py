"""The layers of a network, B-cos or ordinary, from one place: what a bias-free layout differs in and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bcos_kernels.mode import slices, stacked
from bcos_kernels.modules import gates, norms
from bcos_kernels.modules.conv import BcosConv2d
from bcos_kernels.modules.linear import BcosLinear

KINDS = ("bcos", "vanilla")


@dataclass(frozen=True)
class Layers:
    """Makes layers of one kind: "bcos" has no bias anywhere, "vanilla" is what Stable Diffusion is made of.

    b, convention: as in ``BcosConv2d``; ordinary layers read neither. Raises ValueError for an unknown kind.
    """

    kind: str = "bcos"
    b: float = 2.0
    convention: str = "C"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"layers must be one of {KINDS}, got {self.kind!r}")

    def conv(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Module:
        """A convolution ``[N, C, H, W]`` that keeps the size of its input, but for its stride."""
        padding = kernel_size // 2
        if self.kind == "vanilla":
            return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
        return BcosConv2d(in_channels, out_channels, kernel_size, stride, padding, b=self.b, convention=self.convention)

    def linear(self, in_features: int, out_features: int, bias: bool = True) -> nn.Module:
        """A linear layer ``[..., in_features]``; ``bias``: whether the ordinary one has one."""
        if self.kind == "vanilla":
            return nn.Linear(in_features, out_features, bias)
        return BcosLinear(in_features, out_features, b=self.b, convention=self.convention)

    def group_norm(self, groups: int, channels: int, eps: float = 1e-6) -> nn.Module:
        """A norm ``[N, C, H, W]`` over groups of channels."""
        if self.kind == "vanilla":
            return nn.GroupNorm(groups, channels, eps)
        return norms.GroupNorm(groups, channels, eps)

    def layer_norm(self, features: int) -> nn.Module:
        """A norm over the last of ``[..., features]``."""
        return nn.LayerNorm(features) if self.kind == "vanilla" else norms.LayerNorm(features, eps=1e-5)

    def silu(self) -> nn.Module:
        """SiLU; the B-cos one holds its gate when explained."""
        return nn.SiLU() if self.kind == "vanilla" else gates.SiLU()


class Apart(nn.Sequential):
    """Layers that read what has no parts, such as the timestep: in a stacked batch they see one part, a value."""

    def forward(self, input: Tensor) -> Tensor:
        if slices() == 1:
            return super().forward(input)
        with stacked(1):
            return super().forward(input)
