"""A small model under evaluation; as a program, ``python -m references.tiny_evaluation OUT``, by two processes."""

import sys
from pathlib import Path

import torch

from bcos_diffusion.evaluation import protocol, shards
from bcos_diffusion.evaluation.setup import Options
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.text import Tokenizer
from references.attributions import Guesses, Knows, Refuses, Stripes

OPTIONS = Options(scenes=6, validation=2, costly_scenes=3, costly=("gradient",), seed=0, steps=2)

SHARD = 3
"""Scenes a shard."""


def pipeline(name: str = "tiny") -> BcosDiffusionPipeline:
    """A model of random weights, the same for a name."""
    with torch.random.fork_rng([]):
        torch.manual_seed(len(name))
        config = UNetConfig(
            size=24, widths=(8, 16), heads=2, text_dim=8, time_dim=8, self_attention=(False, True),
            cross_attention=(True, True),
        )  # fmt: skip
        return BcosDiffusionPipeline(TextToImage(config, Tokenizer(vocabulary()), text_depth=1), name=name)


if __name__ == "__main__":
    shards.SIZE = SHARD
    methods = {
        "exact": Knows(name="exact"),
        "daam": Knows(1.0, 0.5, "daam"),
        "guesses": Guesses(),
        "gradient": Knows(0.0, 1.0, "gradient"),
        "refuses": Refuses(),
    }
    protocol.run(Path(sys.argv[1]), pipeline(), OPTIONS, methods, pipeline("twin"), Stripes(), workers=2)
