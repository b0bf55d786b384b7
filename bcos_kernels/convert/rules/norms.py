"""torch's norms with held statistics. Their mean stays in the graph, because it is linear (mathematics §3)."""

from __future__ import annotations

from torch import Tensor, nn

from bcos_kernels.convert.rules import held
from bcos_kernels.convert.rules.functions import Rule
from bcos_kernels.modules import norms
from bcos_kernels.ops.norms.op import Norm


class GroupNorm(Rule):
    """``nn.GroupNorm``, the deviation of each group held."""

    num_groups: int
    eps: float
    weight: Tensor | None
    bias: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        rule = Norm("group", self.num_groups, self.eps, centred=True, about_mean=True)
        return held.norm(self.original_forward, input, self.weight, self.bias, rule)


class InstanceNorm(Rule):
    """``nn.InstanceNorm`` of a batch, which is a group norm with one group a channel."""

    num_features: int
    eps: float
    weight: Tensor | None
    bias: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        rule = Norm("group", self.num_features, self.eps, centred=True, about_mean=True)
        return held.norm(self.original_forward, input, self.weight, self.bias, rule)


class LayerNorm(Rule):
    """``nn.LayerNorm``, the deviation held."""

    normalized_shape: tuple[int, ...]
    eps: float
    weight: Tensor | None
    bias: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        dims = len(self.normalized_shape)
        return held.last_norm(self.original_forward, input, dims, self.weight, self.bias, self.eps, centred=True)


class RMSNorm(Rule):
    """``nn.RMSNorm``, the root mean square held."""

    normalized_shape: tuple[int, ...]
    eps: float | None
    weight: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        dims = len(self.normalized_shape)
        return held.last_norm(self.original_forward, input, dims, self.weight, None, self.eps, centred=False)


class BatchNorm2d(norms.BatchNorm2d):
    """``nn.BatchNorm2d`` without a bias; uncentred it subtracts no running mean either."""


class BatchNorm1d(norms.BatchNorm2d):
    """The same over ``[N, C]`` and ``[N, C, L]``."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.view(*input.shape, *[1] * (4 - input.ndim))).view(input.shape)


class BatchNorm3d(norms.BatchNorm2d):
    """The same over ``[N, C, D, H, W]``."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(3)).view(input.shape)


BATCH_NORMS: dict[type[nn.Module], type] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
}
NORMS: dict[type[nn.Module], type] = {
    nn.GroupNorm: GroupNorm,
    nn.LayerNorm: LayerNorm,
    nn.RMSNorm: RMSNorm,
    nn.InstanceNorm1d: InstanceNorm,
    nn.InstanceNorm2d: InstanceNorm,
    nn.InstanceNorm3d: InstanceNorm,
}
