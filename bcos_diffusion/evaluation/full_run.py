"""Whole sampling runs: the budget, the mass of every word, and what dropping each word changes."""

from __future__ import annotations

from torch import Tensor

from bcos_diffusion.baselines.subject import whole_run
from bcos_diffusion.encoding import from_pixels
from bcos_diffusion.evaluation.ablations import Ablations
from bcos_diffusion.evaluation.colour import judge_colour
from bcos_diffusion.evaluation.faithfulness import measure
from bcos_diffusion.evaluation.presence import judge_objects
from bcos_diffusion.evaluation.setup import Record, Setup
from bcos_diffusion.evaluation.words import group
from bcos_diffusion.explain import Explanation, Part, explain_job
from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes, prompts


def record(setup: Setup, split: str, number: int) -> Record:
    """Draw and explain test prompt ``number``, draw it again without each word, and judge it and a real scene.

    The noise is that of seed ``setup.options.seed + number``.
    """
    options, pipeline = setup.options, setup.contender.pipeline
    prompt, seed = prompts(number + 1, options.seed, setup.size)[number], options.seed + number
    job = pipeline.job([prompt], [None], [seed], options.steps, options.guidance, options.update)
    (explanation,) = explain_job(pipeline, job, [prompt], [None], [seed])
    words = job.batch.words[0]
    image = explanation.image.float().cpu()
    error, right = judge_colour(image, words)
    scene = Scenes(setup.size, split, options.seed)[number]
    return {
        "scene": number,
        "prompt": prompt,
        "seed": seed,
        "budget": explanation.budget,
        "completeness": explanation.completeness,
        "reconstruction_mse": explanation.reconstruction_mse,
        "words": describe_words(explanation, job, effects_of_words(pipeline, job)),
        "colour_error": error,
        "colour_right": right,
        "objects": _objects(image, words),
        "real": _objects(from_pixels(scene.image), scene.words),
    }


def effects_of_words(pipeline: BcosDiffusionPipeline, job: Job) -> list[float]:
    """How much the picture of a job of one changes when each word is dropped from its start on: L2 norms."""
    changes = Ablations(whole_run(pipeline, job, 0), "drop").of_words()  # [words, 1, H, W]
    found: list[float] = changes.double().flatten(1).norm(dim=1).tolist()
    return found


def describe_words(explanation: Explanation, job: Job, effects: list[float]) -> list[Record]:
    """What each word gave to a picture, in every measure, and what changed when it was dropped.

    tokens: into how many it was cut; share: its absolute relevance (Eq. 8); others: as
    :class:`~bcos_diffusion.evaluation.faithfulness.WordEffect` has them.
    """
    batch, image = job.batch, explanation.trace.image
    positive: list[Part] = [part for part in explanation.words if not part.negative]
    return [
        vars(measure(part.text, part.map, image, effect))
        | {
            "group": group(part.text),
            "tokens": int((batch.word_index[0] == number).sum()),
            "share": part.relevance_absolute,
        }
        for number, (part, effect) in enumerate(zip(positive, effects, strict=True))
    ]


def _objects(image: Tensor, words: list[str]) -> Record:
    """How many named objects a matched filter finds in an image ``[3, H, W]``, and whether they stand as named."""
    return dict(zip(("found", "named", "relation"), judge_objects(image, words), strict=True))
