"""A text and a denoiser as one module: from prompts and x_t to a predicted x_0 or noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bcos_diffusion.networks.denoiser import Conditioning, Denoiser
from bcos_diffusion.networks.dit import DiT, DiTConfig
from bcos_diffusion.networks.paper_unet import PaperUNet, PaperUNetConfig
from bcos_diffusion.networks.unet import UNet, UNetConfig
from bcos_diffusion.text import TextBatch, Tokenizer
from bcos_diffusion.text.encoder import TextEncoder
from bcos_diffusion.text.frozen import FrozenText

_KINDS: dict[str, tuple[type[Any], type[Denoiser]]] = {
    "unet": (UNetConfig, UNet),
    "paper_unet": (PaperUNetConfig, PaperUNet),
    "dit": (DiTConfig, DiT),
}
"""What a denoiser is called where a model is stored, its configuration and its class."""

EMBEDDINGS = ("text.value_table.weight", "text.key_table.weight")
"""The parameters that have a row for each token of a word list."""


class TextToImage(nn.Module):
    """The trainable whole.

    config: of the denoiser, whose kind it names; text: a word list, for which a text encoder is trained with the
    denoiser (only content words carry a value then; function words steer through the keys; with ordinary layers all
    words carry contextual values), or a frozen CLIP, which is no parameter of the model. The paper's U-Net reads a
    frozen text only. Raises ValueError where denoiser and text do not fit.
    """

    def __init__(
        self, config: UNetConfig | PaperUNetConfig | DiTConfig, text: Tokenizer | FrozenText, text_depth: int = 2
    ):
        super().__init__()
        self.tokenizer = text.tokenizer if isinstance(text, FrozenText) else text
        self.text_depth = text_depth
        self.text: TextEncoder | FrozenText
        if isinstance(text, FrozenText):
            if text.width != config.text_dim:
                raise ValueError(f"the denoiser reads tokens of width {config.text_dim}, the text's have {text.width}")
            self.text = text
        elif not isinstance(config, PaperUNetConfig):
            own_values = config.layers == "bcos"
            self.text = TextEncoder(len(text), config.text_dim, text_depth, config.heads, text.length, own_values)
        else:
            raise ValueError("the paper's U-Net reads the tokens of a frozen CLIP, not a word list of its own")
        (network,) = [network for kind, network in _KINDS.values() if isinstance(config, kind)]
        self.unet: Denoiser = network(config)

    def condition(self, batch: TextBatch) -> Conditioning:
        """Read a batch of prompts. Tokens without a value cannot be attended to and contribute exactly 0."""
        if isinstance(self.text, FrozenText):
            return self.text.condition(batch)
        if self.text.value_table is None:
            contextual = self.text.keys(batch.ids, batch.mask)
            return Conditioning(contextual, contextual, batch.mask)
        carries = batch.mask & batch.value_mask  # [N, L]
        values = self.text.values(batch.ids) * carries[:, :, None].to(self.text.dtype)
        return Conditioning(values, self.text.keys(batch.ids, batch.mask), carries)

    def forward(self, x_t: Tensor, t: Tensor, batch: TextBatch) -> Tensor:
        """Predict x_0 or the noise ``[N, 6, H, W]`` from x_t, integer t ``[N]`` and ``N`` prompts."""
        return self.unet(x_t, t, self.condition(batch))

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.unet.parameters()).device

    def twin(self) -> TextToImage:
        """A model of the same shape with weights of its own; a frozen text is shared."""
        text = self.text if isinstance(self.text, FrozenText) else self.tokenizer
        assert isinstance(text, Tokenizer | FrozenText)
        return TextToImage(self.unet.config, text, self.text_depth).to(self.device)

    def to_dict(self) -> dict[str, Any]:
        """What the model is made of, as JSON-ready values, without its weights."""
        (name,) = [name for name, (_, network) in _KINDS.items() if isinstance(self.unet, network)]
        unet = {name: self.unet.config.to_dict()}
        if isinstance(self.text, FrozenText):
            return unet | {"frozen_text": self.text.to_dict()}
        return unet | {"text_depth": self.text_depth, "tokenizer": self.tokenizer.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any], folder: Path, text_source: str | Path | None = None) -> TextToImage:
        """Rebuild a model from :meth:`to_dict`, with new weights; where its text is: as ``FrozenText.from_dict``."""
        name = next((name for name in _KINDS if name in values), "unet")
        config = _KINDS[name][0].from_dict(values[name])
        if "frozen_text" in values:
            return cls(config, FrozenText.from_dict(values["frozen_text"], folder, text_source))
        return cls(config, Tokenizer.from_dict(values["tokenizer"]), values["text_depth"])
