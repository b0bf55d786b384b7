"""What was tried to make explanations better: reductions of contributions, and weights, on validation scenes.

    python benchmarks/tried.py --model "before=OLD" --model "tied=TIED" --scenes 80 \
        --out benchmarks/results/evaluation_tried.json

Every reduction is judged on the shipped model, and the reduction in use on every other model, one step, four noise
levels. The threshold is the best on the same scenes, so mIoU is a little optimistic, for all rows alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from average_weights import average
from machine import describe
from tqdm import tqdm

from bcos_diffusion.baselines.attribution import Attribution
from bcos_diffusion.baselines.daam import Daam
from bcos_diffusion.evaluation import regime_a
from bcos_diffusion.evaluation.noised import SHARES
from bcos_diffusion.evaluation.setup import Contender, Options, Setup
from bcos_diffusion.evaluation.summary.faithfulness import faithfulness
from bcos_diffusion.evaluation.summary.localisation import localisation
from bcos_diffusion.evaluation.summary.models import denoising
from bcos_diffusion.explanation.attribution import Exact
from bcos_diffusion.explanation.reduction import REDUCTION, REDUCTIONS
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import write_json

COLUMNS = (
    "weights", "map", "mIoU %", "pixel AP %", "leakage %", "colour mass %", "Spearman, all words",
    "Spearman, content words pooled", "denoising MSE × 1000",
)  # fmt: skip
MEASURES = ("miou", "ap", "leakage", "colour_mass")


def rows_of(label: str, pipeline: BcosDiffusionPipeline, methods: Mapping[str, Attribution], scenes: int) -> list[Any]:
    """One row a method: its localisation, and its ranks of words against dropping each."""
    setup = Setup(Contender(pipeline, dict(methods)), Options(scenes=scenes, validation=scenes))
    numbers = tqdm(range(scenes), desc=label, disable=None)
    records = [regime_a.record_with(setup, "validation", number, ("drop",)) for number in numbers]
    found, ranks = localisation(records, records, SHARES)["methods"], faithfulness(records)
    mse = sum(level["value"] for level in denoising(records)["model"].values()) / len(SHARES)
    rows = []
    for name in methods:
        spearman = ranks[name]["drop"]["spearman_token_by_words"]
        values = [f"{100 * found[name][measure]['value']:.1f}" for measure in MEASURES]
        values += [f"{spearman[key]['value']:.2f}" for key in ("mean_over_images_all", "pooled_content")]
        rows.append(dict(zip(COLUMNS, [label, name, *values, f"{1000 * mse:.2f}"], strict=True)))
    return rows


def main() -> None:
    """Judge what was tried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], metavar="LABEL=FOLDER")
    parser.add_argument("--average", type=float, action="append", default=[], help="share of the second of two models")
    parser.add_argument("--scenes", type=int, default=80)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    models = {label: BcosDiffusionPipeline.from_pretrained(folder)
              for label, folder in (given.split("=", 1) for given in options.model)}  # fmt: skip
    if options.average and len(models) != 2:
        parser.error("averages are of two models")
    others = dict(models)
    for share in options.average:
        others[f"{share:g} of the second"] = average(*models.values(), share)
    reductions = {name: Exact(name) for name in REDUCTIONS}
    rows = rows_of("scenes-32", BcosDiffusionPipeline.from_pretrained("scenes-32"), reductions | {"daam": Daam()},
                   options.scenes)  # fmt: skip
    for label, pipeline in others.items():
        rows += rows_of(label, pipeline, {REDUCTION: Exact(), "daam": Daam()}, options.scenes)
    caption = (
        f"{options.scenes} validation scenes at four noise levels, one step; scores of words do not depend on the map."
    )
    write_json(options.out, {"machine": describe(), "caption": caption, "columns": COLUMNS, "rows": rows})


if __name__ == "__main__":
    main()
