"""How the commands that draw are told to draw: model, device, seed and the options of the sampler."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from bcos_diffusion.shipped import SHIPPED, locate, require_weights

if TYPE_CHECKING:
    from torch import Tensor

    from bcos_diffusion.missing.calibration import Calibration
    from bcos_diffusion.pipeline import BcosDiffusionPipeline

Model = Annotated[
    str | None,
    arg(
        metavar="MODEL",
        help="Folder, hub id or name in the package of a model, such as scenes-32; without it, the package's first.",
    ),
]
Steps = Annotated[int | None, arg(metavar="N", help="Sampling steps, 1 to 1000; without it, as the model says.")]
Guidance = Annotated[
    float | None,
    arg(metavar="SCALE", help="Scale of classifier-free guidance, 1 for none; without it, as the model says."),
]
Update = Annotated[
    Literal["homogeneous", "standard"] | None,
    arg(help="Form of the DDIM update; the standard one adds constants of its own to the budget."),
]
Device = Annotated[str, arg(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[Literal["float32", "float64", "bfloat16", "float16"], arg(help="Type of weights and sampling.")]


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn."""

    model: Model = None
    text: Annotated[str | None, arg(metavar="FOLDER|FILE|HUB-ID")] = None
    """Where the frozen CLIP of one of the paper's models is now; without it, where the model says."""
    seed: int = 0
    """The same seed gives the same bytes."""
    steps: Steps = None
    guidance: Guidance = None
    negative_prompt: Annotated[str | None, arg(metavar="TEXT")] = None
    """What to steer away from."""
    update: Update = None
    size: Annotated[str | None, arg(metavar="WxH")] = None
    """Width and height in pixels, such as 48x32; without it, the size that the model was trained on."""
    image: Annotated[Path | None, arg(metavar="FILE")] = None
    """A picture to start from: it is noised with the seed up to --start-t, and drawn anew from there."""
    start_t: Annotated[int | None, arg(metavar="T")] = None
    """How much noise the picture gets: 0 is hardly any, 999 hides it."""
    device: Device = "auto"
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in [0, 2^63), got {self.seed}")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise ValueError(f"guidance must be a finite number, got {self.guidance}")
        if self.negative_prompt is not None and not self.negative_prompt.strip():
            raise ValueError("the negative prompt is empty; leave it out to steer away from nothing")
        if (self.image is None) != (self.start_t is None):
            raise ValueError("to start from a picture, give both --image and --start-t")
        if self.size is not None and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", self.size):
            raise ValueError(f"size must be width x height in pixels, such as 48x32, got {self.size!r}")

    def load(self) -> BcosDiffusionPipeline:
        """The pipeline on its device, in its dtype."""
        import torch

        from bcos_diffusion.pipeline import BcosDiffusionPipeline

        if self.model is None:
            require_weights(SHIPPED)
        device = find_device(self.device)
        pipeline = BcosDiffusionPipeline.from_pretrained(self.model or SHIPPED, getattr(torch, self.dtype), self.text)
        return BcosDiffusionPipeline(pipeline.model.to(device), pipeline.defaults, pipeline.name)

    def calibration(self, pipeline: BcosDiffusionPipeline) -> Calibration:
        """What tells which words its pictures lack; raises ValueError or OSError where the model has none."""
        from bcos_diffusion.missing.calibration import Calibration

        return Calibration.of(pipeline, locate(self.model))

    def options(self, pipeline: BcosDiffusionPipeline) -> dict[str, Any]:
        """What ``job`` of a pipeline takes beside prompts and seeds: settings, size and start.

        Raises ValueError or OSError for a picture that cannot be read or a size that the model does not draw.
        """
        size = pipeline.default_size
        if self.size is not None:
            width, height = map(int, self.size.split("x"))
            size = height, width
            pipeline.model.unet.check_size(*size)
        start = None
        if self.image is not None and self.start_t is not None:
            from bcos_diffusion.start import Start, load_image

            start = Start(load_image(self.image, size), self.start_t, self.image.name)
        settings = {name: getattr(self, name) for name in ("steps", "guidance", "update")}
        return settings | {"size": size, "start": start}

    def arguments(self, pipeline: BcosDiffusionPipeline) -> dict[str, Any]:
        """What ``generate`` and ``explain`` take beside prompt and seed; raises as :meth:`options`."""
        return {"negative_prompt": self.negative_prompt} | self.options(pipeline)


@dataclass(frozen=True)
class Detail:
    """What an explanation says beyond the words of the whole picture."""

    phrase: Annotated[tuple[str, ...], arg(metavar="[TEXT …]")] = ()
    """Words to explain as one, such as "blue background"."""
    box: Annotated[tuple[int, int, int, int] | None, arg(metavar="LEFT TOP RIGHT BOTTOM")] = None
    """A region in pixels: also say which words made it."""
    breakdown: bool = False
    """Also explain by layer, step and head, and draw what each word had contributed at every step."""
    save: Literal["all", "maps", "numbers"] = "all"
    """What to write: all; image, raw maps and JSON; or image and JSON alone."""

    def check_box(self, height: int, width: int) -> None:
        """Raise ValueError for a box that is not in pictures of this size."""
        if self.box is not None:
            from bcos_diffusion.explanation.regions import region_mask

            region_mask(self.box, height, width)


@dataclass(frozen=True)
class FromFile:
    """Prompts from a file instead."""

    file: Annotated[Path | None, arg(metavar="FILE")] = None
    """A file of prompts: .txt (one a line), .csv or .jsonl (prompt, negative_prompt, seed). Run again to go on."""
    batch: int = 8
    """How many pictures of the file are drawn at once."""
    threads: int = 1
    """Threads of each process on a CPU. Their number may change the last bit of a picture, so it stays as it is."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.threads < 1:
            raise ValueError(f"batch and threads must be at least 1, got {self.batch} and {self.threads}")


def require_finite(image: Tensor, sampling: Sampling) -> None:
    """Raise ValueError for a picture that damaged weights or a narrow dtype spoiled."""
    if not bool(image.isfinite().all()):
        hint = "; try --dtype float32" if sampling.dtype in ("float16", "bfloat16") else ""
        raise ValueError(f"the picture has values that are not finite: damaged weights or too much guidance{hint}")


def find_device(name: str) -> Any:
    """The device of a name, or with "auto" the best there is. Raises ValueError for one that cannot be used here."""
    import torch

    try:
        if name == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.zeros(1, device=name).item()
        return torch.device(name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}") from None
