"""Small models of the paper's kinds, with every weight random, and Stable Diffusion's own U-Net beside them."""

import re
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from bcos_diffusion.networks.paper_unet import PaperUNet, PaperUNetConfig

TINY = PaperUNetConfig(
    size=16, channels=(8, 16, 16), attention=(True, True, False), head_dim=4, groups=4, text_dim=16
)  # fmt: skip


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Move every weight off its first value, so that nothing is zero or one by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.mul_(2).add_(0.1 * noise)
    return model


def stable_diffusion(config: PaperUNetConfig) -> UNet2DConditionModel:
    """Stable Diffusion 2.1's U-Net, as diffusers builds it, in the shape of a configuration."""
    down = tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in config.attention)
    up = tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(config.attention))
    return UNet2DConditionModel(
        sample_size=config.size, in_channels=6, out_channels=6, use_linear_projection=True,
        cross_attention_dim=config.text_dim, block_out_channels=config.channels, layers_per_block=config.blocks,
        attention_head_dim=tuple(width // config.head_dim for width in config.channels), down_block_types=down,
        up_block_types=up, norm_num_groups=config.groups,
    )  # fmt: skip


# Our names on the left, those of diffusers on the right; the first that fits is taken, repeatedly.
_NAMES = [
    (r"^down\.(\d+)\.(\d+)\.block", r"down_blocks.\1.resnets.\2"),
    (r"^down\.(\d+)\.(\d+)\.transformer", r"down_blocks.\1.attentions.\2"),
    (r"^up\.(\d+)\.(\d+)\.block", r"up_blocks.\1.resnets.\2"),
    (r"^up\.(\d+)\.(\d+)\.transformer", r"up_blocks.\1.attentions.\2"),
    (r"^middle\.(\d+)\.block", r"mid_block.resnets.\1"),
    (r"^middle\.0\.transformer", r"mid_block.attentions.0"),
    (r"^downsample\.(\d+)", r"down_blocks.\1.downsamplers.0.conv"),
    (r"^upsample\.(\d+)", r"up_blocks.\1.upsamplers.0.conv"),
    (r"^time\.0", r"time_embedding.linear_1"),
    (r"^time\.2", r"time_embedding.linear_2"),
    (r"^norm_out", r"conv_norm_out"),
    (r"\.time\.project\.1", r".time_emb_proj"),
    (r"\.skip", r".conv_shortcut"),
    (r"(resnets\.\d+\.)(norm|conv)_(\d)", r"\1\2\3"),
    (r"(attentions\.\d+)\.(norm_\d|pixels|tokens|feed_forward)", r"\1.transformer_blocks.0.\2"),
    (r"blocks\.0\.norm_", r"blocks.0.norm"),
    (r"\.pixels", r".attn1"),
    (r"\.tokens", r".attn2"),
    (r"\.query", r".to_q"),
    (r"\.key", r".to_k"),
    (r"\.value", r".to_v"),
    (r"\.out\.(weight|bias)", r".to_out.0.\1"),
    (r"\.feed_forward\.0", r".ff.net.0.proj"),
    (r"\.feed_forward\.2", r".ff.net.2"),
]


def name_in_diffusers(name: str) -> str:
    for ours, theirs in _NAMES:
        name = re.sub(ours, theirs, name)
    return name


def copy_from(reference: UNet2DConditionModel, network: PaperUNet) -> None:
    """Give a network of ordinary layers the weights of Stable Diffusion's; every one must be used once."""
    theirs: dict[str, Tensor] = dict(reference.state_dict())
    ours = {name: theirs.pop(name_in_diffusers(name)) for name in network.state_dict()}
    assert not theirs, sorted(theirs)
    network.load_state_dict(ours)


def layer_counts(network: nn.Module, kinds: dict[str, tuple[Any, ...]]) -> dict[str, int]:
    """How many modules of each of several kinds a network has."""
    return {name: sum(isinstance(m, types) for m in network.modules()) for name, types in kinds.items()}
