"""Averaged weights lie between those of the two models."""

import sys
from pathlib import Path

import pytest
import torch
from references.commands import SHAPE

from bcos_diffusion.model import TextToImage
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import Tokenizer

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from average_weights import average


def model(seed: int, depth: int = 1) -> BcosDiffusionPipeline:
    torch.manual_seed(seed)
    return BcosDiffusionPipeline(TextToImage(SHAPE, Tokenizer(["cat"]), depth), name=f"model {seed}")


def test_a_quarter_of_the_second() -> None:
    first, second = model(0), model(1)
    found = average(first, second, 0.25)
    assert found.name == "model 0"
    others = second.model.state_dict()
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(found.model.state_dict()[name], value + (others[name] - value) / 4)


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="share must be in"):
        average(model(0), model(1), 1.5)
    with pytest.raises(ValueError, match="different shapes"):
        average(model(0), model(1, depth=2), 0.5)
