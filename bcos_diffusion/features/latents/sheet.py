"""Contact sheets of latents: a row each, with the images that activate it most and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bcos_diffusion.encoding import to_pil
from bcos_diffusion.features.latents.purity import check_labels
from bcos_diffusion.features.latents.top import TopImages
from bcos_kernels.files import write_atomically

SIDE = 96
GAP = 6
_NAMES = 190
_SIZE = 12
_LINE = 16
_QUIET, _MARK = "#666666", "#ffffff"

Images = Callable[[int], Tensor]
"""An image by its number: rgb ``[3, H, W]`` in [0, 1]."""


def draw_sheet(
    images: Images,
    top: TopImages,
    latents: Sequence[int],
    labels: Mapping[str, Tensor] | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    grid: tuple[int, int] | None = None,
) -> Image.Image:
    """Draw the top images of latents, each with its activation below it, enlarged without smoothing.

    labels, classes: as for :func:`~bcos_diffusion.features.latents.monosemanticity.monosemanticity`; for each factor
    the most frequent class of the row is named, with its count of the images shown that have a label, or "none". grid:
    rows and columns of positions of a spatial code, whose strongest is then marked. Raises ValueError for latents that
    are not there, and for labels without classes.
    """
    labels, classes = labels or {}, classes or {}
    count = len(top.image)
    if not len(latents) or not all(0 <= int(j) < count for j in latents):
        raise ValueError(f"latents must be one or more of 0 to {count - 1}, got {list(latents)}")
    for factor, known in labels.items():
        check_labels(known, top.images)
        if factor not in classes:
            raise ValueError(f"factor {factor!r} has labels but no classes")
    height = max(SIDE + _LINE, (3 + len(labels)) * _LINE) + GAP
    width = _NAMES + top.image.shape[1] * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, len(latents) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=_SIZE)
    for row, j in enumerate(int(j) for j in latents):
        above = GAP + row * height
        lines = _heading(top, j) + [shared_class(f, labels[f][top.image[j]], top.image[j], classes[f]) for f in labels]
        for number, line in enumerate(lines):
            draw.text((GAP, above + number * _LINE), line, fill=_QUIET if number else "black", font=font)
        for column, (image, value, place) in enumerate(
            zip(top.image[j].tolist(), top.value[j].tolist(), top.place[j].tolist(), strict=True)
        ):
            if image >= 0:
                corner = (_NAMES + column * (SIDE + GAP), above)
                sheet.paste(_thumbnail(images(image), place, grid), corner)
                draw.text((corner[0], above + SIDE + 1), f"{value:.3g}", fill=_QUIET, font=font)
    return sheet


def write_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet as PNG, whole or not at all. Raises OSError."""
    write_atomically(path, lambda temporary: sheet.save(temporary, format="PNG"))


def shared_class(factor: str, known: Tensor, image: Tensor, names: Sequence[str]) -> str:
    """The most frequent class of one latent's top images, as in "colour: blue 7/10"; the first of equals.

    known: their labels ``[count]``; image: their numbers, -1 where there is none.
    """
    known = known[(image >= 0) & (known >= 0)]
    if not len(known):
        return f"{factor}: none"
    frequency = torch.bincount(known)
    best = int(frequency.argmax())
    return f"{factor}: {names[best]} {int(frequency[best])}/{len(known)}"


def _heading(top: TopImages, j: int) -> list[str]:
    share = 100 * int(top.active[j]) / max(top.images, 1)
    return [f"latent {j}", f"on {int(top.active[j])} images ({share:.1f}%)", f"mean {float(top.mean[j]):.3g}"]


def _thumbnail(image: Tensor, place: int, grid: tuple[int, int] | None) -> Image.Image:
    """An image in a square of :data:`SIDE`, with a frame around one place of a grid."""
    picture = to_pil(image)
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS))
    if grid is not None:
        cell = (size[0] / grid[1], size[1] / grid[0])
        left, top = place % grid[1] * cell[0], place // grid[1] * cell[1]
        box = (round(left), round(top), round(left + cell[0]) - 1, round(top + cell[1]) - 1)
        draw = ImageDraw.Draw(square)
        draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), outline="black")
        draw.rectangle(box, outline=_MARK)
    return square
