"""What is attributed: images as a function of what the network reads of one prompt, all else held.

Gradients differentiate it, ablations call it again with words removed; whether it is one step or a whole sampling run
makes no difference to either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.diffusion import predicted_x_0
from bcos_diffusion.job import Job
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch
from bcos_diffusion.text.words import word_positions


@dataclass(frozen=True)
class Subject:
    """One prompt and what is drawn from it.

    batch: the prompt, one row; text: what the U-Net reads of it, one row; images: from ``M`` rows of text to
    ``[M, N, 6, H, W]``, the N images that each gives, in a way that torch can differentiate.
    """

    pipeline: BcosDiffusionPipeline
    batch: TextBatch
    text: Conditioning
    images: Callable[[Conditioning], Tensor]

    @property
    def words(self) -> list[str]:
        """The words of the prompt, those of the layout of its tokens included."""
        return self.batch.words[0]

    @property
    def positions(self) -> Tensor:
        """The tokens of each word that the U-Net reads at all: ``[words, L]`` bool."""
        return word_positions(self.batch) & self.text.mask

    @torch.no_grad()
    def image(self) -> Tensor:
        """What the whole prompt gives: ``[N, 6, H, W]``."""
        return self.images(self.text)[0]

    @torch.no_grad()
    def null_image(self) -> Tensor:
        """What no words give, all else equal: ``[N, 6, H, W]``."""
        null = self.pipeline.model.tokenizer.encode_null(1).to(self.pipeline.model.device)
        return self.images(self.pipeline.model.condition(null))[0]


def one_step(pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor) -> Subject:
    """The x_0 that one unguided step predicts from N states.

    batch: one prompt (one row); x_t: ``[N, 6, H, W]``; t: ``[N]`` integers. Raises ValueError for other shapes.
    """
    _check(batch, x_t, t)
    unet, update, n = pipeline.model.unet, pipeline.defaults.update, len(x_t)
    alpha_bar = pipeline.alpha_bar.to(x_t)[t][:, None, None, None]

    def images(text: Conditioning) -> Tensor:
        rows = len(text.mask)
        state = x_t.repeat(rows, 1, 1, 1)
        predicted = unet(state, t.repeat(rows), repeated(text, n))
        predicted = predicted_x_0(predicted, state, alpha_bar.repeat(rows, 1, 1, 1), unet.predicts, update)
        return predicted.unflatten(0, (rows, n))

    with torch.no_grad():
        return Subject(pipeline, batch, pipeline.model.condition(batch), images)


def whole_run(pipeline: BcosDiffusionPipeline, job: Job, number: int) -> Subject:
    """Picture ``number`` of a job, drawn to its end, as a function of its prompt; N is 1.

    What the prompt's counterpart in guidance says is held, and so is the noise.
    """
    rows = job.rows
    own = slice(rows * number, rows * (number + 1))
    text = Conditioning(job.text.values[own], job.text.keys[own], job.text.mask[own])

    def beside(prompt: Tensor, held: Tensor) -> Tensor:
        """Set ``[M, ...]`` prompts beside their counterpart ``[rows - 1, ...]``: ``[M * rows, ...]``."""
        return torch.cat([prompt[:, None], held.expand(len(prompt), *held.shape)], 1).flatten(0, 1)

    def images(prompts: Conditioning) -> Tensor:
        read = Conditioning(
            beside(prompts.values, text.values[1:]),
            beside(prompts.keys, text.keys[1:]),
            beside(prompts.mask, text.mask[1:]),
        )
        first = job.first[number].expand(len(prompts.mask), -1, -1, -1)
        drawn = pipeline._sample(read, rows, first, job.steps, job.guidance, job.update, job.alpha_bar)
        return drawn[:, None]

    prompt = Conditioning(text.values[:1], text.keys[:1], text.mask[:1])
    return Subject(pipeline, job.prompts(number)[:1], prompt, images)


class OfSubject(ABC):
    """An attribution that does not care whether images are of one step or of a whole run."""

    def denoise(self, pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor) -> Attributed:
        """As :meth:`Attribution.denoise`."""
        return self.attribute(one_step(pipeline, batch, x_t, t))

    def draw(self, pipeline: BcosDiffusionPipeline, job: Job) -> list[Attributed]:
        """As :meth:`Attribution.draw`."""
        return [self.attribute(whole_run(pipeline, job, number)) for number in range(len(job))]

    @abstractmethod
    def attribute(self, subject: Subject) -> Attributed:
        """Maps ``[words, N, H, W]`` and scores of a subject."""


def repeated(text: Conditioning, count: int) -> Conditioning:
    """Each row ``count`` times, beside each other."""

    def each(rows: Tensor) -> Tensor:
        return rows[:, None].expand(-1, count, *rows.shape[1:]).flatten(0, 1)

    return Conditioning(each(text.values), each(text.keys), each(text.mask))


def _check(batch: TextBatch, x_t: Tensor, t: Tensor) -> None:
    if len(batch.mask) != 1:
        raise ValueError(f"an attribution explains one prompt at a time, got {len(batch.mask)}")
    if t.shape != x_t.shape[:1] or t.is_floating_point():
        raise ValueError(f"t must be integers [{len(x_t)}], one for each x_t, got {t.dtype} {list(t.shape)}")
