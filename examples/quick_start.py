"""Swap the layers of a network, train it for a moment, and see exactly what each pixel gave to its answer.

python examples/quick_start.py --out quick-start
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from bcos_kernels import BcosConv2d, completeness, contribution_image, contributions, six_channels, write_png
from bcos_kernels.modules.norms import GroupNorm


def plain() -> nn.Sequential:
    """What one would write in torch."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(),
        nn.Conv2d(16, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def bcos() -> nn.Sequential:
    """The same network swapped: B-cos layers, norms without a bias, no gates, six channels in the place of three."""
    return nn.Sequential(
        BcosConv2d(6, 16, 3, padding=1), GroupNorm(4, 16),
        BcosConv2d(16, 16, 3, padding=1), GroupNorm(4, 16),
        BcosConv2d(16, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def discs(count: int, rng: np.random.Generator, size: int = 32) -> tuple[Tensor, Tensor]:
    """Pictures ``[count, 3, size, size]`` of a red, green or blue disc on gray noise, and which colour it has."""
    pictures = torch.from_numpy(rng.uniform(0.3, 0.6, (count, 3, size, size))).float()
    labels = torch.from_numpy(rng.integers(3, size=count))
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for picture, label, (row, column) in zip(pictures, labels, rng.integers(8, size - 8, (count, 2)), strict=True):
        disc = (y - row) ** 2 + (x - column) ** 2 < 36
        picture[:, disc] = 0.1
        picture[label, disc] = 0.9
    return pictures, labels


def train(model: nn.Module, steps: int, rng: np.random.Generator) -> None:
    """A few steps of Adam: each class against the others, so that a logit itself says how much speaks for its class."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        pictures, labels = discs(32, rng)
        wanted = nn.functional.one_hot(labels, 3).float()
        loss = nn.functional.binary_cross_entropy_with_logits(model(six_channels(pictures)), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def main(out: Path = Path("quick-start"), steps: int = 300) -> None:
    """Train, explain a fresh picture, and write both.

    Args:
        out: Folder to write into.
        steps: Steps of training.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = bcos()
    print(f"{sum(p.numel() for p in plain().parameters())} parameters as plain layers,", end=" ")
    print(f"{sum(p.numel() for p in model.parameters())} as B-cos layers")
    train(model, steps, rng)
    model.eval()
    pictures, labels = discs(200, rng)
    print(f"right: {(model(six_channels(pictures)).argmax(1) == labels).float().mean():.0%} of 200 pictures")

    x, label = six_channels(pictures[:1]), int(labels[0])
    gave = contributions(model, x, target=label)  # [1, 6, 32, 32]: what every value of the input gave to the logit
    print(f"logit {model(x)[0, label].item():.4f} = sum of the contributions {gave.sum().item():.4f}")
    budget = completeness(model, x, target=label).budget
    print("budget:", {name: f"{share:.1%}" for name, share in budget.items()})  # all is the input's: there is no bias
    out.mkdir(parents=True, exist_ok=True)
    write_png(out / "picture.png", pictures[0], scale=8)
    write_png(out / "contributions.png", contribution_image(gave.sum(1)[0]), scale=8)
    print(f"wrote {out / 'picture.png'} and {out / 'contributions.png'}: red speaks for the class, blue against it")


if __name__ == "__main__":
    tyro.cli(main)
