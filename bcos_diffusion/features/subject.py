"""What features are read from: a denoiser with its images, noise and texts, whichever library it is of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from bcos_diffusion.hub import local_folder
from bcos_diffusion.shipped import SHIPPED
from bcos_kernels.files import read_json

if TYPE_CHECKING:
    from bcos_diffusion.pipeline import BcosDiffusionPipeline

_WANTED = ["*.json", "*.txt", *(f"{at}{name}" for at in ("", "*/") for name in (
    "model.safetensors", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model-*.safetensors"))]  # fmt: skip
"""What of a repository is downloaded: no pickled weights, and none in other precisions."""
_UNWANTED = ["safety_checker/*", "image_encoder/*", "text_encoder_2/*"]


class Subject(Protocol):
    """A denoiser as extraction sees it.

    name: as results state it; layers: what can be read, by name and alias; network: the denoiser; size: the side in
    pixels of its square images; timesteps: how many there are.
    """

    name: str
    layers: dict[str, nn.Module]
    network: nn.Module
    size: int
    timesteps: int

    def settings(self) -> dict[str, Any]:
        """What tells this subject from another one, as JSON-ready values: its name and the hashes of its weights."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """x_0 of rgb images ``[N, 3, H, W]`` in [0, 1], on the network's device and in its type."""
        ...

    def noise(self, x_0: Tensor, t: int, seeds: Sequence[int]) -> Tensor:
        """x_t of x_0 ``[N, C, H, W]`` at timestep t; the noise of each depends on its seed alone."""
        ...

    def condition(self, texts: Sequence[str]) -> Any:
        """What the network reads of N texts; "" is the empty prompt. Raises ValueError for texts it cannot read."""
        ...

    def run(self, x_t: Tensor, t: int, condition: Any) -> None:
        """One forward pass over x_t ``[N, C, H, W]``."""
        ...


def load_subject(source: str | Path = SHIPPED, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Subject:
    """The subject in a folder, behind a hub id, or in the package by its name; told by what is in the folder.

    Ours have a ``config.json`` with a format; diffusers' a ``model_index.json`` (a pipeline, such as Stable Diffusion
    or DiT), or a ``config.json`` with a ``_class_name`` (a bare network, read without VAE and text). Raises
    FileNotFoundError where there is nothing, ValueError for anything else or a damaged one, ImportError where a library
    is needed that is not installed.
    """
    folder = local_folder(source, _WANTED, _UNWANTED)
    index, config = folder / "model_index.json", folder / "config.json"
    if index.is_file():
        from bcos_diffusion.features.diffusers_loading import load_pipeline

        return load_pipeline(folder, dtype, device)
    values = read_json(config) if config.is_file() else {}
    if "_class_name" in values:
        from bcos_diffusion.features.diffusers_loading import load_network

        return load_network(folder, values, dtype, device)
    if "format" in values:
        return subject_of(_pipeline(folder, dtype, device))
    raise ValueError(
        f"{folder} holds no model that is known: there must be a config.json of a bcos_diffusion pipeline, or"
        " diffusers' model_index.json or config.json with a _class_name"
    )


def subject_of(pipeline: BcosDiffusionPipeline) -> Subject:
    """One of our pipelines as a subject."""
    from bcos_diffusion.features.pipeline_subject import PipelineSubject

    return PipelineSubject(pipeline)


def _pipeline(folder: Path, dtype: torch.dtype, device: str) -> BcosDiffusionPipeline:
    from bcos_diffusion.pipeline import BcosDiffusionPipeline

    pipeline = BcosDiffusionPipeline.from_pretrained(folder, dtype)
    if device != "cpu":
        pipeline.model.to(device)
        pipeline.alpha_bar = pipeline.alpha_bar.to(device)
    return pipeline
