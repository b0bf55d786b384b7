"""Labelled images from disk: a folder of one folder a class, or tensors in a safetensors file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bcos_kernels.convert.bcosification import six_channels
from bcos_kernels.files import read_tensors

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
ENCODINGS = ("six", "rgb")


class ImageFiles(Sequence[Tensor]):
    """Images ``[C, size, size]`` read when asked for: the shorter side resized to ``size``, the middle cut out."""

    def __init__(self, paths: Sequence[Path], size: int, encode: Callable[[Tensor], Tensor]):
        self.paths, self.size, self.encode = paths, size, encode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        path = self.paths[index]
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except OSError as error:
            raise ValueError(f"{path} is not a readable image: {error}") from None
        scale = self.size / min(picture.size)
        shape = [max(self.size, round(side * scale)) for side in picture.size]
        picture = picture.resize((shape[0], shape[1]), Image.Resampling.BILINEAR)
        left, top = ((side - self.size) // 2 for side in shape)
        pixels = np.asarray(picture.crop((left, top, left + self.size, top + self.size)))
        return self.encode(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255)


def load_images(path: Path, encoding: str, size: int) -> tuple[Sequence[Tensor] | Tensor, Tensor, list[str]]:
    """Labelled images of a folder or a file: the images, their labels ``[M]``, the names of classes or none.

    A folder holds one folder of pictures a class; labels number those in the order of their names. A safetensors file
    holds "images", ``[M, C, H, W]`` float in [0, 1] or uint8, and "labels", integers ``[M]``. encoding: "six" gives
    images of three channels their complements, (r, g, b, 1 - r, 1 - g, 1 - b); "rgb" takes all as they are. Raises
    ValueError or FileNotFoundError.
    """
    encode = _six_channels if encoding == "six" else _as_they_are
    if path.is_dir():
        return _of_folder(path, encode, size)
    tensors = read_tensors(path)
    if missing := {"images", "labels"} - tensors.keys():
        raise ValueError(f"{path} has no tensor {' and no '.join(sorted(missing))}; it has {', '.join(tensors)}")
    images, labels = tensors["images"], tensors["labels"]
    if images.ndim != 4 or labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(f"{path} must hold images [M, C, H, W] and integer labels [M], got images "
                         f"{list(images.shape)} and labels {labels.dtype} {list(labels.shape)}")  # fmt: skip
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    if not images.is_floating_point():
        raise ValueError(f"images in {path} must be float or uint8, got {images.dtype}")
    return encode(images), labels.long(), []


def _of_folder(path: Path, encode: Callable[[Tensor], Tensor], size: int) -> tuple[Sequence[Tensor], Tensor, list[str]]:
    classes = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
    if not classes:
        raise ValueError(f"{path} has no folders: it must hold one folder of images a class")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(file for file in (path / name).rglob("*") if file.suffix.lower() in SUFFIXES)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise ValueError(f"{path} has no images in its folders; accepted are {', '.join(SUFFIXES)}")
    return ImageFiles(paths, size, encode), torch.tensor(labels), classes


def _six_channels(images: Tensor) -> Tensor:
    """Add the complement of three colour channels; images that have other channels are left as they are."""
    return six_channels(images) if images.shape[-3] == 3 else images


def _as_they_are(images: Tensor) -> Tensor:
    return images
