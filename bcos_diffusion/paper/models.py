"""Several models drawn with the same options, for figures that set them side by side."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from bcos_diffusion.commands.options import Device, Dtype, Guidance, Sampling, Steps, Update
from bcos_diffusion.shipped import locate

if TYPE_CHECKING:
    from bcos_diffusion.pipeline import BcosDiffusionPipeline


@dataclass(frozen=True)
class ManySampling:
    """How pictures of several models are drawn."""

    model: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL"), tyro.conf.UseAppendAction] = ()
    """Folder, hub id or name in the package of a model; give it once for each; without it, the first of the package."""
    seed: int = 0
    """The same seed gives the same noise to every model."""
    steps: Steps = None
    guidance: Guidance = None
    update: Update = None
    device: Device = "auto"
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        self.each()

    def each(self) -> list[Sampling]:
        """One set of options a model."""
        shared = {name: value for name, value in vars(self).items() if name != "model"}
        return [Sampling(model=model, **shared) for model in self.model or (None,)]

    def load(self) -> dict[str, tuple[Sampling, BcosDiffusionPipeline]]:
        """Every model by a name of its own: its own name where that is enough, else with its folder's."""
        loaded = [(sampling, sampling.load()) for sampling in self.each()]
        times = Counter(pipeline.name for _, pipeline in loaded)
        named: dict[str, tuple[Sampling, BcosDiffusionPipeline]] = {}
        for sampling, pipeline in loaded:
            folder = locate(sampling.model).resolve().name
            name = pipeline.name if times[pipeline.name] == 1 else f"{pipeline.name} ({folder})"
            while name in named:
                name += "'"
            named[name] = sampling, pipeline
        return named
