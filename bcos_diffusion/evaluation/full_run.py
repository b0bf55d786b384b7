"""Whole sampling runs: the budget, the mass of every word, and what dropping each word changes."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_diffusion.evaluation.colour import judge_colour
from bcos_diffusion.evaluation.presence import recall, relation_holds
from bcos_diffusion.evaluation.setup import Record, Setup
from bcos_diffusion.evaluation.words import group, without_each_word
from bcos_diffusion.explain import Explanation, Part, explain, mean_free
from bcos_diffusion.job import Job
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scene, Scenes, prompts
from bcos_diffusion.text import TextBatch


def record(setup: Setup, split: str, number: int) -> Record:
    """Draw and explain test prompt ``number``, draw it again without each word, and judge it and a real scene.

    The noise is that of seed ``setup.options.seed + number``.
    """
    options, pipeline = setup.options, setup.contender.pipeline
    prompt, seed = prompts(number + 1, options.seed)[number], options.seed + number
    explanation = explain(
        pipeline, prompt, seed=seed, steps=options.steps, guidance=options.guidance, update=options.update
    )
    job = pipeline.job([prompt], [None], [seed], options.steps, options.guidance, options.update)
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
        "words": describe_words(explanation, job, draw_without_each_word(pipeline, job)),
        "colour_error": error,
        "colour_right": right,
        "objects": judge_objects(image, words),
        "real": judge_objects(_rgb(scene), scene.words),
    }


def describe_words(explanation: Explanation, job: Job, redrawn: Tensor) -> list[Record]:
    """What each word gave to a picture, in three measures, and what changed when it was dropped, all L2 but mass.

    tokens: into how many it was cut; share: its absolute relevance (Eq. 8); mass: |c_i|; mean_free: norm of its
    mean-free map; norm: norm of its map; effect: norm of the change. redrawn: ``[words, 6, H, W]``.
    """
    batch, image = job.batch, explanation.trace.image.double()
    positive: list[Part] = [part for part in explanation.words if not part.negative]
    return [
        {
            "text": part.text,
            "group": group(part.text),
            "tokens": int((batch.word_index[0] == number).sum()),
            "share": part.relevance_absolute,
            "mass": abs(part.mass),
            "mean_free": float(mean_free(part.map.double(), image).norm()),
            "norm": float(part.map.double().norm()),
            "effect": float((image - changed.double()).norm()),
        }
        for number, (part, changed) in enumerate(zip(positive, redrawn, strict=True))
    ]


@torch.no_grad()
def draw_without_each_word(pipeline: BcosDiffusionPipeline, job: Job) -> Tensor:
    """The picture of a job of one, redrawn from its noise without each of its words: ``[words, 6, H, W]``."""
    dropped = without_each_word(job.batch[:1])
    count = len(dropped.mask)
    batches = [dropped] if job.rows == 1 else [dropped, *[job.batch[1:]] * count]
    text = pipeline.model.condition(TextBatch.concatenate(batches))
    # The sampler reads a prompt and its counterpart side by side.
    order = torch.arange(job.rows * count, device=text.mask.device).view(job.rows, count).t().flatten()
    text = Conditioning(text.values[order], text.keys[order], text.mask[order])
    first = job.first.expand(count, -1, -1, -1)
    return pipeline._sample(text, job.rows, first, job.steps, job.guidance, job.update, job.alpha_bar)


def judge_objects(image: Tensor, words: list[str]) -> Record:
    """How many of the named objects a matched filter finds in an image ``[3, H, W]``, and whether they stand as named."""
    found, named = recall(image, words)
    return {"found": found, "named": named, "relation": relation_holds(image, words)}


def _rgb(scene: Scene) -> Tensor:
    return torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
