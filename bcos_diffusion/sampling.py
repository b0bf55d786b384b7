"""How the commands that draw are told to draw: model, device, seed and the options of the sampler."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from bcos_diffusion.shipped import SHIPPED

if TYPE_CHECKING:
    from bcos_diffusion.pipeline import BcosDiffusionPipeline


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn."""

    model: Annotated[str | None, tyro.conf.arg(metavar="FOLDER|HUB-ID")] = None
    """Folder or hub id of a model; without it, the model that comes with the package."""
    seed: int = 0
    """The same seed gives the same bytes."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Sampling steps, 1 to 1000; without it, as the model says."""
    guidance: Annotated[float | None, tyro.conf.arg(metavar="SCALE")] = None
    """Scale of classifier-free guidance, 1 for none; without it, as the model says."""
    negative_prompt: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """What to steer away from."""
    update: Literal["homogeneous", "standard"] | None = None
    """Form of the DDIM update; the standard one adds constants of its own to the budget."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    """Type of weights and sampling."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in [0, 2^63), got {self.seed}")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise ValueError(f"guidance must be a finite number, got {self.guidance}")
        if self.negative_prompt is not None and not self.negative_prompt.strip():
            raise ValueError("the negative prompt is empty; leave it out to steer away from nothing")

    def load(self) -> BcosDiffusionPipeline:
        """The pipeline on its device, in its dtype."""
        import torch

        from bcos_diffusion.pipeline import BcosDiffusionPipeline

        if self.model is None and not SHIPPED.is_dir():
            raise FileNotFoundError(f"this installation has no weights ({SHIPPED} is missing); name a model by --model")
        device = _device(self.device)
        pipeline = BcosDiffusionPipeline.from_pretrained(self.model or SHIPPED, getattr(torch, self.dtype))
        return BcosDiffusionPipeline(pipeline.model.to(device), pipeline.defaults, pipeline.name)

    @property
    def options(self) -> dict[str, Any]:
        """What ``generate`` and ``explain`` of a pipeline take, the seed apart."""
        names = ("negative_prompt", "steps", "guidance", "update")
        return {name: getattr(self, name) for name in names}


def _device(name: str) -> Any:
    import torch

    try:
        if name == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.zeros(1, device=name).item()
        return torch.device(name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}") from None
