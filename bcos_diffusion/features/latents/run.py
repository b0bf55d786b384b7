"""What drives latents over all steps of a sampling run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bcos_diffusion.diffusion import sample
from bcos_diffusion.explanation.trace import predict_x_0
from bcos_diffusion.features.latents.attribution import LatentAttribution, attribute
from bcos_diffusion.features.latents.step import Dictionary, Step
from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline


@torch.no_grad()
def steps_of_run(pipeline: BcosDiffusionPipeline, layer: nn.Module, job: Job) -> list[Step]:
    """The predictions of a run, in the order they are made, as the prompt alone sees them: guidance steers x_t only.

    job: of one picture. Raises ValueError for more, and as :meth:`Step.of`.
    """
    if len(job) != 1:
        raise ValueError(f"the steps are of one picture, got a job of {len(job)}")
    steps: list[Step] = []

    def denoise(x_t: Tensor, t: int) -> Tensor:
        steps.append(Step.of(pipeline, layer, job.prompts(0)[:1], x_t[0], t))
        unet = pipeline.model.unet
        return predict_x_0(unet, job.text, x_t[None], t, job.alpha_bar[t], job.guidance, job.update)[0]

    sample(denoise, job.first, job.alpha_bar, job.steps, job.update)
    return steps


def attribute_run(
    steps: Sequence[Step], dictionary: Dictionary, latents: Sequence[int], position: int | None = None
) -> LatentAttribution:
    """The mean over steps of what drives latents: complete as each of them is. Arguments as :func:`attribute`."""
    found = [attribute(step, dictionary, latents, position) for step in steps]
    names = ("activation", "tokens", "words", "x_t", "time", "constant")
    means = {name: torch.stack([getattr(each, name) for each in found]).mean(0) for name in names}
    return LatentAttribution(found[0].latents, **means)
