"""Train a B-cos classifier on scenes of one object, then say how well its explanations find what they explain.

``python examples/classify_scenes.py --out scenes-classifier`` trains, and leaves in the folder: ``model.safetensors``,
``results.json`` (accuracy on fresh scenes, grid pointing game), ``explanations.png`` and ``grid.png``. The same command
goes on where it was cut. Scenes are drawn from OpenMoji artwork (CC BY-SA 4.0); nothing is downloaded.
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from bcos_diffusion.encoding import encode, from_pixels
from bcos_diffusion.evaluation.statistics import bootstrap, mean
from bcos_diffusion.scenes import COLOURS, nouns
from bcos_diffusion.scenes.layout import arrange, paint
from bcos_diffusion.training.checkpoint import Progress, find_checkpoint, load_checkpoint, save_checkpoint
from bcos_diffusion.training.draws import sample_generator
from bcos_diffusion.training.ema import start_ema, update_ema
from bcos_diffusion.training.log import TrainingLog
from bcos_kernels import BcosConv2d, PointingGame, contribution_image, explain, pointing_game, write_png
from bcos_kernels.attribution.grids import stitch
from bcos_kernels.files import write_json, write_tensors
from bcos_kernels.modules.logits import LogitLayer
from bcos_kernels.modules.norms import GroupNorm

CLASSES = nouns(32)  # those that scenes of every size show
TEST_STREAM = 1  # fresh scenes: training draws from stream 0
SHOWN = 8


@dataclass(frozen=True)
class Config:
    """How long and on what to train, and how thoroughly to judge."""

    out: Path
    steps: int = 2000
    batch_size: int = 64
    size: int = 32
    """Pixels along a side of a scene, at least 24."""
    widths: tuple[int, ...] = (32, 64, 128)
    """Channels at each resolution, each half of the one before."""
    learning_rate: float = 2e-3
    seed: int = 0
    log_every: int = 50
    save_every: int = 250
    test_scenes: int = 1280
    grids: int = 100
    """Most grids of the pointing game."""
    smooth: int = 3
    """Side of the window over which pictures and the pointing game average, odd."""


class Block(nn.Module):
    """A residual B-cos block on ``[N, width, H, W]``."""

    def __init__(self, width: int):
        super().__init__()
        self.conv, self.norm = BcosConv2d(width, width, 3, padding=1), GroupNorm(1, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(x))


class Classifier(nn.Module):
    """Six-channel images ``[N, 6, H, W]`` of any size to logits ``[N, classes]``: B-cos layers and norms, no bias.

    The logit bias makes every class unlikely at first, as in the B-cos-v2 training by binary cross-entropy.
    """

    def __init__(self, widths: tuple[int, ...], classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        before = 6
        for number, width in enumerate(widths):
            layers += [BcosConv2d(before, width, 3, stride=1 if number == 0 else 2, padding=1), GroupNorm(1, width)]
            layers += [Block(width), Block(width)]
            before = width
        self.features = nn.Sequential(*layers)
        self.head = BcosConv2d(before, classes, 1)
        self.logits = LogitLayer(logit_bias=-math.log(max(1, classes - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.head(self.features(x)).mean((2, 3)))


def scenes(config: Config, stream: int, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Scenes ``first`` to ``first + count`` of a random stream: images ``[count, 6, size, size]`` and classes."""
    images, labels = [], []
    colours = list(COLOURS.values())
    for number in range(first, first + count):
        rng = np.random.Generator(np.random.PCG64([config.seed, stream, number]))
        label = int(rng.integers(len(CLASSES)))
        colour = colours[int(rng.integers(len(colours)))]
        placed, _ = arrange(rng, [CLASSES[label]], 1, config.size)
        images.append(paint(placed, colour, config.size))
        labels.append(label)
    return encode(from_pixels(np.stack(images))), torch.tensor(labels)


