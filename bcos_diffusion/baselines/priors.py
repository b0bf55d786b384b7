"""What any method must beat: maps that know nothing of the picture."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch


class Random:
    """Uniform noise in [0, 1) for every word and pixel, without any network.

    seed: another one gives other maps. They depend on it, the prompt, t and x_t alone, so a picture has the same maps
    in any batch and order, and different pictures have independent ones.
    """

    name = "random"
    label = "random"

    def __init__(self, seed: int = 0):
        self.seed = seed

    def denoise(self, pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor) -> Attributed:
        """Noise for each state; arguments as for :class:`Attribution`."""
        rows = [self._noise(batch, state, int(step)) for state, step in zip(x_t, t.tolist(), strict=True)]
        return _scored(torch.stack(rows, 1).to(x_t.device))

    def draw(self, pipeline: BcosDiffusionPipeline, job: Job) -> list[Attributed]:
        """Noise for each picture of a job."""
        last = job.first.new_full((1,), len(job.alpha_bar) - 1)
        return [self.denoise(pipeline, job.prompts(i)[:1], job.first[i : i + 1], last) for i in range(len(job))]

    def _noise(self, batch: TextBatch, x_t: Tensor, t: int) -> Tensor:
        said = f"{self.seed} {t} {' '.join(batch.words[0])} ".encode() + x_t.float().cpu().numpy().tobytes()
        seed = int.from_bytes(hashlib.sha256(said).digest()[:8], "big", signed=True)
        return torch.rand(len(batch.words[0]), *x_t.shape[-2:], generator=torch.Generator().manual_seed(seed))


class Centre:
    """A Gaussian in the middle of the picture, the same for every word: objects are seldom at the edge.

    spread: standard deviation along each axis, as a share of its length. Raises ValueError unless it is positive.
    """

    name = "centre"
    label = "centre prior"

    def __init__(self, spread: float = 0.25):
        if not spread > 0:
            raise ValueError(f"spread must be positive, got {spread}")
        self.spread = spread

    def denoise(self, pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor) -> Attributed:
        """The prior for each state; arguments as for :class:`Attribution`."""
        down, across = (self._bump(length) for length in x_t.shape[-2:])
        prior = down[:, None] * across
        return _scored(prior.expand(len(batch.words[0]), len(x_t), -1, -1).to(x_t.device))

    def draw(self, pipeline: BcosDiffusionPipeline, job: Job) -> list[Attributed]:
        """The prior for each picture of a job."""
        t = torch.zeros(1)
        return [self.denoise(pipeline, job.prompts(i)[:1], job.first[i : i + 1], t) for i in range(len(job))]

    def _bump(self, length: int) -> Tensor:
        middles = (torch.arange(length) + 0.5) / length - 0.5
        return torch.exp(-0.5 * (middles / self.spread) ** 2)


def _scored(maps: Tensor) -> Attributed:
    return Attributed(maps, maps.mean((-2, -1)))
