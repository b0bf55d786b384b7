"""Attention to words as a run goes on, and what its heat maps say of a drawn object: the rival of contributions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from bcos_diffusion.baselines.attention_maps import Call, LayerAttention, hear_attention
from bcos_diffusion.baselines.daam import upscaled, without_middle
from bcos_diffusion.baselines.token_maps import word_maps
from bcos_diffusion.job import Job
from bcos_diffusion.missing.features import WINDOW_NAMES, energies, window_features
from bcos_diffusion.networks.denoiser import Denoiser

HEAT_NAMES = (*WINDOW_NAMES, "max", "mean")
"""What is read off heat maps: the same as off contributions, and DAAM's maximum and mean intensity."""

# Energy of probabilities that is little; on validation pictures 1e-5 to 1e-2 do equally well.
_NO_SHARE = 1e-4


class Heat:
    """DAAM's heat maps (Tang et al. 2023, Eqs. 5-7) of all steps so far, as means over steps, layers and heads.

    Means, not sums, so that maps of different moments of a run are on one scale.
    """

    def __init__(self) -> None:
        self._sums: dict[str, LayerAttention] = {}
        self._steps = 0

    @contextmanager
    def listening(self, network: Denoiser, rows: int) -> Iterator[None]:
        """Hear the prompts of every pass of the network in the block; rows: as for ``hear_attention``."""
        with hear_attention(network, self._hear, rows):
            yield

    def _hear(self, call: Call) -> None:
        if call.cross:
            self._steps = max(self._steps, call.step + 1)
            heard = call.probabilities()[None]
            before = self._sums.get(call.layer)
            total = heard if before is None else before.probabilities + heard
            self._sums[call.layer] = LayerAttention(True, call.grid, total)

    def words(self, job: Job) -> list[Tensor]:
        """The heat map of each word of each picture, ``[words, H, W]``."""
        chosen = [self._sums[name] for name in without_middle(self._sums)]
        heads = sum(layer.probabilities.shape[2] for layer in chosen)
        maps = upscaled(chosen, tuple(job.first.shape[-2:])) / (heads * self._steps)  # [N, L, H, W]
        return [word_maps(maps[i : i + 1], job.prompts(i)[:1])[:, 0] for i in range(len(job))]


def heat_features(maps: Tensor, named: Sequence[int]) -> Tensor:
    """The :data:`HEAT_NAMES` of each object word: ``[objects, 6]``. maps: ``[words, H, W]``; named: as elsewhere."""
    own = maps[list(named)].cpu().double()
    flat = own.flatten(1)
    windows = window_features(energies(own[:, None]), _NO_SHARE)
    return torch.cat([windows, flat.amax(1, keepdim=True), flat.mean(1, keepdim=True)], dim=1)
