"""A tokenizer, a text encoder and a U-Net as one module: from prompts and x_t to a predicted x_0."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcos_diffusion.denoiser import Conditioning
from bcos_diffusion.text import TextBatch, Tokenizer
from bcos_diffusion.text_encoder import TextEncoder
from bcos_diffusion.unet import UNet, UNetConfig


class TextToImage(nn.Module):
    """The trainable whole. Only content words carry a value; function words steer through the keys."""

    def __init__(self, config: UNetConfig, tokenizer: Tokenizer, text_depth: int = 2):
        super().__init__()
        self.tokenizer = tokenizer
        self.text_depth = text_depth
        self.text = TextEncoder(len(tokenizer), config.text_dim, text_depth, config.heads, tokenizer.length)
        self.unet = UNet(config)

    def condition(self, batch: TextBatch) -> Conditioning:
        """Read a batch of prompts. Tokens without a value cannot be attended to and contribute exactly 0."""
        carries = batch.mask & batch.value_mask  # [N, L]
        values = self.text.values(batch.ids) * carries[:, :, None].to(self.text.dtype)
        return Conditioning(values, self.text.keys(batch.ids, batch.mask), carries)

    def forward(self, x_t: Tensor, t: Tensor, batch: TextBatch) -> Tensor:
        """Predict x_0 ``[N, 6, H, W]`` from x_t, integer t ``[N]`` and ``N`` prompts."""
        return self.unet(x_t, t, self.condition(batch))

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.unet.parameters()).device
