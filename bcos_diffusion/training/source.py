"""Where training images come from: anything that gives images and captions by position."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.scenes import Scenes
from bcos_diffusion.training.config import SCENES, TrainConfig


class TrainingSource(Protocol):
    """Images with captions by position. Position ``i`` is the same sample in every process and after every cut.

    Positions go on past ``len``: the next epoch begins there. ``batch`` may be called by several threads at once.
    """

    size: int
    """Side of the images in pixels."""

    def __len__(self) -> int:
        """Samples of one epoch."""

    def batch(self, positions: Iterable[int]) -> tuple[NDArray[np.uint8], list[str]]:
        """Images ``[N, H, W, 3]`` and captions at ``positions``."""


class SceneSource:
    """Scenes of the train split, in order, half of them mirrored where asked."""

    def __init__(self, size: int, seed: int, flip: bool = False):
        self.scenes = Scenes(size=size, split="train", seed=seed)
        self.size, self.seed, self.flip = size, seed, flip

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, positions: Iterable[int]) -> tuple[NDArray[np.uint8], list[str]]:
        """Images ``[N, H, W, 3]`` and captions; what is mirrored has left and right swapped in its caption."""
        positions = list(positions)
        images, captions = self.scenes.batch([p % len(self.scenes) for p in positions])
        for row, position in enumerate(positions if self.flip else []):
            if mirrored(self.seed, position):
                images[row] = images[row, :, ::-1].copy()
                captions[row] = flip_caption(captions[row])
        return images, captions


def mirrored(seed: int, position: int) -> bool:
    """Whether the scene at a position is mirrored: half of them are."""
    return bool(np.random.Generator(np.random.Philox(key=[seed, position])).random() < 0.5)


def flip_caption(caption: str) -> str:
    """Swap "left" and "right", so that the caption is true of the mirrored image."""
    swap = {"left": "right", "right": "left"}
    return " ".join(swap.get(word, word) for word in caption.split(" "))


def open_source(config: TrainConfig, size: int) -> TrainingSource:
    """What ``config.data`` names, in pictures of ``size``. Raises FileNotFoundError where it is nothing."""
    if config.data == SCENES:
        return SceneSource(size, config.seed, config.flip)
    if not Path(config.data).is_dir():
        raise FileNotFoundError(f"data must be {SCENES!r} or a folder of shards; {config.data} is not a folder")
    from bcos_diffusion.laion.shards import ShardData

    return ShardData(Path(config.data), size=size, seed=config.seed, flip=config.flip)
