"""The text-conditioned B-cos diffusion transformer: predicts x_0 in six channels from x_t, t and a prompt.

x_t is cut into patches, each a vector that blocks of attention and MLP transform (DiT, Peebles & Xie 2023). Outputs
of the first blocks are read again by the last ones (U-ViT, Bao et al. 2023), because x_t is what the picture is made
from and most of it is lost on the way through attention.

The design rules are those of the scenes U-Net (``unet.py``): no parameter is added to the stream, values speak and
keys steer, positions enter queries and keys alone, and no norm stands between a word's value and the stream. So in its
"scale" form the prediction is exactly  Σ_tokens W_i v_i + W_x x_t  under explanation mode.

With ``layers="vanilla"`` and ``time_conditioning="additive"`` the same network is an ordinary DiT: layer norms, GELU,
biases and adaLN-Zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from bcos_diffusion.networks.config import ScenesConfig
from bcos_diffusion.networks.denoiser import Conditioning, Denoiser
from bcos_diffusion.networks.dit_blocks import Block
from bcos_diffusion.networks.layers import Layers
from bcos_diffusion.networks.time import TimeMLP


@dataclass(frozen=True)
class DiTConfig(ScenesConfig):
    """Shape of a :class:`DiT`.

    size, patch: sides of a picture and of a patch in pixels; width: of a patch's vector; depth: blocks; mlp: how many
    times as wide an MLP is inside; b: of the MLPs' B-cos layers; attention_b: of values and outputs of attention.
    Raises ValueError for what cannot be.
    """

    size: int = 32
    patch: int = 4
    width: int = 192
    depth: int = 7
    heads: int = 4
    mlp: int = 4
    text_dim: int = 128
    time_dim: int = 128
    b: float = 2.0
    attention_b: float = 1.0
    time_conditioning: str = "scale"
    layers: Literal["bcos", "vanilla"] = "bcos"
    noise_shift: float = 1.0

    def __post_init__(self) -> None:
        self.check_size_and_time()
        Layers(self.layers)
        for name in ("depth", "heads", "mlp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads or self.text_dim % self.heads:
            widths = f"width {self.width} and text_dim {self.text_dim}"
            raise ValueError(f"width and text_dim must be multiples of heads ({self.heads}), got {widths}")

    @property
    def levels(self) -> int:
        """A transformer works at one resolution."""
        return 1

    @property
    def side(self) -> int:
        """Patches per side of a picture."""
        return self.size // self.patch

    @property
    def joins(self) -> int:
        """How many of the first blocks are read again by as many of the last; one at least is between them."""
        return (self.depth - 1) // 2


class DiT(Denoiser):
    """Predict x_0 ``[N, 6, H, W]`` from x_t ``[N, 6, H, W]``, integer t ``[N]`` and a prompt.

    ``blocks`` are what runs one after the other between the first and the last convolution, on patches
    ``[N, H * W / patch², width]``, row by row.
    """

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        self.time_adds = config.time_conditioning == "additive"
        self.explainable = config.layers == "bcos"
        self.stride = config.stride
        in_out = 6 * config.patch**2
        self.time = TimeMLP(config.time_dim)
        straight = config.straight
        self.conv_in = straight.conv(in_out, config.width, 3)
        first_join = config.depth - config.joins
        self.blocks = nn.ModuleList(Block(config, joins=number >= first_join) for number in range(config.depth))
        self.norm_out = straight.group_norm(1, config.width)
        self.conv_out = straight.conv(config.width, in_out, 3)

    def forward(self, x_t: Tensor, t: Tensor, text: Conditioning) -> Tensor:
        """Predict x_0.

        x_t: ``[S * N, 6, H, W]``; t: ``[N]`` integers; returns the shape of ``x_t``. Under
        ``stacked(S)`` the parts after the first are tangents; in the "additive" form the last one
        is the tangent of the time conditioning.
        """
        self.check_input(x_t)
        time = self.time(t)
        picture = self.conv_in(F.pixel_unshuffle(x_t, self.config.patch))  # [S N, D, h, w]
        size = (picture.shape[2], picture.shape[3])
        h = picture.flatten(2).transpose(1, 2)  # [S N, P, D]
        kept: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            h = block(h, time, text, size, kept.pop() if number >= self.config.depth - self.config.joins else None)
            if number < self.config.joins:
                kept.append(h)
        picture = h.transpose(1, 2).unflatten(2, size)
        return F.pixel_shuffle(self.conv_out(self.norm_out(picture)), self.config.patch)
