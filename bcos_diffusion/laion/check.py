"""Look at shards before training on them: counts, caption lengths, what is skipped, a sheet of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bcos_diffusion.laion.shards import ShardData

COLUMNS = 8
SIDE = 128
LINE = 13
LINES = 3


def describe(data: ShardData) -> dict[str, Any]:
    """Everything about the shards that can be said in numbers, ready for JSON."""
    captions = data.captions
    return {
        "shards": data.report.shards,
        "usable": data.report.usable,
        "objects": dict(data.objects.most_common()),
        "captions": {
            "different": len(set(captions)),
            "words": _spread([len(caption.split()) for caption in captions]),
            "characters": _spread([len(caption) for caption in captions]),
        },
        "reasons": data.report.reasons,
        "skipped": [sample._asdict() for sample in data.report.skipped],
        "damaged": data.report.damaged,
    }


def _spread(lengths: list[int]) -> dict[str, float]:
    low, median, high = np.percentile(lengths, [5, 50, 95])
    return {
        "least": min(lengths),
        "5%": float(low),
        "median": float(median),
        "mean": float(np.mean(lengths)),
        "95%": float(high),
        "most": max(lengths),
    }


def as_text(about: dict[str, Any]) -> str:
    """The numbers that :class:`~bcos_diffusion.laion.shards.Report` does not print, in a few lines."""
    objects = ", ".join(f"{name} {count:,}" for name, count in about["objects"].items())
    lines = [f"objects: {objects or 'the shards do not say'}"]
    for unit in ("words", "characters"):
        spread = ", ".join(f"{name} {value:.4g}" for name, value in about["captions"][unit].items())
        lines.append(f"{unit} a caption: {spread}")
    return "\n".join(lines)


def write_sheet(data: ShardData, path: Path, count: int) -> None:
    """Draw the samples at the first ``count`` positions, as a model sees them, with their captions. Raises OSError."""
    images, captions = data.batch(range(min(count, len(data))))
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 10)
    width, height = SIDE + 8, SIDE + LINES * LINE + 8
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (min(COLUMNS, len(images)) * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = place % COLUMNS * width, place // COLUMNS * height
        sheet.paste(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top))
        for number, line in enumerate(_wrapped(caption, font)):
            draw.text((left + 1, top + SIDE + 1 + number * LINE), line, fill="black", font=font)
    sheet.save(path, format="PNG")


def _wrapped(caption: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """The caption in at most :data:`LINES` lines as wide as an image; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= SIDE or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1] + "…"]
    return [_cut(line, font) for line in lines]


def _cut(line: str, font: ImageFont.FreeTypeFont) -> str:
    while font.getlength(line) > SIDE:
        line = line.rstrip("…")[:-1] + "…"
    return line
