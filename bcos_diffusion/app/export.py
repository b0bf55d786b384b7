"""Files of a picture to take home: the figure, the numbers, the maps."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from bcos_diffusion.app.drawing import Drawing
from bcos_diffusion.explanation.figure import draw_figure, save_maps
from bcos_diffusion.prompt_file import slug
from bcos_kernels.files import write_json

KINDS = ("png", "json", "safetensors")
KEPT_SECONDS = 900
_PREFIX = "picture-"


def export(drawing: Drawing, kind: str) -> Path:
    """Write one file into a new temporary folder and return it; those of a while ago are removed.

    kind: "png", the figure of image, maps, relevance and budget; "json", settings, relevance, budget and completeness
    error; "safetensors", the image and all its parts as they are. Raises ValueError for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
    found = drawing.explanation
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=os.environ.get("GRADIO_TEMP_DIR")))
    _forget(folder.parent)
    path = folder / f"{slug(found.prompt)}-seed{found.seed}.{kind}"
    if kind == "png":
        draw_figure(found, path)
    elif kind == "json":
        write_json(path, numbers(drawing))
    else:
        save_maps(found, path)
    return path


def numbers(drawing: Drawing) -> dict[str, Any]:
    """As ``explanation.json``, and how words were strengthened to be in the picture."""
    strengthened = {str(position): times for position, times in drawing.strength.items()}
    return drawing.explanation.to_dict() | {"strengthened": strengthened}


def _forget(parent: Path) -> None:
    """Remove exports that were made longer ago than anyone takes to save a file."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(folder)
        except FileNotFoundError:
            continue  # another export was faster
