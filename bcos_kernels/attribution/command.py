"""``python -m bcos_kernels pointing-game``: the grid pointing game for a model and images from disk."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from bcos_kernels.attribution.labelled_images import ENCODINGS, load_images
from bcos_kernels.attribution.model_file import load_model
from bcos_kernels.attribution.pointing_game import PROBABILITIES, pointing_game
from bcos_kernels.files import write_json

DESCRIPTION = """Stitch grids of confidently classified images of different classes, explain each class, and measure
the share of its positive contributions that lies in its own cell (Böhle et al. 2021)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--model", required=True, metavar="MODULE:FUNCTION", help="called without arguments")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="the model's state_dict as safetensors")
    parser.add_argument(
        "--images", required=True, type=Path, metavar="PATH",
        help="folder with one folder of images a class, whose sorted names are the model's classes in order;"
        " or a safetensors file with images [M, C, H, W] and labels [M]",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="JSON to write")
    parser.add_argument("--encoding", choices=ENCODINGS, default="six", help="channels of the model's input")
    parser.add_argument("--size", type=int, default=224, help="pixels of an image from a folder (224)")
    parser.add_argument("--grid", type=int, default=3, help="cells along a side (3)")
    parser.add_argument("--count", type=int, default=500, help="most grids to play (500)")
    parser.add_argument("--confidence", type=float, default=0.5, help="least probability to take part (0.5)")
    parser.add_argument("--probability", choices=[*PROBABILITIES], default="sigmoid", help="of logits (sigmoid)")
    parser.add_argument("--smooth", type=int, default=0, help="side of the averaging window (0, none)")
    parser.add_argument("--rescale", action="store_true", help="shrink images so that a grid has the size of one")
    parser.add_argument("--batch-size", type=int, default=32, help="images at once (32)")
    parser.add_argument("--seed", type=int, default=0, help="which classes share a grid (0)")
    parser.add_argument("--device", default="cpu", help="where the model runs (cpu)")


def run(options: argparse.Namespace) -> int:
    """Play, print the score and write the JSON; raises ValueError or OSError on what a user can get wrong."""
    if options.size < 1:
        raise ValueError(f"size must be at least 1, got {options.size}")
    if options.out.is_dir():
        raise ValueError(f"{options.out} is a folder; name a file to write")
    model = load_model(options.model, options.weights).to(_device(options.device))
    images, labels, names = load_images(options.images, options.encoding, options.size)
    chosen = ("count", "confidence", "probability", "smooth", "rescale", "seed")
    settings = {name: getattr(options, name) for name in chosen}
    with tqdm(unit="image", disable=None, leave=False) as bar:
        game = pointing_game(
            model, images, labels, options.grid, batch_size=options.batch_size, advance=bar.update, **settings
        )
    write_json(options.out, game.to_dict() | {"settings": settings, "model": options.model, "class_names": names})
    print(
        f"grid pointing game, {options.grid} x {options.grid}: score {game.score:.4f} (chance {game.chance:.4f}) over"
        f" {len(game.shares)} grids; {game.confident} of {len(labels)} images took part, accuracy {game.accuracy:.4f}"
    )
    print(f"wrote {options.out}")
    return 0


def _device(name: str) -> torch.device:
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return torch.device(name)
