"""What was tried to score a word by its contribution: every score against what dropping the word does.

    python benchmarks/tried_scores.py --scenes 400 --runs 200 --out benchmarks/results/evaluation_scores.json

Scores are L2 norms over pixels of a reduction of exact contributions, of validation scenes at four noise levels, and of
pictures that the model draws of their captions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from machine import describe, print_table
from torch import Tensor
from tqdm import tqdm

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.baselines.subject import one_step, whole_run
from bcos_diffusion.evaluation.ablations import Ablations
from bcos_diffusion.evaluation.faithfulness import correlations
from bcos_diffusion.evaluation.judgement import Scored, scored
from bcos_diffusion.evaluation.noised import noise_scene
from bcos_diffusion.explanation.attribution import contributions_of_words, traced_words
from bcos_diffusion.explanation.reduction import REDUCTIONS, TINT_OF_CHANGE, change, pixel_values
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes
from bcos_kernels.files import write_json

Parts = tuple[Ablations, Tensor, Tensor, Tensor]
"""What dropping words does; contributions ``[words, N, 6, H, W]``, the images, and those that no words give."""

MAPS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    kind: partial(pixel_values, kind=kind) for kind in REDUCTIONS if kind != "change"
} | {
    f"change, tint {tint:g}": partial(change, tint=tint) for tint in (0.0, 0.1, 0.2, TINT_OF_CHANGE, 0.4, 0.5)
}  # fmt: skip
WORDS = {"mean_over_images_all": "all words", "mean_over_images_content": "content words",
         "pooled_content": "content words pooled"}  # fmt: skip


def denoised(pipeline: BcosDiffusionPipeline, scenes: Scenes, numbers: Iterable[int]) -> Iterator[Parts]:
    """Scenes noised to every level and denoised in one step."""
    for number in numbers:
        noised = noise_scene(pipeline, scenes[number], number)
        subject = one_step(pipeline, noised.batch, noised.x_t, noised.t)
        image, contributions = contributions_of_words(pipeline, noised.batch, noised.x_t, noised.t)
        yield Ablations(subject, "drop"), contributions, image, subject.null_image()


def drawn(pipeline: BcosDiffusionPipeline, scenes: Scenes, numbers: Iterable[int]) -> Iterator[Parts]:
    """Pictures of the captions of scenes."""
    for number in numbers:
        job = pipeline.job([scenes[number].caption], [None], [number])
        (traced,), subject = pipeline.trace(job), whole_run(pipeline, job, 0)
        contributions = traced_words(traced, job.prompts(0)[:1])[:, None]
        yield Ablations(subject, "drop"), contributions, traced.image[None], subject.null_image()


def ranked(found: Iterable[Parts]) -> dict[str, dict[str, Any]]:
    """Of every score its rank correlations with effects, by which words are ranked."""
    units: dict[str, list[list[list[Scored]]]] = {name: [] for name in MAPS}
    for ablations, contributions, image, null in found:
        words, effects = ablations.subject.words, ablations.of_words().double().flatten(2).norm(dim=2)  # [words, N]
        for name, reduce in MAPS.items():
            scores = Attributed.of_maps(reduce(contributions, image, null=null)).scores
            units[name].append(scored(words, scores.tolist(), effects.tolist()))
    return {name: correlations(judged, "score") for name, judged in units.items()}


def main() -> None:
    """Rank words by every score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes-32")
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pipeline = BcosDiffusionPipeline.from_pretrained(options.model)
    scenes = Scenes(pipeline.model.unet.config.size, "validation")
    found = {
        "one step": ranked(denoised(pipeline, scenes, tqdm(range(options.scenes), desc="one step", disable=None))),
        "whole runs": ranked(drawn(pipeline, scenes, tqdm(range(options.runs), desc="whole runs", disable=None))),
    }
    columns = {f"{regime}, {said}": (regime, words) for regime in found for words, said in WORDS.items()}
    rows = [
        {"score": name} | {column: found[regime][name][words] for column, (regime, words) in columns.items()}
        for name in MAPS
    ]
    print_table([{key: cell if isinstance(cell, str) else cell["value"] for key, cell in row.items()} for row in rows])
    if options.out is not None:
        what = {"model": options.model, "scenes": options.scenes, "runs": options.runs, "used": TINT_OF_CHANGE}
        write_json(options.out, {"machine": describe(), **what, "rows": rows})


if __name__ == "__main__":
    main()
