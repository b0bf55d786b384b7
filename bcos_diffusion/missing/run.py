"""A traced sampling run that can be looked at, left and taken up again between any two of its steps."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_diffusion.diffusion import ddim_path, ddim_step
from bcos_diffusion.encoding import decode
from bcos_diffusion.explanation.attribution import sum_by_word
from bcos_diffusion.explanation.trace import first_stack, predict_x_0
from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline


class Run:
    """One job on its way: the state after ``number`` steps, and what each word has given to it so far.

    evaluations: how many times the network has denoised a picture, each with its counterpart in guidance; parts: the
    same, with every part of the traced stack counted for itself. traced: False draws without parts, as plain sampling.
    Raises ValueError for a model that cannot be explained.
    """

    def __init__(self, pipeline: BcosDiffusionPipeline, job: Job, traced: bool = True):
        unet = pipeline.model.unet
        unet.check_explainable()
        self.unet, self.job = unet, job
        self.text, self.state, self.constant = first_stack(unet, job.text, job.sources, job.first, job.update)
        self.predicted = self.state
        self.number = self.evaluations = self.parts = 0
        self._path = ddim_path(job.alpha_bar, job.steps)
        if not traced:
            self._leave_parts()

    @torch.no_grad()
    def advance(self, until: int) -> None:
        """Take steps until ``until`` of them are done."""
        for t, here, following in self._path[self.number : until]:
            job = self.job
            self.predicted = predict_x_0(
                self.unet, self.text, self.state, t, here, job.guidance, job.update, self.constant
            )
            self.state = ddim_step(self.state, self.predicted, here, following, job.update, self.constant)
            self.number += 1
            self.evaluations += len(job)
            self.parts += len(job) * len(self.state)

    def finish(self) -> Tensor:
        """Take the steps that are left without tracing, and return rgb ``[N, 3, H, W]`` in [0, 1]."""
        self._leave_parts()
        self.advance(self.job.steps)
        return self.images

    def _leave_parts(self) -> None:
        self.state, self.predicted, self.constant = self.state[:1], self.predicted[:1], self.constant[:1]
        self.text = self.job.text

    @property
    def images(self) -> Tensor:
        """The pictures so far, rgb ``[N, 3, H, W]`` in [0, 1]."""
        return decode(self.state[0]).clamp(0, 1)

    def words(self, picture: int) -> Tensor:
        """What each word of a picture's prompt gives to the x_0 predicted last: ``[words, 6, H, W]``."""
        sources = self.job.sources[picture]
        parts = self.predicted[1 : len(sources) + 1, picture]
        return sum_by_word(sources, parts, self.job.prompts(picture))
