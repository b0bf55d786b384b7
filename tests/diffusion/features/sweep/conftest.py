"""Folders of tiny models of random weights, all of 24 pixels."""

import dataclasses
from pathlib import Path

import pytest
import torch
from references.commands import SHAPE
from references.diffusers_models import tiny_unet

from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.dit import DiTConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.text import Tokenizer

TRANSFORMER = DiTConfig(size=24, patch=4, width=16, depth=4, heads=2, mlp=2, text_dim=8, time_dim=8)
NETWORKS = {"vanilla": dataclasses.replace(SHAPE, layers="vanilla"), "dit": TRANSFORMER}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By label: ordinary layers, a transformer, and diffusers' U-Net without a text encoder."""
    folder = tmp_path_factory.mktemp("others")
    for label, config in NETWORKS.items():
        torch.manual_seed(1)
        whole = TextToImage(config, Tokenizer(vocabulary()), text_depth=1)
        BcosDiffusionPipeline(whole, Defaults(steps=2), label).save_pretrained(folder / label)
    network = tiny_unet()
    network.register_to_config(sample_size=24)
    network.save_pretrained(folder / "diffusers")
    return {label: str(folder / label) for label in (*NETWORKS, "diffusers")}


@pytest.fixture(scope="module")
def labelled(model: Path) -> str:
    """The tiny B-cos model as the command line names it."""
    return f"bcos={model}"
