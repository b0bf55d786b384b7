"""Leave one word out: what changes without it. Not a rival but the oracle, at the price of a pass for every word."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.baselines.removal import check_removal, without_each
from bcos_diffusion.baselines.subject import Subject, one_step, whole_run
from bcos_diffusion.job import Job, join
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch


@dataclass(frozen=True)
class LeaveOneOut:
    """A map is |x̂(c) - x̂(c without i)| at each pixel, the L2 norm over six channels; a score that of the whole.

    removal, seed: how a word is taken out, as in :func:`~bcos_diffusion.baselines.removal.without`.
    """

    removal: str = "drop"
    seed: int = 0
    name: str = "leave_one_out"
    label: str = "leave one out"

    def __post_init__(self) -> None:
        check_removal(self.removal)

    def denoise(self, pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor) -> Attributed:
        """As :meth:`Attribution.denoise`."""
        return self.attribute(one_step(pipeline, batch, x_t, t))

    def draw(self, pipeline: BcosDiffusionPipeline, job: Job) -> list[Attributed]:
        """As :meth:`Attribution.draw`: every run starts from the same noise, so what it draws may stand elsewhere."""
        return [self.attribute(whole_run(pipeline, job, number)) for number in range(len(job))]

    @torch.no_grad()
    def attribute(self, subject: Subject) -> Attributed:
        """The change of a subject's images by word."""
        # In one batch, so that a word whose removal changes nothing has a map of exactly 0.
        image, *changed = subject.images(join([subject.text, without_each(subject, self.removal, self.seed)]))
        return Attributed.of_maps((torch.stack(changed) - image).norm(dim=-3))
