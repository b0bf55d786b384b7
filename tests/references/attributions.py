"""Methods of attribution and a segmenter whose answers are known, for tests of what judges them."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes
from bcos_diffusion.text import TextBatch


@cache
def truth(caption: str, size: int) -> dict[str, np.ndarray]:
    """The masks of the scene with a caption, wherever it is in the first scenes."""
    scenes = (Scenes(size, split)[i] for i in range(60) for split in ("test", "validation"))
    return next(scene.masks for scene in scenes if scene.caption == caption)


def _maps(batch: TextBatch, size: int, inside: float, elsewhere: float) -> torch.Tensor:
    masks = truth(" ".join(batch.words[0]), size)
    maps = torch.zeros(len(batch.words[0]), size, size)
    for number, word in enumerate(batch.words[0]):
        if word in masks:
            maps[number] = torch.from_numpy(np.where(masks[word], inside, elsewhere))
    return maps


@dataclass(frozen=True)
class Knows:
    """Puts ``inside`` on a word's own region and ``elsewhere`` on all else; nothing on words without one."""

    inside: float = 1.0
    elsewhere: float = 0.0
    name: str = "knows"
    label: str = "knows"

    def denoise(
        self, pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: torch.Tensor, t: torch.Tensor
    ) -> Attributed:
        maps = _maps(batch, x_t.shape[-1], self.inside, self.elsewhere)[:, None].repeat(1, len(x_t), 1, 1)
        return Attributed(maps, maps.sum((2, 3)))

    def draw(self, pipeline: BcosDiffusionPipeline, job: Job) -> list[Attributed]:
        maps = _maps(job.batch[:1], job.first.shape[-1], self.inside, self.elsewhere)[:, None]
        return [Attributed(maps, maps.sum((2, 3)))]


@dataclass(frozen=True)
class Guesses:
    """Draws maps from torch's global random numbers."""

    name: str = "guesses"
    label: str = "guesses"

    def denoise(
        self, pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: torch.Tensor, t: torch.Tensor
    ) -> Attributed:
        maps = torch.rand(len(batch.words[0]), len(x_t), *x_t.shape[2:])
        return Attributed(maps, maps.sum((2, 3)))

    def draw(self, pipeline: BcosDiffusionPipeline, job: Job) -> list[Attributed]:
        return [self.denoise(pipeline, job.batch[:1], job.first, torch.zeros(1))]


@dataclass(frozen=True)
class Refuses(Guesses):
    """Cannot explain any network."""

    name: str = "refuses"

    def denoise(
        self, pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: torch.Tensor, t: torch.Tensor
    ) -> Attributed:
        raise ValueError("this network has no attention")


@dataclass(frozen=True)
class Stripes:
    """Sees every object word as a stripe of the picture and colours nowhere, but never the word ``blind``."""

    blind: str = ""
    name: str = "stripes"
    present_share: float = 0.0

    def masks(self, image: torch.Tensor, words: list[str]) -> dict[str, np.ndarray]:
        found = {}
        for number, word in enumerate(w for w in words if w != self.blind):
            found[word] = np.zeros(image.shape[1:], bool)
            found[word][4 * number : 4 * number + 4] = True
        return found
