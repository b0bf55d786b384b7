"""A tiny model on disk, and an empty folder to work in."""

from pathlib import Path

import pytest
import torch
from references.commands import SHAPE

from bcos_diffusion.model import TextToImage
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.text import Tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    whole = TextToImage(SHAPE, Tokenizer(vocabulary()), text_depth=1)
    BcosDiffusionPipeline(whole, Defaults(steps=2), "tiny").save_pretrained(folder)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where nothing is yet: ``usefixtures``."""
    monkeypatch.chdir(tmp_path)
