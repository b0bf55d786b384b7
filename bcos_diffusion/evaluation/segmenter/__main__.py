"""``python -m bcos_diffusion.evaluation.segmenter --out FOLDER``: train a segmenter, judge it and write it.

A run that was cut goes on from the checkpoint in the folder. Of those that come with the package, the one for 32
pixels was made by the defaults, the one for 64 by ``--size 64 --batch 32 --steps 2800``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bcos_diffusion.evaluation.segmenter.calibration import calibrate
from bcos_diffusion.evaluation.segmenter.scores import score
from bcos_diffusion.evaluation.segmenter.segmenter import Segmenter
from bcos_diffusion.evaluation.segmenter.training import Recipe, train
from bcos_diffusion.scenes import ATTRIBUTION

LICENCE = f"CC BY-SA 4.0, as the artwork it was trained on. {ATTRIBUTION}"


def main(arguments: list[str] | None = None) -> int:
    """Train, score, calibrate and save; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bcos_diffusion.evaluation.segmenter", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder for checkpoints, weights and card")
    parser.add_argument("--scenes", type=int, default=1000, help="test scenes to score by, and validation scenes")
    for field in fields(Recipe):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    chosen = vars(parser.parse_args(arguments))
    out, scenes = chosen.pop("out"), chosen.pop("scenes")
    try:
        print(make(Recipe(**chosen), out, scenes))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make(recipe: Recipe, out: Path, scenes: int) -> str:
    """Train (or go on), then write ``model.safetensors`` and ``card.json`` into ``out``; returns a line to print."""
    if scenes < 1:
        raise ValueError(f"scenes must be at least 1, got {scenes}")
    with tqdm(total=recipe.steps, unit="step", disable=not sys.stderr.isatty()) as bar:

        def tell(step: int, loss: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}")

        weights = train(recipe, out, tell=tell)
    facts: dict[str, Any] = {"recipe": asdict(recipe), "licence": LICENCE}
    Segmenter.save(out, weights, facts)
    # Judged as it will be read, weights rounded to bf16.
    segmenter = Segmenter.load(out)
    facts |= {"scores": score(segmenter.classes, recipe.size, "test", scenes), **calibrate(segmenter, scenes)}
    Segmenter.save(out, weights, facts)
    miou, objects = facts["scores"]["miou"]["value"], facts["scores"]["miou_objects"]["value"]
    return f"mIoU {miou:.4f} over nouns, {objects:.4f} over objects, of {scenes} test scenes; written to {out}"


if __name__ == "__main__":
    sys.exit(main())
