"""Pictures of an explanation: one overlay per word, and one labelled figure of everything."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from bcos_diffusion.encoding import to_pil
from bcos_diffusion.explain import Explanation, Part, mean_free
from bcos_kernels.files import write_atomically, write_json, write_tensors

OVERLAY_SCALE = 8
BACKDROP = 0.45
MOST_COLUMNS = 8


def word_heat(explanation: Explanation) -> list[Tensor]:
    """Mean-free relevance map ``[H, W]`` of each word, all on one scale so that words compare."""
    maps = [mean_free(part.map, explanation.trace.image) for part in explanation.words]
    largest = max((float(m.abs().max()) for m in maps), default=0.0)
    return [m / largest if largest else m for m in maps]


def overlay(image: Tensor, heat: Tensor) -> Image.Image:
    """Blend a faded image ``[3, H, W]`` with a signed heat map ``[H, W]`` in [-1, 1]: red for, blue against."""
    strength = heat.float().clamp(-1, 1).cpu().numpy()
    colours = matplotlib.colormaps["bwr"]((strength + 1) / 2)[..., :3]
    faded = 1 - BACKDROP * (1 - image.float().mean(0, keepdim=True).cpu().numpy().transpose(1, 2, 0))
    alpha = np.sqrt(np.abs(strength))[..., None]
    blended = faded * (1 - alpha) + colours * alpha
    picture = Image.fromarray((blended * 255).round().clip(0, 255).astype("uint8"))
    return picture.resize((picture.width * OVERLAY_SCALE, picture.height * OVERLAY_SCALE), Image.Resampling.NEAREST)


def draw_figure(explanation: Explanation, path: Path) -> None:
    """One figure: image, reconstruction from the words alone, a map per word, relevance bars, budget."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    error = f"its words alone\nMSE {explanation.reconstruction_mse:.4f}"
    tiles = [(to_pil(explanation.image), "image"), (to_pil(explanation.reconstruction), error)]
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


def label(part: Part) -> str:
    """A word as figures show it; words of the negative prompt carry a minus sign."""
    return f"−{part.text}" if part.negative else part.text


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
    budget = explanation.budget
    axes.bar(range(len(budget)), list(budget.values()), color="#4c72b0")
    axes.set_xticks(range(len(budget)), [f"{k}\n{percent(v)}" for k, v in budget.items()], fontsize=8)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_title(f"budget of the image; completeness error {explanation.completeness:.1e}", fontsize=9)
    axes.tick_params(axis="y", labelsize=7)


def save_explanation(explanation: Explanation, folder: Path) -> list[Path]:
    """Write image, overlays, figure, raw maps and JSON into ``folder``; returns the files, JSON last.

    The JSON is written last, so a folder that has it is whole. Raises OSError naming the file.
    """
    files: list[Path] = []

    def save_picture(name: str, picture: Image.Image) -> None:
        files.append(folder / name)
        write_atomically(folder / name, lambda temporary: picture.save(temporary, format="PNG"))

    save_picture("image.png", to_pil(explanation.image))
    save_picture("reconstruction.png", to_pil(explanation.reconstruction))
    for index, (part, heat) in enumerate(zip(explanation.words, word_heat(explanation), strict=True)):
        name = re.sub(r"\W", "_", part.text) + ("-negative" if part.negative else "")
        save_picture(f"word-{index:02d}-{name}.png", overlay(explanation.image, heat))
    draw_figure(explanation, folder / "figure.png")
    maps = {f"tokens/{i:02d}-{part.text}": part.map for i, part in enumerate(explanation.tokens)}
    maps |= {f"words/{i:02d}-{part.text}": part.map for i, part in enumerate(explanation.words)}
    maps |= {"image": explanation.trace.image, "x_T": explanation.trace.x_T}
    maps |= {"time": explanation.trace.time, "other": explanation.trace.constant}
    # Parts of one trace may be views of the same memory, which the file format refuses.
    write_tensors(folder / "explanation.safetensors", {name: part.clone() for name, part in maps.items()})
    write_json(folder / "explanation.json", explanation.to_dict())
    return [*files, folder / "figure.png", folder / "explanation.safetensors", folder / "explanation.json"]
