"""A sheet of pictures that shows how far a run is."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from bcos_diffusion.encoding import to_pil
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import prompts
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.text.clip_tokenizer import ClipTokenizer
from bcos_diffusion.training.source import SceneSource, TrainingSource
from bcos_kernels.files import write_atomically

SCALE = 3
COLUMNS = 4
CAPTION_HEIGHT = 14


def sample_prompts(data: TrainingSource, tokenizer: Tokenizer | ClipTokenizer, count: int = 16) -> list[str]:
    """Prompts to watch a run by: sentences about scenes, or else the first captions of the data that fit the text."""
    if isinstance(data, SceneSource):
        texts = prompts(count, seed=0, size=data.size)
    else:
        _, texts = data.batch(range(min(len(data), 4 * count)))
    return [text for text in texts if _fits(text, tokenizer)][:count]


def _fits(text: str, tokenizer: Tokenizer | ClipTokenizer) -> bool:
    try:
        tokenizer.encode([text])
    except ValueError:
        return False
    return True


def write_samples(pipeline: BcosDiffusionPipeline, texts: list[str], path: Path) -> None:
    """Draw prompts as one labelled sheet, from the same seeds whenever it is drawn; nothing where there is none."""
    if not texts:
        return
    images = pipeline.generate(texts, seed=0)
    side = pipeline.model.unet.config.size * SCALE
    width, height = max(side, 200), side + CAPTION_HEIGHT
    rows = -(-len(texts) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (text, image) in enumerate(zip(texts, images, strict=True)):
        left, top = index % COLUMNS * width, index // COLUMNS * height
        sheet.paste(to_pil(image).resize((side, side), Image.Resampling.NEAREST), (left, top))
        draw.text((left + 2, top + side), text[:36], fill="black")
    write_atomically(path, lambda temporary: sheet.save(temporary, format="PNG"))
