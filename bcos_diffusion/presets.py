"""The paper's four models and its baseline, at the paper's size and at two that scenes need.

All share one U-Net and one text tower; a preset says what the U-Net is made of, what it predicts and which part of
CLIP it reads.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.paper_unet import PaperUNetConfig
from bcos_diffusion.pipeline import Defaults
from bcos_diffusion.text.clip_weights import VIT_H_14
from bcos_diffusion.text.frozen import FrozenText


@dataclass(frozen=True)
class Preset:
    """A model of the paper at one size.

    unet: as configured for tokens of CLIP ViT-H-14's width; reads: the part of CLIP, as ``ClipText`` names it;
    special: whether start, end and padding tokens are "visible" or "masked"; defaults: how it is sampled.
    """

    name: str
    size: str
    unet: PaperUNetConfig
    reads: str
    special: str
    defaults: Defaults


SIZES = {
    "paper": PaperUNetConfig(),
    "base": PaperUNetConfig(
        size=32, patch=2, channels=(64, 128, 192), attention=(True, True, True), head_dim=32, groups=16
    ),
    "small": PaperUNetConfig(
        size=32, patch=2, channels=(32, 64, 96), attention=(True, True, True), head_dim=32, groups=8
    ),
}

# What the U-Net is, what of CLIP it reads, what the image may see of CLIP's layout, and the sampler's update. Noise
# has no mean to write as a pair-mean, so the constants of the standard update are the model's own.
_MODELS: dict[str, tuple[dict[str, str], str, str, Defaults]] = {
    "bcos-x0": ({}, "embeddings", "masked", Defaults()),
    "bcos-clip-x0": ({}, "encoder", "visible", Defaults()),
    "bcos-clip-eps": ({"predicts": "noise"}, "encoder", "visible", Defaults(update="standard")),
    "vanilla": ({"layers": "vanilla"}, "encoder", "visible", Defaults(update="standard")),
}
NAMES = tuple(_MODELS)


def preset(name: str, size: str = "paper", time_conditioning: str = "additive") -> Preset:
    """The preset of a name in ``NAMES`` and a size in ``SIZES``; time is "additive" as published, or "scale".

    Raises ValueError, with what is accepted, for another one.
    """
    if name not in _MODELS:
        raise ValueError(f"the models are {', '.join(_MODELS)}; there is no {name!r}")
    if size not in SIZES:
        raise ValueError(f"the sizes are {', '.join(SIZES)}; there is no {size!r}")
    changes, reads, special, defaults = _MODELS[name]
    unet = dataclasses.replace(SIZES[size], time_conditioning=time_conditioning, **changes)  # type: ignore[arg-type]
    return Preset(name, size, unet, reads, special, defaults)


def build(
    name: str, size: str = "paper", text_source: str | Path = VIT_H_14, time_conditioning: str = "additive"
) -> TextToImage:
    """A new model of a preset, with random weights and the frozen text of ``text_source``.

    text_source: a file, a folder or a hub id, as ``load_clip_text`` takes it; the U-Net takes the width of its tokens.
    Raises ValueError or FileNotFoundError as :func:`preset` and ``load_clip_text``.
    """
    chosen = preset(name, size, time_conditioning)
    text = FrozenText.load(text_source, chosen.reads, chosen.special)
    return TextToImage(dataclasses.replace(chosen.unet, text_dim=text.width), text)
