"""At which prediction a latent is looked at: an image as it was extracted, or a step of the run that draws a prompt."""

from __future__ import annotations

import torch

from bcos_diffusion.features.again import Again
from bcos_diffusion.features.key import Key
from bcos_diffusion.features.latents.attribution import check_width, encoder_rows
from bcos_diffusion.features.latents.run import steps_of_run
from bcos_diffusion.features.latents.step import Dictionary, Step, features_of, read_at
from bcos_diffusion.features.pipeline_subject import PipelineSubject
from bcos_diffusion.features.subject import Subject


def explainable(subject: Subject) -> PipelineSubject:
    """The subject, if its predictions are sums of what words and pixels gave.

    Raises ValueError for models of diffusers' and for those with biases.
    """
    if not isinstance(subject, PipelineSubject):
        raise ValueError(
            f"{subject.name} is a model of diffusers': its features are no sum of what words and pixels give, so that"
            " nothing exact can be said of them; exact explanations need a B-cos model of this package"
        )
    subject.pipeline.model.unet.check_explainable()
    return subject


def step_of_image(again: Again, subject: PipelineSubject, key: Key, number: int) -> tuple[Step, str]:
    """The prediction that features of an image were read in, and the text it was read with.

    Raises ValueError for an image that is not there.
    """
    if not 0 <= number < again.plan.count:
        raise ValueError(f"there are images 0 to {again.plan.count - 1}, got {number}")
    text = again.text(number, key.conditioning)
    x_t, t = again.x_t([number], key.t)
    return Step.of(subject.pipeline, subject.layers[key.layer], subject.tokenize(text), x_t[0], t), text


def step_of_prompt(subject: PipelineSubject, key: Key, prompt: str, seed: int) -> Step:
    """Of the run that draws a prompt from a seed, the prediction at the step nearest to the features' timestep."""
    job = subject.pipeline.job([prompt], [None], [seed])
    steps = steps_of_run(subject.pipeline, subject.layers[key.layer], job)
    return min(steps, key=lambda step: abs(step.t - key.t))


@torch.no_grad()
def strongest_place(step: Step, dictionary: Dictionary, latent: int) -> int:
    """The position, row-major, at which a latent of a spatial code is driven most; the first of equals."""
    features = features_of(step)
    check_width(dictionary, features.shape[1])
    rows, _ = encoder_rows(dictionary, [latent], features)
    return int((features @ rows[0]).argmax())


@torch.no_grad()
def in_code(step: Step, dictionary: Dictionary, latent: int, position: int | None) -> bool:
    """Whether TopK keeps a latent, or has it among those it cuts off."""
    read = read_at(features_of(step), position)[None]
    values, indices = dictionary.encode(read.to(dictionary.encoder))
    return bool(((indices == latent) & (values > 0)).any())
