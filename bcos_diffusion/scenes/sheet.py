"""Look at the data: contact sheets as PNG and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bcos_diffusion.scenes.dataset import Scene, Scenes
from bcos_diffusion.scenes.lexicon import ATTRIBUTION

PER_SHEET = 30
COLUMNS = 3
SIDE = 128
LINE = 14

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(27rem, 1fr)); gap: 1rem }}
article {{ border: 1px solid #8886; border-radius: 6px; padding: .7rem }}
.row {{ display: flex; flex-wrap: wrap; gap: .5rem }}
figure {{ margin: 0; text-align: center }}
img {{ width: 128px; height: 128px; image-rendering: pixelated; display: block }}
figcaption, small {{ font-size: 13px; opacity: .75 }}
h2 {{ font-size: 1rem; margin: 0 0 .5rem }}
</style>
<h1>{title}</h1>
<p>Every scene has its number, its caption and, for each word that is seen, the exact pixels where it is seen.
Words without a picture have no region: articles, prepositions, numerals.</p>
<main>
{cards}
</main>
<p><small>{attribution}</small></p>
</html>
"""


def highlight(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image ``[H, W, 3]`` where ``mask`` ``[H, W]`` holds, and a pale gray shadow of it elsewhere."""
    shadow = 190 + image.mean(-1, keepdims=True) * (40 / 255)
    return np.where(mask[..., None], image, shadow).astype(np.uint8)


def write_sheets(scenes: Scenes, folder: Path, advance: Callable[[], object] = lambda: None) -> list[Path]:
    """Write ``sheet-000.png``, … of :data:`PER_SHEET` scenes each and ``index.html`` with all of ``scenes``.

    advance: called after each scene. Returns the files, the page last. Raises OSError.
    """
    files: list[Path] = []
    cards: list[str] = []
    for start in range(0, len(scenes), PER_SHEET):
        shown: list[tuple[int, Scene]] = []
        for index in range(start, min(start + PER_SHEET, len(scenes))):
            shown.append((index, scenes[index]))
            cards.append(_card(*shown[-1]))
            advance()
        files.append(folder / f"sheet-{start // PER_SHEET:03d}.png")
        _sheet(shown).save(files[-1])
    title = html.escape(f"{len(scenes)} scenes of the {scenes.split} split, seed {scenes.seed}, {scenes.size} pixels")
    files.append(folder / "index.html")
    page = _PAGE.format(title=title, cards="\n".join(cards), attribution=html.escape(ATTRIBUTION))
    files[-1].write_text(page, encoding="utf-8")
    return files


def _sheet(shown: list[tuple[int, Scene]]) -> Image.Image:
    """A grid of scenes, each with its caption and a thumbnail per mask."""
    half = SIDE // 2
    width, height = SIDE + 3 * half + 12, SIDE + LINE + 8
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (min(COLUMNS, len(shown)) * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (index, scene) in enumerate(shown):
        left, top = place % COLUMNS * width, place // COLUMNS * height
        draw.text((left + 2, top), f"{index}: {scene.caption}"[:54], fill="black")
        sheet.paste(_enlarged(scene.image, SIDE), (left + 2, top + LINE))
        for number, mask in enumerate(list(scene.masks.values())[: 2 * 3]):
            corner = left + 6 + SIDE + number % 3 * half, top + LINE + number // 3 * half
            sheet.paste(_enlarged(highlight(scene.image, mask), half - 2), corner)
    return sheet


def _enlarged(image: NDArray[np.uint8], side: int) -> Image.Image:
    return Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)


def _card(index: int, scene: Scene) -> str:
    pictures = [("image", scene.image)] + [(word, highlight(scene.image, m)) for word, m in scene.masks.items()]
    figures = "".join(
        f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,{_base64(pixels)}">'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, pixels in pictures
    )
    return f'<article><h2>{index}: {html.escape(scene.caption)}</h2><div class="row">{figures}</div></article>'


def _base64(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
