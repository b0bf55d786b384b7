"""Pictures of an explanation: one overlay per word, and one labelled figure of everything."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bcos_diffusion.encoding import to_pil
from bcos_diffusion.explain import Explanation
from bcos_diffusion.explanation.breakdown import Breakdown
from bcos_diffusion.explanation.breakdown_figure import save_breakdown
from bcos_diffusion.explanation.overlay import label, overlay
from bcos_diffusion.explanation.reduction import own_colour
from bcos_diffusion.explanation.regions import Box
from bcos_kernels.files import write_atomically, write_json, write_tensors

MOST_COLUMNS = 8
SAVES = ("all", "maps", "numbers")
"""What is written of an explanation: everything, no more than image, raw maps and JSON, or image and JSON alone."""


def word_heat(explanation: Explanation) -> list[Tensor]:
    """Where each word's colour is its own: maps ``[H, W]``, all on one scale so that words compare.

    Negative where the word is one of the negative prompt.
    """
    maps = own_colour(torch.stack([part.map for part in explanation.words])[:, None])[:, 0]  # [words, H, W]
    largest = float(maps.max())
    signs = [-1.0 if part.negative else 1.0 for part in explanation.words]
    return [sign * m / largest if largest else m for sign, m in zip(signs, maps, strict=True)]


def draw_figure(explanation: Explanation, path: Path) -> None:
    """One figure: image, reconstruction from the words alone, a map per word, relevance bars, budget."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tiles = [
        (to_pil(explanation.image), "image"),
        (to_pil(explanation.raw_reconstruction), f"words alone, Eq. 6\nMSE {explanation.raw_reconstruction_mse:.4f}"),
        (to_pil(explanation.reconstruction), f"words alone, Eq. 7\nMSE {explanation.reconstruction_mse:.4f}"),
    ]
    for part, heat in zip(explanation.words, word_heat(explanation), strict=True):
        tiles.append((overlay(explanation.image, heat), label(part)))
    columns = min(MOST_COLUMNS, max(4, len(tiles)))
    rows = -(-len(tiles) // columns)
    bars = 1.0 + 0.17 * len(explanation.words)
    figure = plt.figure(figsize=(1.5 * columns, 1.8 * rows + bars + 0.6), dpi=110, layout="constrained")
    figure.suptitle(f"“{explanation.prompt}”  seed {explanation.seed}", fontsize=11)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.8 * rows, bars])[:, 0]
    for axes in upper.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, (picture, title) in zip(upper.axes, tiles, strict=False):
        axes.imshow(np.asarray(picture), interpolation="nearest")
        axes.set_title(title, fontsize=9)
    left, right = lower.subplots(1, 2)
    _relevance_bars(left, explanation)
    _budget_bars(right, explanation)
    try:
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", metadata={"Software": None}))
    finally:
        plt.close(figure)


def named_budget(explanation: Explanation) -> dict[str, float]:
    """The budget under the name of what sampling started from: x_T, or x_t of a picture."""
    return {explanation.origin if name == "x_T" else name: share for name, share in explanation.budget.items()}


def percent(share: float) -> str:
    """A share as people read it; what rounds to zero has no sign."""
    return f"{round(100 * share, 1) + 0.0:.1f}%"


def _relevance_bars(axes: matplotlib.axes.Axes, explanation: Explanation) -> None:
    words = explanation.words
    axes.barh(range(len(words)), [part.relevance_signed for part in words], color="#c44e52")
    axes.set_yticks(range(len(words)), [label(part) for part in words], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_title("relevance of each word (signed share, Eq. 8)", fontsize=9)
    axes.tick_params(axis="x", labelsize=7)


def _budget_bars(axes: matplotlib.axes.Axes, explanation: Explanation) -> None:
    budget = named_budget(explanation)
    axes.bar(range(len(budget)), list(budget.values()), color="#4c72b0")
    axes.set_xticks(range(len(budget)), [f"{k}\n{percent(v)}" for k, v in budget.items()], fontsize=8)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_title(f"budget of the image; completeness error {explanation.completeness:.1e}", fontsize=9)
    axes.tick_params(axis="y", labelsize=7)


def save_explanation(
    explanation: Explanation,
    folder: Path,
    save: str = "all",
    box: Box | None = None,
    breakdown: Breakdown | None = None,
) -> list[Path]:
    """Write image, overlays, figure, raw maps and JSON into ``folder``; returns the files, JSON last.

    save: one of :data:`SAVES`; box: a region for the JSON to explain; breakdown: written beside the rest. The JSON is
    written last, so a folder that has it is whole. Raises OSError naming the file, ValueError for a box outside.
    """
    if save not in SAVES:
        raise ValueError(f"save must be one of {SAVES}, got {save!r}")
    said = explanation.to_dict()
    if box is not None:
        said["region"] = {"box": list(box)} | explanation.words_for(box).to_dict()
    files = [folder / "image.png"]
    _save_picture(files[0], to_pil(explanation.image))
    if save == "all":
        files += _save_pictures(explanation, folder)
    if save != "numbers":
        files.append(folder / "explanation.safetensors")
        save_maps(explanation, files[-1])
    if breakdown is not None:
        files += save_breakdown(explanation, breakdown, folder, save)
    write_json(folder / "explanation.json", said)
    return [*files, folder / "explanation.json"]


def _save_picture(path: Path, picture: Image.Image) -> None:
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))


def _save_pictures(explanation: Explanation, folder: Path) -> list[Path]:
    files = [folder / "reconstruction.png"]
    _save_picture(files[0], to_pil(explanation.reconstruction))
    for index, (part, heat) in enumerate(zip(explanation.words, word_heat(explanation), strict=True)):
        name = re.sub(r"\W", "_", part.text) + ("-negative" if part.negative else "")
        files.append(folder / f"word-{index:02d}-{name}.png")
        _save_picture(files[-1], overlay(explanation.image, heat))
    draw_figure(explanation, folder / "figure.png")
    return [*files, folder / "figure.png"]


def save_maps(explanation: Explanation, path: Path) -> None:
    """Write the image and all its parts, six channels each: ``tokens/NN-text``, ``words/NN-text``, ``x_T``, …"""
    maps = {f"tokens/{i:02d}-{part.text}": part.map for i, part in enumerate(explanation.tokens)}
    maps |= {f"words/{i:02d}-{part.text}": part.map for i, part in enumerate(explanation.words)}
    maps |= {"image": explanation.trace.image, "x_T": explanation.trace.x_T}
    maps |= {"time": explanation.trace.time, "other": explanation.trace.constant}
    # Parts of one trace may be views of the same memory, which the file format refuses.
    write_tensors(path, {name: part.clone() for name, part in maps.items()})
