"""diffusers' networks in small, of random weights, and a text encoder in the form of transformers'."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


def tiny_unet(channels: int = 3) -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16, in_channels=channels, out_channels=channels, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4, cross_attention_dim=12, attention_head_dim=4,
    )  # fmt: skip


def tiny_dit(channels: int = 3) -> Any:
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(0)
    return DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=channels, num_layers=4, sample_size=16, patch_size=2,
        num_embeds_ada_norm=5,
    )  # fmt: skip


def tiny_vae() -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=32,
    )  # fmt: skip


class Letters:
    """A tokenizer that reads letters: the number of each, a zero at the start, ones for padding."""

    model_max_length = 8

    def __call__(self, texts: list[str], **_: Any) -> SimpleNamespace:
        rows = [[0, *(ord(letter) % 50 for letter in text)] for text in texts]
        return SimpleNamespace(input_ids=torch.tensor([row + [1] * (8 - len(row)) for row in rows]))


class LetterEncoder(nn.Module):
    """Hidden states ``[N, L, 12]``, first of a tuple, as transformers' encoders give them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.table = nn.Embedding(50, 12)

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        return (self.table(ids),)
