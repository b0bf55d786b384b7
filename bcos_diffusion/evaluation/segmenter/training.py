"""Train the segmenter: seeded, resumable to the same weights, minutes on a CPU core."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.evaluation.segmenter.classes import classes
from bcos_diffusion.evaluation.segmenter.degradation import degrade, draw
from bcos_diffusion.evaluation.segmenter.network import SegmenterNetwork
from bcos_diffusion.evaluation.segmenter.pictures import generator, picture
from bcos_diffusion.scenes import Scenes
from bcos_diffusion.training.checkpoint import Progress, clean, find_checkpoint, load_checkpoint, save_checkpoint
from bcos_diffusion.training.ema import start_ema, update_ema

_WARM_UP = 0.04
_WEIGHT_DECAY = 0.02
_DECAY = 0.998


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on. size: side of its pictures; steps: of ``batch`` pictures; rate: at the peak."""

    size: int = 32
    steps: int = 3600
    batch: int = 64
    rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not 0 < self.rate < 1 or self.seed < 0:
            raise ValueError(f"steps and batch must be at least 1, rate in (0, 1), seed at least 0; got {self}")
        Scenes(size=self.size)


def make_batch(recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """The pictures ``[N, 3, H, W]`` and classes ``[N, H, W]`` of one step, the same for a recipe every time."""
    scenes, first = Scenes(size=recipe.size), step * recipe.batch
    made = [picture(scenes, recipe.seed, first + i) for i in range(recipe.batch)]
    x = torch.from_numpy(np.stack([pixels for pixels, _, _ in made]))
    y = torch.from_numpy(np.stack([classes for _, classes, _ in made]))
    chosen = [i for i, (_, _, degraded) in enumerate(made) if degraded]
    if chosen:
        how = [draw(generator(recipe.seed, first + i, part=1), recipe.size) for i in chosen]
        x[chosen], y[chosen] = degrade(x[chosen], y[chosen], how)
    return x, y


def rate_at(recipe: Recipe, step: int) -> float:
    """A linear rise, then half a cosine to zero."""
    rise = max(1, round(_WARM_UP * recipe.steps))
    if step < rise:
        return recipe.rate * (step + 1) / rise
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, recipe.steps - rise)))


def train(
    recipe: Recipe,
    folder: Path,
    until: int | None = None,
    every: int = 250,
    tell: Callable[[int, float], object] = lambda step, loss: None,
) -> dict[str, Tensor]:
    """Train up to step ``until`` (the recipe's last by default), from the checkpoint in ``folder`` where one is.

    Returns the moving average of the weights. tell: called with the step and its loss whenever a checkpoint is
    written, each ``every`` steps. Raises ValueError for a damaged checkpoint or one of another recipe.
    """
    last = recipe.steps if until is None else min(until, recipe.steps)
    torch.manual_seed(recipe.seed)
    network = SegmenterNetwork(len(classes(recipe.size))).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=_WEIGHT_DECAY)
    ema, progress = start_ema(network), Progress()
    clean(folder)
    found = find_checkpoint(folder)
    if found is not None:
        progress, _ = load_checkpoint(found, network, optimiser, ema, asdict(recipe))
    for step in range(progress.step, last):
        loss = _step(network, optimiser, recipe, step)
        update_ema(ema, network, _DECAY, step)
        progress = progress.after(recipe.batch, took=True)
        if progress.step % every == 0 or progress.step == last:
            save_checkpoint(folder, progress, network, optimiser, ema, asdict(recipe))
            tell(progress.step, loss)
    return ema


def _step(network: SegmenterNetwork, optimiser: torch.optim.Optimizer, recipe: Recipe, step: int) -> float:
    x, y = make_batch(recipe, step)
    for group in optimiser.param_groups:
        group["lr"] = rate_at(recipe, step)
    # bf16 doubles the pace on processors that multiply it; the loss and the weights stay in fp32.
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    loss = F.cross_entropy(logits.float(), y)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())
