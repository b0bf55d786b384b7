"""The files of a breakdown: tensors, numbers, and one figure of layers, steps and heads."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.colors
import numpy as np
import torch
from torch import Tensor

from bcos_diffusion.explain import Explanation
from bcos_diffusion.explanation.breakdown import Breakdown
from bcos_diffusion.explanation.overlay import label, overlay
from bcos_diffusion.explanation.relevance import mean_free
from bcos_kernels.files import write_atomically, write_json, write_tensors

MOST_STEPS = 8


def save_breakdown(explanation: Explanation, breakdown: Breakdown, folder: Path, save: str = "all") -> list[Path]:
    """Write ``breakdown.png``, ``breakdown.safetensors`` and ``breakdown.json``, or what ``save`` leaves of them."""
    files = []
    if save == "all":
        files.append(folder / "breakdown.png")
        draw_breakdown(explanation, breakdown, files[-1])
    if save != "numbers":
        files.append(folder / "breakdown.safetensors")
        write_tensors(files[-1], breakdown.tensors())
    write_json(folder / "breakdown.json", breakdown.to_dict())
    return [*files, folder / "breakdown.json"]


def draw_breakdown(explanation: Explanation, breakdown: Breakdown, path: Path) -> None:
    """Three columns for every word that speaks.

    The mass by layer and step as a heat map; the word's mean-free maps by layer; and its part in the x_0 predicted at
    up to :data:`MOST_STEPS` of the steps. Colours of one column compare between words.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    speaking = [i for i, part in enumerate(explanation.words) if bool(part.map.abs().sum())] or [0]
    relevance = torch.stack([r.sum(2) for r in breakdown.word_relevance.values()], dim=1)  # [words, layers, steps]
    by_layer = torch.stack(list(breakdown.layer_maps.values()), dim=1)  # [words, layers, 6, H, W]
    shown = np.unique(np.linspace(0, len(breakdown.timesteps) - 1, MOST_STEPS).round().astype(int)).tolist()
    by_step = breakdown.x_hat[shown].transpose(0, 1)  # [words, shown, 6, H, W]
    layers = _heat(by_layer[speaking], explanation.trace.image)
    steps = _heat(by_step[speaking], explanation.trace.image)
    limit = float(relevance[speaking].abs().max()) or 1.0
    # Most of a word comes in at the last steps; early ones are seen on a scale that is logarithmic above 1%.
    scale = matplotlib.colors.SymLogNorm(limit / 100, vmin=-limit, vmax=limit)
    names = [name.removesuffix(".attend") for name in breakdown.layers]
    height = 0.8 + 1.9 * len(speaking)
    figure = plt.figure(figsize=(17, height), dpi=100, layout="constrained")
    figure.suptitle(f"“{explanation.prompt}”  seed {explanation.seed}: where and when each word came in", fontsize=11)
    panels = figure.subfigures(len(speaking), 3, squeeze=False, width_ratios=[4.5, 6, 6.5])
    for row, (left, middle, right) in enumerate(panels):
        word = speaking[row]
        axes = left.subplots()
        shading = axes.imshow(relevance[word].cpu().numpy(), cmap="bwr", norm=scale, aspect="auto")
        axes.set_yticks(range(len(names)), names, fontsize=7)
        ticks = range(0, len(breakdown.timesteps), max(1, len(breakdown.timesteps) // 6))
        axes.set_xticks(ticks, [str(breakdown.timesteps[i]) for i in ticks], fontsize=7)
        axes.set_title(f"{label(explanation.words[word])}: relevance by layer and t", fontsize=9)
        figure.colorbar(shading, ax=axes).ax.tick_params(labelsize=6)
        middle.suptitle("what it gave to the image, by layer", fontsize=9)
        _strip(middle, explanation.image, layers[row], names)
        right.suptitle("what it had given to the predicted x̂_0, by t", fontsize=9)
        _strip(right, explanation.image, steps[row], [str(breakdown.timesteps[i]) for i in shown])
    try:
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", metadata={"Software": None}))
    finally:
        plt.close(figure)


def _heat(maps: Tensor, image: Tensor) -> Tensor:
    """Mean-free maps ``[words, K, H, W]``, all on one scale."""
    heat = mean_free(maps, image)
    return heat / heat.abs().max().clamp(min=torch.finfo(heat.dtype).tiny)


def _strip(panel: matplotlib.figure.SubFigure, image: Tensor, heats: Tensor, titles: list[str]) -> None:
    for axes, heat, title in zip(panel.subplots(1, len(heats), squeeze=False)[0], heats, titles, strict=True):
        axes.imshow(np.asarray(overlay(image, heat)), interpolation="nearest")
        axes.set_title(title, fontsize=7)
        axes.axis("off")
