"""A picture of one latent: its top images, what drives it at one step, and what its direction draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bcos_diffusion.encoding import decode
from bcos_diffusion.explanation.overlay import overlay
from bcos_diffusion.features.latents.attribution import LatentAttribution, attribute
from bcos_diffusion.features.latents.direction import colours, draw_directions
from bcos_diffusion.features.latents.sheet import Images
from bcos_diffusion.features.latents.step import Dictionary, Step
from bcos_diffusion.features.latents.top import TopImages
from bcos_kernels.files import write_atomically

_FOR, _AGAINST, _OTHER = "#c44e52", "#4c72b0", "#8c8c8c"


def draw_latent(
    step: Step,
    dictionary: Dictionary,
    latent: int,
    path: Path,
    top: TopImages,
    images: Images,
    position: int | None = None,
) -> None:
    """Write the figure of one latent at one step as PNG.

    images: an image by the number that ``top`` has; position: of a spatial code. Raises ValueError as
    :func:`attribute` and OSError.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = attribute(step, dictionary, [latent], position)
    drawn = draw_directions(step, dictionary, [latent], position)[0]
    predicted = prediction(step)
    activation = float(found.activation[0])
    shown = [i for i in top.image[latent].tolist() if i >= 0]
    bars = bars_of(found, step.batch.words[0], step.t)
    lower = max(2.4, 0.5 + 0.2 * len(bars))
    figure = plt.figure(figsize=(12, 1.5 + lower + 0.4), dpi=110, layout="constrained")
    words = " ".join(step.batch.words[0])
    said = f"“{words}”" if words else "no words"
    figure.suptitle(f"latent {latent} at t = {step.t}, {said}: {_state(activation)}", fontsize=11)
    first, second = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.5, lower])[:, 0]
    for axes, number in zip(first.subplots(1, max(len(shown), 1), squeeze=False)[0], shown or [None], strict=True):
        axes.axis("off")
        if number is not None:
            _show(axes, images(number), "top images" if number == shown[0] else "")
    left, *tiles = second.subplots(1, 5, width_ratios=[2.2, 1, 1, 1, 1])
    _bars(left, bars, found)
    heat = found.pixels[0] / found.pixels[0].abs().max().clamp(min=1e-30)
    _show(tiles[0], decode(step.x_t[None])[0], f"x_{step.t}")
    tiles[1].imshow(np.asarray(overlay(predicted, heat)), interpolation="nearest")
    _title(tiles[1], f"which pixels of x_{step.t}\n(red for, blue against)")
    _show(tiles[2], predicted, "predicted x_0")
    push = colours(drawn)
    largest = float(push.abs().max())
    here = 100 * max(activation, 0.0) * largest
    _show(tiles[3], 0.5 + push / (2 * largest or 1.0), f"its direction draws\n(up to {here:.2g}% of range)")
    try:
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", metadata={"Software": None}))
    finally:
        plt.close(figure)


def prediction(step: Step) -> Tensor:
    """The predicted x_0 of a step: rgb ``[3, H, W]`` in [0, 1]."""
    return decode(step.x_0()[None])[0].clamp(0, 1)


def bars_of(found: LatentAttribution, words: Sequence[str], t: int) -> list[tuple[str, float]]:
    """What drives the first latent of an attribution, by name: words that add anything, x_t, time and the constant."""
    spoken = zip(words, found.words[0].tolist(), strict=True)
    bars = [(word, value) for word, value in spoken if value]
    bars.append((f"x_{t}", float(found.x_t[0].sum())))
    if float(found.time[0]):
        bars.append(("time", float(found.time[0])))
    return [*bars, ("constant", float(found.constant[0]))]


def _state(activation: float) -> str:
    return f"activation {activation:.3g}" + ("" if activation > 0 else ", which is none")


def _bars(axes: matplotlib.axes.Axes, bars: Sequence[tuple[str, float]], found: LatentAttribution) -> None:
    values = [value for _, value in bars]
    named = {"time", "constant"}
    shades = [_OTHER if name in named else _FOR if value > 0 else _AGAINST for name, value in bars]
    axes.barh(range(len(bars)), values, color=shades)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=9)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.6)
    axes.tick_params(axis="x", labelsize=7)
    _title(axes, f"what drives it; the bars sum to {sum(values):.3g}\n(relative error {found.completeness:.0e})")


def _show(axes: matplotlib.axes.Axes, image: Tensor, title: str) -> None:
    pixels: NDArray[np.float32] = image.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    axes.imshow(pixels, interpolation="nearest")
    _title(axes, title)


def _title(axes: matplotlib.axes.Axes, title: str) -> None:
    axes.set_title(title, fontsize=9)
    if axes.images:
        axes.axis("off")
