"""``python -m bcos_diffusion.missing fit --model FOLDER``: calibrate a model; ``measure`` says how well it tells."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from bcos_diffusion.evaluation.json_values import for_json
from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.missing.calibration import FILE
from bcos_diffusion.missing.protocol import Sizes, calibrate, measure_missing
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.shipped import SHIPPED, locate
from bcos_kernels.files import write_json


def main(arguments: list[str] | None = None) -> int:
    """Fit or measure, and write the result; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bcos_diffusion.missing", description=__doc__)
    parser.add_argument("action", choices=("fit", "measure"))
    parser.add_argument(
        "--model",
        default=SHIPPED.name,
        help="pipeline folder, hub id or name in the package; its first by default",
    )
    parser.add_argument("--out", type=Path, help=f"file to write; {FILE} in the model's folder by default of fit")
    parser.add_argument("--validation", type=int, default=Sizes.validation, help="pictures to calibrate on")
    parser.add_argument("--test", type=int, default=Sizes.test, help="pictures to measure on")
    parser.add_argument("--prompts", type=int, default=Sizes.prompts, help="prompts to ensure when measuring")
    parser.add_argument("--cache", type=Path, help="folder that keeps what was seen of drawn pictures")
    chosen = parser.parse_args(arguments)
    try:
        out = chosen.out or (locate(chosen.model) / FILE if chosen.action == "fit" else None)
        if out is None or not (chosen.out or locate(chosen.model).is_dir()):
            raise ValueError("name the file to write by --out")
        pipeline = BcosDiffusionPipeline.from_pretrained(chosen.model)
        segmenter = Segmenter.of(pipeline)
        with tqdm(unit="picture", disable=None, leave=False) as bar:
            if chosen.action == "fit":
                calibrate(pipeline, segmenter, chosen.validation, chosen.cache, bar.update).write(out)
            else:
                sizes = Sizes(chosen.validation, chosen.test, chosen.prompts)
                found = measure_missing(pipeline, segmenter, sizes, chosen.cache, bar.update)
                write_json(out, for_json(found))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
