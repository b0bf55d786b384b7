"""Pipelines of every kind of network that we have, tiny, in float64, and a step or a run as plain code computes it."""

import dataclasses

import torch
from torch import Tensor

from bcos_diffusion.diffusion import guide, predicted_x_0, sample
from bcos_diffusion.job import Job
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.text.clip import ClipText, ClipTextConfig
from bcos_diffusion.text.clip_tokenizer import ClipTokenizer
from bcos_diffusion.text.frozen import FrozenText
from references.paper_models import TINY, shaken
from references.tiny import tiny_pipeline

KINDS = ("scale", "additive", "dit", "paper", "paper noise", "vanilla")
PROMPT = "a cat left of dog on blue"


def pipeline_of(kind: str) -> BcosDiffusionPipeline:
    """One of :data:`KINDS`: our U-Net with either time conditioning, our DiT, or the paper's U-Net of either kind."""
    if kind == "dit":
        return tiny_pipeline(network=kind)
    if kind in ("scale", "additive"):
        return tiny_pipeline(time_conditioning=kind)
    torch.manual_seed(3)
    tower = ClipText(ClipTextConfig(context_length=12, width=16, heads=2, layers=3))
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    config = dataclasses.replace(
        TINY, layers="vanilla" if kind == "vanilla" else "bcos", predicts="noise" if "noise" in kind else "x_0"
    )
    model = TextToImage(config, FrozenText(tower, ClipTokenizer(12), "none"))
    shaken(model)
    return BcosDiffusionPipeline(model.double(), Defaults(steps=2, guidance=2.5), name=kind)


def step(pipeline: BcosDiffusionPipeline, text: Conditioning, x_t: Tensor, t: Tensor) -> Tensor:
    """x̂_0 of one prompt at N states, one after the other."""
    unet = pipeline.model.unet
    found = []
    for x, time in zip(x_t, t, strict=True):
        predicted = unet(x[None], time[None], text)
        alpha_bar = pipeline.alpha_bar.double()[time]
        found.append(predicted_x_0(predicted, x[None], alpha_bar, unet.predicts)[0])
    return torch.stack(found)


def drawn(pipeline: BcosDiffusionPipeline, text: Conditioning, null: Conditioning, job: Job, number: int) -> Tensor:
    """Picture ``number`` of a job with guidance, drawn by itself from its prompt and its counterpart."""

    def denoise(x_t: Tensor, t: int) -> Tensor:
        time = torch.tensor([t])
        both = (step(pipeline, text, x_t, time), step(pipeline, null, x_t, time))
        return guide(*both, job.guidance.at(t))

    return sample(denoise, job.first[number : number + 1], job.alpha_bar, job.steps, job.update)


def states(pipeline: BcosDiffusionPipeline) -> tuple[Tensor, Tensor]:
    """Two noisy states and their timesteps."""
    return torch.stack([pipeline.initial_noise(s) for s in (0, 1)]), torch.tensor([250, 900])
