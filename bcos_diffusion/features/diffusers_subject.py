"""diffusers' networks as subjects: a U-Net that reads texts, and DiT, which reads class labels.

Images go through the VAE where there is one, to the mode of what it encodes, times its scale; else they are the
network's own three channels, in [-1, 1]. Noise is x_t = √ᾱ·x_0 + √(1−ᾱ)·ε with the scheduler's ᾱ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bcos_diffusion.features.layers import layers
from bcos_diffusion.many import tensor_digest, weights_digest


class _DiffusersSubject:
    """What the two kinds of network do alike."""

    def __init__(self, network: Any, alphas_cumprod: Tensor, vae: Any | None, name: str):
        if vae is None and network.config.in_channels != 3:
            raise ValueError(
                f"the network reads {network.config.in_channels} channels, which images only have after a VAE;"
                " name a folder that has one"
            )
        if not isinstance(network.config.sample_size, int):
            raise ValueError(f"the network must be of square images, its sample_size is {network.config.sample_size}")
        self.name = name
        self.network: nn.Module = network.eval().requires_grad_(False)
        self.vae = None if vae is None else vae.eval().requires_grad_(False)
        self.alphas_cumprod = alphas_cumprod.double().cpu()
        self.timesteps = len(alphas_cumprod)
        self.layers = layers(self.network)
        self.config = network.config
        cell = 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
        self.size = self.config.sample_size * cell

    @property
    def _weight(self) -> Tensor:
        return next(self.network.parameters())

    def settings(self) -> dict[str, Any]:
        """Name, and the hashes of the weights of all parts and of the noise schedule."""
        parts = {"weights": self.network, "vae": self.vae, "text": getattr(self, "text_encoder", None)}
        hashes = {name: None if part is None else weights_digest(part) for name, part in parts.items()}
        dtype = str(self._weight.dtype).removeprefix("torch.")
        return {"name": self.name, **hashes, "alpha_bar": tensor_digest(self.alphas_cumprod), "dtype": dtype}

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents ``[N, C, h, w]``, or without a VAE the images ``[N, 3, H, W]`` themselves in [-1, 1]."""
        scaled = (2 * images - 1).to(self._weight)
        if self.vae is None:
            return scaled
        latents = self.vae.encode(scaled).latent_dist.mode()
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return (latents - shift) * self.vae.config.scaling_factor

    def noise(self, x_0: Tensor, t: int, seeds: Sequence[int]) -> Tensor:
        """x_t of the shape of x_0; noise is drawn on the CPU in float32 from each image's own seed."""
        shape = x_0.shape[1:]
        drawn = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        a = float(self.alphas_cumprod[t])
        return a**0.5 * x_0 + (1 - a) ** 0.5 * drawn.to(x_0)

    def _times(self, x_t: Tensor, t: int) -> Tensor:
        return torch.full((len(x_t),), t, device=x_t.device)


class UNetSubject(_DiffusersSubject):
    """A ``UNet2DConditionModel``, such as Stable Diffusion's.

    text_encoder, tokenizer: a CLIP as transformers has it, whose last hidden state is read; without them the only text
    is the empty one, which is then a token of zeros. Raises ValueError for a network that needs more than texts.
    """

    def __init__(
        self,
        network: Any,
        alphas_cumprod: Tensor,
        vae: Any | None = None,
        text_encoder: Any | None = None,
        tokenizer: Any | None = None,
        name: str = "UNet2DConditionModel",
    ):
        for option in ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
            if getattr(network.config, option, None) is not None:
                raise ValueError(f"this U-Net reads more than a text ({option} is set), which is not supported")
        if (text_encoder is None) != (tokenizer is None):
            raise ValueError("a text encoder and a tokenizer come together or not at all")
        super().__init__(network, alphas_cumprod, vae, name)
        self.text_encoder = None if text_encoder is None else text_encoder.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @torch.no_grad()
    def condition(self, texts: Sequence[str]) -> Tensor:
        """Hidden states ``[N, L, D]`` of the texts, each read alone. Raises ValueError for too long a text."""
        if self.text_encoder is None:
            if said := [text for text in texts if text]:
                raise ValueError(f"this model has no text encoder, so it can read no {said[0]!r}; only the empty text")
            return self._weight.new_zeros(len(texts), 1, self.config.cross_attention_dim)
        read = {text: self._read(text) for text in dict.fromkeys(texts)}
        return torch.cat([read[text] for text in texts])

    def run(self, x_t: Tensor, t: int, condition: Tensor) -> None:
        """Predict, and drop it."""
        self.network(x_t, self._times(x_t, t), condition, return_dict=False)

    def _read(self, text: str) -> Tensor:
        assert self.text_encoder is not None and self.tokenizer is not None
        length = self.tokenizer.model_max_length
        ids = self.tokenizer([text], padding="max_length", truncation=False, return_tensors="pt").input_ids
        if ids.shape[1] > length:
            raise ValueError(f"the prompt has {ids.shape[1]} tokens, at most {length} are accepted: {text[:60]!r}")
        encoder_device = next(self.text_encoder.parameters()).device
        return self.text_encoder(ids.to(encoder_device))[0].to(self._weight)


class DiTSubject(_DiffusersSubject):
    """A ``DiTTransformer2DModel``: its texts are classes, by name or number, and the empty one is the null class.

    names: the number of each class by its name, such as ImageNet's.
    """

    def __init__(
        self,
        network: Any,
        alphas_cumprod: Tensor,
        vae: Any | None = None,
        names: Mapping[str, int] | None = None,
        name: str = "DiTTransformer2DModel",
    ):
        super().__init__(network, alphas_cumprod, vae, name)
        self.classes = network.config.num_embeds_ada_norm
        self.numbers = dict(names or {})

    def condition(self, texts: Sequence[str]) -> Tensor:
        """Class numbers ``[N]``; raises ValueError for what names no class."""
        return torch.tensor([self._number(text) for text in texts], device=self._weight.device)

    def run(self, x_t: Tensor, t: int, condition: Tensor) -> None:
        """Predict, and drop it."""
        self.network(x_t, self._times(x_t, t), condition, return_dict=False)

    def _number(self, text: str) -> int:
        if not text:
            return int(self.classes)  # the row that stands for no class in classifier-free guidance
        number = int(text) if text.isdecimal() else self.numbers.get(text, -1)
        if not 0 <= number < self.classes:
            known = f", or a name such as {', '.join(list(self.numbers)[:3])}" if self.numbers else ""
            raise ValueError(f"{text!r} is no class of this model: a number from 0 to {self.classes - 1}{known}")
        return number
