"""Scenes and maps as small PNGs, laid out as examples: the picture, true masks, and a map per word and method."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bcos_diffusion.encoding import to_pil
from bcos_diffusion.evaluation.page.measures import label
from bcos_diffusion.evaluation.page.results import show
from bcos_diffusion.explanation.overlay import overlay
from bcos_diffusion.page.section import Example, Picture
from bcos_diffusion.scenes.sheet import highlight

COLOURS = 64


@dataclass(frozen=True)
class Shown:
    """A word of an example. mask: its true region ``[H, W]``; said: of each method's map of it, such as its IoU."""

    number: int
    text: str
    mask: NDArray[np.bool_] | None
    said: Mapping[str, str]


def example(title: str, text: str, image: Tensor, words: Sequence[Shown], maps: Mapping[str, Tensor]) -> Example:
    """One picture with the maps of its words. image: rgb ``[3, H, W]`` in [0, 1]; maps: by method ``[words, H, W]``.

    All maps of a method are on one scale, its largest magnitude among the words shown, so that words can be compared;
    methods are each on their own.
    """
    picture = to_pil(image)
    pixels = np.asarray(picture)
    whole = Picture(png(picture), f"the picture of “{title}”", "picture")
    scales = {method: _scale(map_, words) for method, map_ in maps.items()}
    rows = []
    for word in words:
        pictures = [_mask(pixels, word)]
        for method, found in maps.items():
            said = word.said.get(method, "")
            drawn = overlay(image, (found[word.number] / scales[method]).float())
            small = drawn.resize((image.shape[2], image.shape[1]), Image.Resampling.NEAREST)
            name = label(method)
            pictures.append(Picture(png(small), f"{name}: map of “{word.text}”{f', {said}' if said else ''}", said))
        rows.append((word.text, tuple(pictures)))
    columns = ("true region", *(label(method) for method in maps))
    return Example(title, text, (whole,), columns, tuple(rows))


def png(picture: Image.Image) -> bytes:
    """A picture as PNG of at most 64 colours, the same bytes for the same picture."""
    buffer = io.BytesIO()
    small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def iou_text(value: float) -> str:
    """How an IoU is written under a map."""
    return f"IoU {show(value, 100, 0)}%"


def _scale(map_: Tensor, words: Sequence[Shown]) -> float:
    """The largest magnitude among the words shown; 1 where all is 0."""
    values = torch.stack([map_[word.number].abs().max() for word in words]) if words else torch.zeros(1)
    return float(values.max()) or 1.0


def _mask(pixels: NDArray[np.uint8], word: Shown) -> Picture:
    if word.mask is None:
        empty = np.full_like(pixels, 190)
        return Picture(png(Image.fromarray(empty)), f"“{word.text}” has no region in the picture", "no region")
    seen = Image.fromarray(highlight(pixels, word.mask))
    return Picture(png(seen), f"the true region of “{word.text}”", f"{word.mask.mean():.0%} of the picture")
