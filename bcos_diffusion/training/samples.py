"""A sheet of pictures that shows how far a run is."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from bcos_diffusion.encoding import to_pil
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import prompts
from bcos_kernels.files import write_atomically

SCALE = 3
COLUMNS = 4
CAPTION_HEIGHT = 14


def write_samples(pipeline: BcosDiffusionPipeline, path: Path, count: int = 16) -> None:
    """Draw ``count`` fixed prompts as one labelled sheet, always the same prompts and seeds."""
    texts = prompts(count, seed=0)
    images = pipeline.generate(texts, seed=0)
    side = pipeline.model.unet.config.size * SCALE
    width, height = max(side, 200), side + CAPTION_HEIGHT
    rows = -(-count // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (text, image) in enumerate(zip(texts, images, strict=True)):
        left, top = index % COLUMNS * width, index // COLUMNS * height
        sheet.paste(to_pil(image).resize((side, side), Image.Resampling.NEAREST), (left, top))
        draw.text((left + 2, top + side), text[:36], fill="black")
    write_atomically(path, lambda temporary: sheet.save(temporary, format="PNG"))
