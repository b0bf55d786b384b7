"""A folder of PNGs by number, drawn a batch at a time, that other tools can read and a cut run goes on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bcos_diffusion.encoding import to_pil
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import read_json, write_atomically, write_json

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def draw_into(
    folder: Path,
    settings: dict[str, Any],
    pipeline: BcosDiffusionPipeline,
    captions: Sequence[str],
    seed: int,
    batch_size: int,
    options: dict[str, Any],
    advance: Callable[[int], object],
) -> list[Path]:
    """Draw caption i from seed ``seed + i`` as ``NNNNNN.png``, those that are there already apart; returns all paths.

    settings: what the pictures depend on; a folder of other settings raises ValueError.
    """
    _require_same(folder, settings)
    paths = [folder / f"{i:06d}.png" for i in range(len(captions))]
    for first in range(0, len(paths), batch_size):
        batch = range(first, min(first + batch_size, len(paths)))
        if not all(paths[i].exists() for i in batch):
            images = pipeline.generate([captions[i] for i in batch], seed=seed + first, **options)
            for i, image in zip(batch, images, strict=True):
                save(to_pil(image), paths[i])
        advance(len(batch))
    return paths


def _require_same(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / "settings.json"
    if not path.exists():
        write_json(path, settings)
    elif read_json(path) != settings:
        raise ValueError(f"{folder} holds pictures that were drawn otherwise; name another folder by --out")


def save(picture: Image.Image, path: Path) -> None:
    """Write one PNG, whole or not at all."""
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))


def images_below(folder: Path, count: int) -> list[Path]:
    """The first ``count`` images below a folder, by name. Raises OSError or ValueError where there are fewer."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder of images")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(found) < count:
        raise ValueError(f"{folder} has {len(found)} images, and {count} are needed; lower --count")
    return found[:count]


def load(path: Path, size: int) -> NDArray[np.uint8]:
    """One image as rgb ``[size, size, 3]``: the shorter side resized bilinearly, the centre cut out."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image ({type(error).__name__})") from None
    scale = size / min(image.size)
    if scale != 1:
        shape = max(size, round(image.width * scale)), max(size, round(image.height * scale))
        image = image.resize(shape, Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))