def train(config: Config) -> Classifier:
    """Train by binary cross-entropy, on from the folder's checkpoint if there is one; returns the averaged model."""
    torch.manual_seed(config.seed)
    model = Classifier(config.widths, len(CLASSES))
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.0)
    ema = start_ema(model)
    found = find_checkpoint(config.out)
    done = 0 if found is None else load_checkpoint(found, model, optimiser, ema)[0].step
    log = TrainingLog(config.out, done)
    for step in tqdm(range(done, config.steps), initial=done, total=config.steps, disable=None):
        images, labels = scenes(config, 0, step * config.batch_size, config.batch_size)
        mirrored = torch.rand(len(images), generator=sample_generator(config.seed, step)) < 0.5
        images[mirrored] = images[mirrored].flip(-1)
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1, (step + 1) / 100) * (1 - step / config.steps)
        logits = model(images)
        loss = F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, len(CLASSES)).float(), reduction="sum")
        loss = loss / len(images)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        update_ema(ema, model, 0.998, step)
        if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
            right = (logits.argmax(1) == labels).double().mean()
            log.write(step + 1, {"loss": float(loss.detach()), "accuracy": float(right)})
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            progress = Progress(step + 1, (step + 1) * config.batch_size)
            save_checkpoint(config.out, progress, model, optimiser, ema)
    model.load_state_dict(ema)
    return model.eval()


def judge(config: Config, model: Classifier, images: Tensor, labels: Tensor) -> dict[str, object]:
    """Accuracy and pointing-game scores on fresh scenes, with 95% bootstrap intervals, as JSON-ready values."""
    logits = torch.cat([explain(model, some, images=False).logits for some in images.split(64)])
    found: dict[str, object] = {
        "accuracy": bootstrap((logits.argmax(1) == labels).double().tolist(), mean),
        "scenes": len(images),
        "chance_of_accuracy": 1 / len(CLASSES),
    }
    for grid in (2, 3):
        try:
            game = pointing_game(model, images, labels, grid, count=config.grids, smooth=config.smooth)
        except ValueError as error:  # a model of a few steps knows no class well enough
            found[f"pointing_game_{grid}x{grid}"] = {"not_played": str(error)}
            continue
        found[f"pointing_game_{grid}x{grid}"] = {
            **bootstrap(game.shares.mean(1).tolist(), mean), "chance": game.chance, "grids": len(game.shares)
        }  # fmt: skip
        if grid == 3:
            draw_grid(config, model, images, game)
    return found


def draw_explanations(config: Config, model: Classifier, images: Tensor) -> None:
    """Write ``explanations.png``: a column a scene, with input, RGBA explanation on white, contribution map."""
    shown = explain(model, images[:SHOWN], smooth=config.smooth)
    assert shown.images is not None
    maps = torch.stack([contribution_image(m) for m in shown.contribution_maps])
    rows = torch.stack([images[:SHOWN, :3], on_white(shown.images), maps])
    write_png(config.out / "explanations.png", rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2), scale=4)


def draw_grid(config: Config, model: Classifier, images: Tensor, game: PointingGame) -> None:
    """Write ``grid.png``: the first grid of the game, then what each of its classes sees in it, in rows of five."""
    whole = stitch(images[game.images[0]][None], game.grid)
    shown = explain(model, whole, game.classes[:1].T, smooth=config.smooth)
    assert shown.images is not None
    pictures = torch.cat([whole[:, :3], on_white(shown.images[:, 0])])
    rows = pictures.unflatten(0, (2, 5)).permute(2, 0, 3, 1, 4)  # [3, 2, H, 5, W]
    write_png(config.out / "grid.png", rows.flatten(3, 4).flatten(1, 2), scale=2)


def on_white(rgba: Tensor) -> Tensor:
    """RGBA ``[N, 4, H, W]`` over white, ``[N, 3, H, W]``."""
    return rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]


def main(config: Config) -> None:
    """Train, judge, draw, and print what was found."""
    if min(config.steps, config.batch_size, config.test_scenes, config.grids) < 1 or not config.widths:
        raise ValueError("steps, batch_size, test_scenes and grids must be at least 1, and widths not empty")
    if config.size < 24:
        raise ValueError(f"size must be at least 24, got {config.size}")
    model = train(config)
    write_tensors(config.out / "model.safetensors", model.state_dict())
    images, labels = scenes(config, TEST_STREAM, 0, config.test_scenes)
    found = judge(config, model, images, labels)
    draw_explanations(config, model, images)
    settings = {name: value for name, value in asdict(config).items() if name != "out"}
    write_json(config.out / "results.json", found | {"settings": settings})
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except (ValueError, OSError) as error:
        sys.exit(f"classify_scenes: error: {error}")
