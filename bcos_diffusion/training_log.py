"""What a training run leaves to look at: a JSONL line per report, TensorBoard curves, sample sheets."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw
from torch.utils.tensorboard import SummaryWriter

from bcos_diffusion.encoding import to_pil
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import prompts
from bcos_kernels.files import write_atomically

SCALE = 3
COLUMNS = 4
CAPTION_HEIGHT = 14


class TrainingLog:
    """Append training values to ``log.jsonl`` and to TensorBoard; a resumed run drops what it redoes."""

    def __init__(self, folder: Path, first: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        self._forget_after(first)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Report the values of one step."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def _forget_after(self, step: int) -> None:
        """A run cut after its last checkpoint has logged steps that will be taken again."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_atomically(self.path, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8"))


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
