"""What every way to attribute an image to words gives: a map and a score per word, the exact one included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from bcos_diffusion.explanation.reduction import pixel_values
from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch

SCORED = "change"
"""The reduction whose L2 norm is the score of a word; docs/evaluation.md has others beside it."""


@dataclass(frozen=True)
class Attributed:
    """How far each word of one prompt accounts for each pixel of N images, on a method's own scale.

    maps: ``[words, N, H, W]``, fp32, larger where a pixel is more the word's (0 where a method knows no more than
    that it is not); scores: ``[words, N]``, how much of the whole image is. Words are those of ``TextBatch.words``, in
    order, those that carry no value included. Maps of different words are comparable: none is scaled by its own
    maximum.
    """

    maps: Tensor
    scores: Tensor

    @classmethod
    def of_maps(cls, maps: Tensor) -> Attributed:
        """Maps with the L2 norm over pixels as their scores, the measure in which effects of words are given too."""
        return cls(maps.float(), maps.float().flatten(2).norm(dim=2))

    @classmethod
    def of_contributions(cls, contributions: Tensor, image: Tensor, null: Tensor, reduction: str) -> Attributed:
        """What words give to six channels, as maps in any reduction, and scores in one.

        contributions: ``[words, N, 6, H, W]``; image: ``[N, 6, H, W]``; null: the same without any word. A map says
        where a word's part lies; its score, how much of what all words change would go with it: the L2 norm of its
        "change". A constant that any word would give counts in the first and not in the second.
        """
        maps = pixel_values(contributions, image, reduction, null)
        scores = pixel_values(contributions, image, SCORED, null).float().flatten(2).norm(dim=2)
        return cls(maps.float(), scores)


class Attribution(Protocol):
    """A method. name: one lower-case word or two joined by "_", as results are keyed; label: as tables print it."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...

    def denoise(self, pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor) -> Attributed:
        """Attribute the x_0 that one unguided step predicts.

        batch: one prompt (one row); x_t: ``[N, 6, H, W]``, t: ``[N]`` integers, N states to denoise with that prompt.
        Raises ValueError for a network that the method cannot explain.
        """
        ...

    def draw(self, pipeline: BcosDiffusionPipeline, job: Job) -> list[Attributed]:
        """Attribute whole sampling runs, guidance included: for each picture of the job its words, with N = 1.

        Words are those of the prompt; what its counterpart in guidance says is left out. Raises as :meth:`denoise`.
        """
        ...
