"""What guidance does to a model's pictures of validation captions and to the share of its words: how far, and how long.

python benchmarks/guidance.py --out benchmarks/results/guidance.json
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from experiments import mean_budget
from machine import describe, print_table

from bcos_diffusion.evaluation.quality import quality
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import write_json

TRIED = ((1.0, 0), (2.0, 0), (2.5, 0), (3.0, 0), (2.0, 150), (2.5, 150), (3.0, 150), (2.5, 250))
"""Scales, and the timestep below which there is none."""


def judged(pipeline: BcosDiffusionPipeline, pictures: int, explained: int) -> dict[str, Any]:
    """What the pipeline draws of validation captions, and the share of the picture that is its words', in percent."""
    found = quality(pipeline, pictures, split="validation")["drawn"]
    distances = {name: values["value"] for name, values in found["frechet"].items()}
    shares = {name: 100 * found[name]["value"] for name in ("objects", "relation", "counts")}
    words = mean_budget(pipeline, explained, pipeline.defaults.guidance, "homogeneous")["tokens"]
    return {"frechet": distances, **shares, "extra": found["extra"]["value"], "words": 100 * words}


def main() -> None:
    """Measure every way to guide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="scenes-32")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--explained", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pipeline = BcosDiffusionPipeline.from_pretrained(options.model)
    rows: list[dict[str, Any]] = []
    for scale, below in TRIED:
        pipeline.defaults = dataclasses.replace(pipeline.defaults, guidance=scale, unguided_below=below)
        found = judged(pipeline, options.pictures, options.explained)
        rows.append({"guidance": scale, "unguided_below": below} | found)
        print_table([{name: value for name, value in rows[-1].items() if name != "frechet"} | rows[-1]["frechet"]])
    if options.out is not None:
        what = {"model": options.model, "pictures": options.pictures, "steps": pipeline.defaults.steps}
        write_json(options.out, {"machine": describe(), **what, "rows": rows})


if __name__ == "__main__":
    main()
