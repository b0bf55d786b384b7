"""The inputs of an extraction once more: x_t of its images, and the texts they were read with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bcos_diffusion.features import conditions
from bcos_diffusion.features.extraction import noised
from bcos_diffusion.features.generated import GeneratedImages
from bcos_diffusion.features.images import Images, images_of
from bcos_diffusion.features.pipeline_subject import PipelineSubject
from bcos_diffusion.features.plan import Plan
from bcos_diffusion.features.store import FeatureStore
from bcos_diffusion.features.subject import Subject
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults

_AT_ONCE = 32


class Again:
    """What a subject read when ``store`` was extracted from it.

    Raises ValueError where images have changed since, and for pictures that another model drew.
    """

    def __init__(self, store: FeatureStore, subject: Subject):
        self.subject = subject
        self.images: Images = _drawn_again(store, subject) if store.index["drawn"] else images_of(store.index["images"])
        rest = {name: store.index[name] for name in ("count", "pooled", "dtype", "batch", "seed")}
        self.plan = Plan(self.images, layers=store.layers, timesteps=store.timesteps,
                         conditionings=store.conditionings, **rest)  # fmt: skip

    @torch.no_grad()
    def x_t(self, numbers: Sequence[int], t: int) -> tuple[Tensor, int]:
        """x_t ``[N, C, H, W]`` of images at a timestep of the extraction, and the timestep of the network there."""
        x_0 = None if self.images.reads_runs else self.subject.encode(self.images.batch(numbers))
        return noised(self.subject, self.plan, x_0, t, list(numbers))

    def every_x_t(self, t: int) -> Tensor:
        """x_t of all images, ``[N, C, H, W]`` float32 on the CPU."""
        parts = torch.arange(self.plan.count).split(_AT_ONCE)
        return torch.cat([self.x_t(some.tolist(), t)[0].float().cpu() for some in parts])

    def text(self, number: int, conditioning: str) -> str:
        """What an image was read with; "" for nothing."""
        return conditions.texts(self.subject, self.images, conditioning, [number], self.images.batch([number]))[0]


def _drawn_again(store: FeatureStore, subject: Subject) -> GeneratedImages:
    source = store.index["images"]
    if not isinstance(subject, PipelineSubject) or source["weights"] != subject.settings()["weights"]:
        raise ValueError(f"the pictures of {store.folder} were drawn by another model, {source['model']}")
    pipeline = subject.pipeline
    sampler = Defaults(**{name: source[name] for name in ("steps", "guidance", "update", "unguided_below")})
    pipeline = BcosDiffusionPipeline(pipeline.model, sampler, pipeline.name)
    return GeneratedImages(pipeline, source["prompts"], source["seed"], source["reads"])
