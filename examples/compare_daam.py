"""Exact contributions beside DAAM's heat maps of attention, on scenes whose every pixel is known to be one word's.

    python examples/compare_daam.py --out compared.png

Scenes of the test split are noised, and the x_0 that one step predicts is attributed to the words of the caption, by
both methods from the same network. All rivals and measures are in ``bcos-diffusion evaluate``.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import torch
import tyro

from bcos_diffusion.baselines.daam import Daam
from bcos_diffusion.encoding import decode
from bcos_diffusion.evaluation.localisation import average_precision, mass_inside, others
from bcos_diffusion.evaluation.noised import SHARES, noise_scene
from bcos_diffusion.evaluation.truth import regions
from bcos_diffusion.explanation.attribution import Exact
from bcos_diffusion.explanation.overlay import overlay
from bcos_diffusion.paper.record import new_figure, save_figure, show
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes

METHODS = (Exact(), Daam())
LEVEL = 1  # of the four noise levels, the one to look at: t is 0.4 of all timesteps


def main(scenes: int = 8, out: Path = Path("compared.png")) -> None:
    """Print how well maps lie on the objects that their words name, and draw them.

    Args:
        scenes: How many scenes, from the first of the test split on.
        out: Where to write the picture.
    """
    if scenes < 1:
        raise ValueError(f"scenes must be at least 1, got {scenes}")
    pipeline = BcosDiffusionPipeline.from_pretrained()
    data = Scenes(size=pipeline.default_size[0], split="test", length=scenes)
    precision: dict[str, list[float]] = {method.label: [] for method in METHODS}
    leakage: dict[str, list[float]] = {method.label: [] for method in METHODS}
    figure = new_figure(2 + 2 * len(METHODS), 1.8 * scenes)
    grid = figure.subplots(scenes, 1 + len(METHODS), squeeze=False)
    for number in range(scenes):
        scene, noised = data[number], noise_scene(pipeline, data[number], seed=number)
        found = [region for region in regions(scene.words, scene.masks) if region.kind == "object"]
        masks = np.stack([region.mask for region in found])  # [objects, H, W]
        show(grid[number, 0], decode(noised.x_0)[0], textwrap.fill(scene.caption, 30), 7)
        for axes, method in zip(grid[number, 1:], METHODS, strict=True):
            maps = method.denoise(pipeline, noised.batch, noised.x_t, noised.t).maps[:, LEVEL].cpu()
            own = maps[[region.word for region in found]].numpy()
            precision[method.label] += average_precision(own, masks).tolist()
            if len(found) > 1:
                leakage[method.label] += mass_inside(own, others(masks)).tolist()
            first = maps[found[0].word]
            heat = first / first.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
            word = scene.words[found[0].word]
            show(axes, overlay(decode(noised.x_0)[0], heat), f"“{word}” by {method.label}", 7)
    save_figure(figure, out)
    print(f"{scenes} scenes, t = {SHARES[LEVEL]:g} T")
    for label in precision:
        on_others = f", {np.nanmean(leakage[label]):.1%} of the mass on other objects" if leakage[label] else ""
        print(f"{label:20} pixel AP of object words {np.nanmean(precision[label]):.1%}{on_others}")
    print(f"wrote {out}")


if __name__ == "__main__":
    tyro.cli(main)
