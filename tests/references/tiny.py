"""A tiny pipeline in float64, and the contributions in a run of it from an explicit Jacobian."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.diffusion import sample
from bcos_diffusion.explanation.trace import predict_x_0
from bcos_diffusion.job import Job
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.dit import DiTConfig
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.text import Tokenizer
from bcos_kernels.mode import explanation_mode

WORDS = ["a", "cat", "dog", "on", "blue", "background", "left", "of", "broccolis"]

TINY_UNET = UNetConfig(
    size=16, widths=(8, 16), heads=2, text_dim=8, time_dim=8, self_attention=(False, True), cross_attention=(True, True)
)
TINY_DIT = DiTConfig(size=16, patch=4, width=16, depth=3, heads=2, mlp=2, text_dim=8, time_dim=8)
NETWORKS: dict[str, UNetConfig | DiTConfig] = {"unet": TINY_UNET, "dit": TINY_DIT}


def tiny_pipeline(
    size: int = 16,
    time_conditioning: str = "scale",
    dtype: torch.dtype = torch.float64,
    network: str = "unet",
    **changes: Any,
) -> BcosDiffusionPipeline:
    """network: one of :data:`NETWORKS`; changes: of its configuration."""
    torch.manual_seed(0)
    config = dataclasses.replace(NETWORKS[network], size=size, time_conditioning=time_conditioning, **changes)
    model = TextToImage(config, Tokenizer(WORDS), text_depth=1)
    for name, parameter in model.named_parameters():
        if "time.project" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return BcosDiffusionPipeline(
        model.to(dtype), Defaults(steps=3, guidance=2.5), name="tiny" if network == "unet" else network
    )


def slow_contributions(pipeline: BcosDiffusionPipeline, job: Job, places: Tensor) -> tuple[Tensor, Tensor]:
    """What every token ``[rows, L, K]`` and x_T ``[K]`` of a job of one picture gave to K values of its image.

    places: ``[K]`` integers, values of the flat image. One backward pass through the graph of the whole run for each:
    rows of the Jacobian.
    """
    values, first = job.text.values.clone().requires_grad_(), job.first.clone().requires_grad_()
    text = Conditioning(values, job.text.keys, job.text.mask)

    def denoise(x_t: Tensor, t: int) -> Tensor:
        unet = pipeline.model.unet
        return predict_x_0(unet, text, x_t[None], t, job.alpha_bar[t], job.guidance, job.update)[0]

    with explanation_mode():
        image = sample(denoise, first, job.alpha_bar, job.steps, job.update)[0]
    tokens, origin = [], []
    for value in image.flatten()[places]:
        by_value, by_first = torch.autograd.grad(value, [values, first], retain_graph=True)
        tokens.append((by_value * values.detach()).sum(-1))
        origin.append((by_first * first.detach()).sum())
    return torch.stack(tokens, -1), torch.stack(origin)
