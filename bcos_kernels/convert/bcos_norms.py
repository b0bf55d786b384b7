"""Stand-ins for the norms of the ``bcos`` library, with or without weight and bias; imported where a model has some.

Centred or not, all of them divide by the standard deviation, ``sqrt(variance + eps)`` of the biased variance: the
"uncentered" ones merely do not subtract the mean. A bias is added after ours, which have none.
"""

from __future__ import annotations

import torch
from bcos.modules import norms as library
from torch import Tensor

from bcos_kernels.convert.stand_in import StandIn, per_channel, shift
from bcos_kernels.mode import is_explaining
from bcos_kernels.modules import norms
from bcos_kernels.ops.norms.op import Norm, affine_map, normalise


class _GroupNorm(StandIn):
    """Over the channels of each group and all pixels."""

    num_groups: int
    eps: float
    weight: Tensor | None
    bias: Tensor | None
    centred: bool

    def forward(self, input: Tensor) -> Tensor:
        with self.following_the_library():
            norm = Norm("group", self.num_groups, self.eps, self.centred, True)
            return shift(normalise(input, self.weight, norm, extras=False)[0], per_channel(self.bias))


class PatchedGroupNorm2d(_GroupNorm, library.DetachableGroupNorm2d):
    original, centred = library.DetachableGroupNorm2d, True


class PatchedGNInstanceNorm2d(_GroupNorm, library.DetachableGNInstanceNorm2d):
    original, centred = library.DetachableGNInstanceNorm2d, True


class PatchedGNLayerNorm2d(_GroupNorm, library.DetachableGNLayerNorm2d):
    original, centred = library.DetachableGNLayerNorm2d, True


class PatchedGroupNormUncentered2d(_GroupNorm, library.GroupNormUncentered2d):
    original, centred = library.GroupNormUncentered2d, False


class PatchedGNInstanceNormUncentered2d(_GroupNorm, library.GNInstanceNormUncentered2d):
    original, centred = library.GNInstanceNormUncentered2d, False


class PatchedGNLayerNormUncentered2d(_GroupNorm, library.GNLayerNormUncentered2d):
    original, centred = library.GNLayerNormUncentered2d, False


class _PositionNorm(StandIn):
    """Over the channels of each pixel."""

    eps: float
    weight: Tensor | None
    bias: Tensor | None
    centred: bool

    def forward(self, x: Tensor) -> Tensor:
        with self.following_the_library():
            norm = Norm("position", 1, self.eps, self.centred, True)
            return shift(normalise(x, self.weight, norm, extras=False)[0], per_channel(self.bias))


class PatchedPositionNorm2d(_PositionNorm, library.DetachablePositionNorm2d):
    """Gives channels_last maps, as the library's does: the convolutions behind it are faster on them."""

    original, centred = library.DetachablePositionNorm2d, True

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous(memory_format=torch.channels_last))


class PatchedPositionNormUncentered2d(_PositionNorm, library.PositionNormUncentered2d):
    original, centred = library.PositionNormUncentered2d, False


class PatchedLayerNorm(StandIn, library.DetachableLayerNorm):
    """Over the last dimensions, as many as ``normalized_shape`` has."""

    original = library.DetachableLayerNorm

    def forward(self, input: Tensor) -> Tensor:
        rows = input.flatten(-len(self.normalized_shape))
        weight = None if self.weight is None else self.weight.flatten()
        with self.following_the_library():
            out = normalise(rows, weight, Norm("last", 1, self.eps, True, True), extras=False)[0]
        if rows.shape != input.shape:
            out = out.view(input.shape)
        return shift(out, self.bias)


class _BatchNorm(StandIn, norms.BatchNorm2d):
    """Over the samples and pixels of each channel; in evaluation a constant map by channel.

    The library's switch explains a norm in training mode too, and goes on tracking its statistics; ours refuses.
    """

    centred, about_mean = True, True

    def forward(self, input: Tensor) -> Tensor:
        return shift(self._scaled(input), per_channel(self.bias))

    def _scaled(self, x: Tensor) -> Tensor:
        power = self.running_var
        if not self.training and power is not None:
            return affine_map(x, self.weight, self.subtracted_constant(), power, self.eps)
        count = x.numel() // x.shape[1]
        if self.centred and self.training and count < 2:
            raise ValueError(f"a batch norm in training needs more than 1 value per channel, got {list(x.shape)}")
        tracks = self.training and self.track_running_stats and power is not None
        if tracks and is_explaining():
            raise ValueError("explaining a batch norm in training mode would change its running statistics; call"
                             " model.eval() first")  # fmt: skip
        norm = Norm("batch", 1, self.eps, self.centred, True)
        with self.following_the_library():
            out, mean, rstd = normalise(x, self.weight, norm, extras=tracks)
        if tracks:
            assert power is not None and mean is not None and rstd is not None
            self._track(power, mean, rstd, count)
        return out


class PatchedBatchNorm2d(_BatchNorm, library.BatchNorm2d):
    original = library.BatchNorm2d


class PatchedBatchNormUncentered2d(_BatchNorm, library.BatchNormUncentered2d):
    original, centred = library.BatchNormUncentered2d, False


class _AllNorm(_BatchNorm):
    """Over everything at once: a batch norm of one channel."""

    def _scaled(self, x: Tensor) -> Tensor:
        return super()._scaled(x.flatten(1)[:, None]).view(x.shape)


class PatchedAllNorm2d(_AllNorm, library.AllNorm2d):
    original = library.AllNorm2d


class PatchedAllNormUncentered2d(_AllNorm, library.AllNormUncentered2d):
    original, centred = library.AllNormUncentered2d, False


STAND_INS: tuple[type[StandIn], ...] = (
    PatchedGroupNorm2d,
    PatchedGNInstanceNorm2d,
    PatchedGNLayerNorm2d,
    PatchedGroupNormUncentered2d,
    PatchedGNInstanceNormUncentered2d,
    PatchedGNLayerNormUncentered2d,
    PatchedPositionNorm2d,
    PatchedPositionNormUncentered2d,
    PatchedLayerNorm,
    PatchedBatchNorm2d,
    PatchedBatchNormUncentered2d,
    PatchedAllNorm2d,
    PatchedAllNormUncentered2d,
)
