"""A dictionary of random directions, and a layer of a tiny pipeline to use it on."""

import torch
from torch import Tensor, nn

from bcos_diffusion.features.latents.step import Step, features_of
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from references.networks import PROMPT, pipeline_of

LAYERS = {
    "scale": ("scale", "down.1.0"),
    "additive": ("additive", "up.1.0"),
    "paper": ("paper", "middle.1"),
    "paper noise": ("paper noise", "up.0.0"),
    "tokens": ("scale", "down.1.0.pixels.attend"),
}
"""By name: a kind of pipeline and a layer of it. The last puts out tokens, the others maps."""

T = 300


class RandomDictionary:
    """Encoder and decoder of n random directions of length 1, random biases, and TopK by sorting."""

    def __init__(self, dim: int, latents: int = 24, k: int = 4, dtype: torch.dtype = torch.float64):
        generator = torch.Generator().manual_seed(11)
        self.k = k
        self.encoder, self.decoder = (
            nn.functional.normalize(torch.randn(latents, dim, generator=generator)).to(dtype) for _ in range(2)
        )
        self.pre_bias = 0.1 * torch.randn(dim, generator=generator).to(dtype)
        self.encoder_bias = 0.1 * torch.randn(latents, generator=generator).to(dtype)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = (x - self.pre_bias) @ self.encoder.t() + self.encoder_bias
        ordered, indices = values.sort(dim=1, descending=True)
        return ordered[:, : self.k].relu(), indices[:, : self.k]


def tiny_step(kind: str, dtype: torch.dtype = torch.float64, prompt: str = PROMPT) -> Step:
    network, layer = LAYERS[kind]
    pipeline = pipeline_of(network)
    pipeline.model.to(dtype)
    return step_of(pipeline, layer, prompt)


def step_of(pipeline: BcosDiffusionPipeline, layer: str, prompt: str = PROMPT) -> Step:
    module = pipeline.model.unet.get_submodule(layer)
    return Step.of(pipeline, module, pipeline.model.tokenizer.encode([prompt]), pipeline.initial_noise(3), T)


def dictionary_of(step: Step, dtype: torch.dtype = torch.float64) -> RandomDictionary:
    return RandomDictionary(features_of(step).shape[1], dtype=dtype)
