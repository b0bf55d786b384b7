"""Our pipelines as subjects: six channels, the model's own noise schedule, its tokenizer and text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bcos_diffusion.diffusion import add_noise, paired_noise
from bcos_diffusion.encoding import encode
from bcos_diffusion.features.layers import layers
from bcos_diffusion.job import join
from bcos_diffusion.many import tensor_digest, weights_digest
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch
from bcos_diffusion.text.frozen import FrozenText


class PipelineSubject:
    """A :class:`~bcos_diffusion.features.subject.Subject`: B-cos or ordinary, with a word list or a frozen CLIP."""

    def __init__(self, pipeline: BcosDiffusionPipeline):
        self.pipeline = pipeline
        self.name = pipeline.name
        self.network: nn.Module = pipeline.model.unet
        self.layers = layers(self.network)
        self.size = pipeline.default_size[0]
        self.timesteps = len(pipeline.alpha_bar)

    def settings(self) -> dict[str, Any]:
        """Name, and the hashes of weights, of a frozen text and of the noise schedule."""
        text = self.pipeline.model.text
        return {
            "name": self.name,
            "weights": weights_digest(self.pipeline.model),
            "text": text.sha256 if isinstance(text, FrozenText) else None,
            "alpha_bar": tensor_digest(self.pipeline.alpha_bar),
            "dtype": str(self.pipeline.dtype).removeprefix("torch."),
        }

    def encode(self, images: Tensor) -> Tensor:
        """Six channels ``[N, 6, H, W]`` of rgb images ``[N, 3, H, W]`` in [0, 1]."""
        return encode(images).to(self.pipeline.model.device, self.pipeline.dtype)

    def noise(self, x_0: Tensor, t: int, seeds: Sequence[int]) -> Tensor:
        """x_t ``[N, 6, H, W]`` of paired noise, drawn on the CPU from each image's own seed."""
        shape = (1, *x_0.shape[1:])
        noise = torch.cat([paired_noise(shape, torch.Generator().manual_seed(seed)) for seed in seeds]).to(x_0)
        return add_noise(x_0, torch.full((len(x_0),), t, device=x_0.device), noise, self.pipeline.alpha_bar.to(x_0))

    @torch.no_grad()
    def condition(self, texts: Sequence[str]) -> Conditioning:
        """Values and keys of each text, each read alone; raises ValueError for words that the model does not know."""
        # One by one, since the batch a prompt is read in may change the last bit of what is read; and each once.
        read = {text: self.pipeline.model.condition(self.tokenize(text)) for text in dict.fromkeys(texts)}
        return join([read[text] for text in texts])

    def run(self, x_t: Tensor, t: int, condition: Conditioning) -> None:
        """Predict x_0 or the noise, and drop it."""
        self.network(x_t, torch.full((len(x_t),), t, device=x_t.device), condition)

    def tokenize(self, text: str) -> TextBatch:
        """One text; "" is the empty prompt. Raises ValueError for words that the model does not know."""
        tokenizer = self.pipeline.model.tokenizer
        batch = tokenizer.encode([text]) if text else tokenizer.encode_null(1)
        return batch.to(self.pipeline.model.device)
