"""The random numbers of each sample of a run, from a generator of its own.

Sample ``i`` of a run draws from a generator keyed by (seed, i) and by nothing else, so a batch is the same
whoever computes it: one process or many, at once or in parts, before or after a cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_STREAMS = 2**32  # torch's generator on the CPU reads 32 bits of its seed


@dataclass(frozen=True)
class Draws:
    """Uniform numbers in [0, 1) and Gaussian noise, a row a sample.

    t: ``[N, 2]``; caption: ``[N]``; words, effect: ``[N, L]``, by token; noise: ``[N, 3, H, W]``.
    """

    t: Tensor
    caption: Tensor
    words: Tensor
    effect: Tensor
    noise: Tensor


def sample_generator(seed: int, position: int) -> torch.Generator:
    """The source of what sample ``position`` of a run draws; no two of 2³² positions share one."""
    start = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "big")
    return torch.Generator().manual_seed((start + position) % _STREAMS)


def draw(seed: int, positions: Iterable[int], length: int, size: int) -> Draws:
    """What the samples at ``positions`` draw, for captions of ``length`` tokens and images of ``size`` pixels."""
    rows, noise = [], []
    for position in positions:
        generator = sample_generator(seed, position)
        rows.append(torch.rand(3 + 2 * length, generator=generator))
        noise.append(torch.randn(3, size, size, generator=generator))
    t, caption, words, effect = torch.stack(rows).split([2, 1, length, length], dim=1)
    return Draws(t, caption[:, 0], words, effect, torch.stack(noise))
