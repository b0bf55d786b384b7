"""Does the explanation of a word tell that its object was not drawn, and what does drawing anew gain?

python benchmarks/missing.py --steps 25 --cache FOLDER --out benchmarks/results/missing.json
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from machine import describe
from tqdm import tqdm

from bcos_diffusion.evaluation.json_values import for_json
from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.missing.protocol import Sizes, measure_missing
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import write_json


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="scenes-32")
    parser.add_argument("--steps", type=int, help="of a run, if not the model's own; its calibration is then of these")
    parser.add_argument("--validation", type=int, default=Sizes.validation)
    parser.add_argument("--test", type=int, default=Sizes.test)
    parser.add_argument("--prompts", type=int, default=Sizes.prompts)
    parser.add_argument("--strengthened", type=int, default=Sizes.strengthened)
    parser.add_argument("--cache", type=Path, help="folder that keeps what was seen of drawn pictures")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pipeline = BcosDiffusionPipeline.from_pretrained(options.model)
    if options.steps is not None:
        pipeline.defaults = replace(pipeline.defaults, steps=options.steps)
    sizes = Sizes(options.validation, options.test, options.prompts, options.strengthened)
    with tqdm(unit="picture", disable=None) as bar:
        found = measure_missing(pipeline, Segmenter.of(pipeline), sizes, options.cache, bar.update)
    write_json(
        options.out, for_json({"machine": describe(), "model": pipeline.name, "steps": pipeline.defaults.steps} | found)
    )


if __name__ == "__main__":
    main()
