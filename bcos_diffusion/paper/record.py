"""What every command of the paper writes: a picture, and JSON that says what was measured, by what and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bcos_diffusion.commands.options import Sampling
from bcos_diffusion.shipped import locate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import Tensor

    from bcos_diffusion.pipeline import BcosDiffusionPipeline

DOTS_PER_INCH = 100


@contextmanager
def progress(total: int, unit: str) -> Iterator[Callable[..., object]]:
    """A bar on an interactive terminal, nothing elsewhere; yields a function that moves it on, by one if not told."""
    with tqdm(total=total, unit=unit, disable=None, leave=False) as bar:
        yield bar.update


def described(figure: str, sampling: Sampling, pipeline: BcosDiffusionPipeline) -> dict[str, Any]:
    """The head of a result: which figure of the paper, the model by name and hash, the sampler, commit, versions."""
    from bcos_diffusion.evaluation.provenance import provenance

    steps, guidance, update = pipeline._settings(sampling.steps, sampling.guidance, sampling.update)
    return {
        "figure": figure,
        "name": pipeline.name,
        "provenance": provenance(locate(sampling.model)),
        "sampling": {
            "seed": sampling.seed,
            "steps": steps,
            **guidance.to_dict(),
            "update": update,
            "negative_prompt": sampling.negative_prompt,
            "dtype": sampling.dtype,
        },
    }


def write_result(folder: Path, name: str, values: dict[str, Any]) -> None:
    """Write ``NAME.json``; numbers that JSON lacks are spelt out."""
    from bcos_diffusion.evaluation.json_values import for_json
    from bcos_kernels.files import write_json

    write_json(folder / f"{name}.json", for_json(values))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` × ``height`` inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG of at most 256 colours, the same bytes for the same figure."""
    import io

    from PIL import Image

    from bcos_kernels.files import write_atomically

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    picture = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG", optimize=True))


def show(axes: Axes, picture: Tensor | Image, title: str = "", size: float = 9) -> None:
    """Put a picture, rgb ``[3, H, W]`` in [0, 1] or an image, on bare axes."""
    import numpy as np
    from torch import Tensor

    from bcos_diffusion.encoding import to_pil

    axes.axis("off")
    axes.imshow(np.asarray(to_pil(picture) if isinstance(picture, Tensor) else picture), interpolation="nearest")
    axes.set_title(title, fontsize=size)
