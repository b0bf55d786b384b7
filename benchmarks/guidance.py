"""What guidance does to a model's pictures and to the share of its words, on prompts of their own.

python benchmarks/guidance.py --out benchmarks/results/guidance.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from experiments import mean_budget
from machine import describe, print_table

from bcos_diffusion.evaluation.colour import judge_colour
from bcos_diffusion.evaluation.presence import judge_objects
from bcos_diffusion.evaluation.summary.full_run import objects
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import prompts
from bcos_kernels.files import write_json

GUIDANCE = (1.0, 1.5, 2.0, 3.0, 4.0)
SEED = 1  # the evaluation draws its prompts with seed 0


def judged(pipeline: BcosDiffusionPipeline, count: int, guidance: float) -> dict[str, Any]:
    """Objects found alone and in pairs, relations that hold and backgrounds as named, over ``count`` prompts."""
    texts = prompts(count, SEED, pipeline.default_size[0])
    found, grounds = [], []
    for image, text in zip(pipeline.generate(texts, seed=SEED, guidance=guidance), texts, strict=True):
        words = text.split()
        found.append(judge_objects(image, words))
        grounds.append(judge_colour(image, words)[1])
    measured = objects(found)
    shares = {name: measured[name]["value"] for name in ("found", "found_when_alone", "relation_holds")}
    return shares | {"background": sum(right is True for right in grounds) / count}


def main() -> None:
    """Measure every guidance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="scenes-32")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--explained", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pipeline = BcosDiffusionPipeline.from_pretrained(options.model)
    rows = []
    for guidance in GUIDANCE:
        budget = mean_budget(pipeline, options.explained, guidance, "homogeneous")
        rows.append({"guidance": guidance, **judged(pipeline, options.prompts, guidance), "words": budget["tokens"]})
    print_table(rows)
    if options.out is not None:
        write_json(options.out, {"machine": describe(), "prompts": options.prompts, "rows": rows})


if __name__ == "__main__":
    main()
