"""Whole sampling runs: the budget, the mass of every word, and what dropping each word changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.evaluation.faithfulness import WordEffect, measure
from bcos_diffusion.evaluation.words import group, without_each_word
from bcos_diffusion.explain import Explanation, Part, explain
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import COLOURS
from bcos_diffusion.text import TextBatch


@dataclass(frozen=True)
class Word:
    """One word of one prompt. tokens: into how many it was cut; share: its absolute relevance (Eq. 8)."""

    text: str
    group: str
    tokens: int
    share: float
    measured: WordEffect


@dataclass(frozen=True)
class Run:
    """One prompt, drawn. image: rgb ``[3, H, W]``; words: in order; colour_error: None where no colour is named."""

    prompt: str
    seed: int
    budget: dict[str, float]
    completeness: float
    reconstruction_mse: float
    words: list[Word]
    image: Tensor
    colour_error: float | None
    colour_right: bool | None


@torch.no_grad()
def draw_without_each_word(
    pipeline: BcosDiffusionPipeline, prompt: str, seed: int, steps: int | None = None, guidance: float | None = None
) -> Tensor:
    """The image of a prompt redrawn from one x_T without each of its words: ``[words, 6, H, W]``."""
    steps, guidance, update = pipeline._settings(steps, guidance, None)
    tokenizer, model = pipeline.model.tokenizer, pipeline.model
    dropped = without_each_word(tokenizer.encode([prompt]))
    count = len(dropped.mask)
    rows = 1 if guidance == 1.0 else 2
    batches = [dropped] if rows == 1 else [dropped, tokenizer.encode_null(count)]
    text = model.condition(TextBatch.concatenate(batches).to(model.device))
    # The sampler reads a prompt and its counterpart side by side.
    order = torch.arange(rows * count, device=model.device).view(rows, count).t().flatten()
    text = Conditioning(text.values[order], text.keys[order], text.mask[order])
    x_T = pipeline.initial_noise(seed).expand(count, -1, -1, -1)
    return pipeline._sample(text, rows, x_T, steps, guidance, update)


def background_colour(image: Tensor) -> Tensor:
    """The median colour ``[3]`` of the outermost pixels of an image ``[3, H, W]``: most are canvas."""
    edge = torch.cat([image[:, 0], image[:, -1], image[:, 1:-1, 0], image[:, 1:-1, -1]], dim=1)
    return edge.median(dim=1).values


def judge_colour(image: Tensor, words: list[str]) -> tuple[float | None, bool | None]:
    """Distance (RMS over channels) of the background to the first colour named, and whether it is the nearest."""
    named = next((word for word in words if word in COLOURS), None)
    if named is None:
        return None, None
    seen = background_colour(image)
    errors = {colour: float((seen - torch.tensor(rgb) / 255).pow(2).mean().sqrt()) for colour, rgb in COLOURS.items()}
    return errors[named], min(errors, key=lambda colour: errors[colour]) == named


def run_prompt(
    pipeline: BcosDiffusionPipeline, prompt: str, seed: int, steps: int | None = None, guidance: float | None = None
) -> Run:
    """Draw a prompt, explain it, and draw it again without each word."""
    explanation = explain(pipeline, prompt, seed=seed, steps=steps, guidance=guidance)
    redrawn = draw_without_each_word(pipeline, prompt, seed, steps, guidance)
    positive = [part for part in explanation.words if not part.negative]
    batch = pipeline.model.tokenizer.encode([prompt])
    counts = [int((batch.word_index[0] == number).sum()) for number in range(len(positive))]
    words = [
        _describe(part, count, explanation, changed)
        for part, count, changed in zip(positive, counts, redrawn, strict=True)
    ]
    image = explanation.image.float().cpu()
    error, right = judge_colour(image, batch.words[0])
    return Run(
        prompt, seed, explanation.budget, explanation.completeness, explanation.reconstruction_mse, words, image,
        error, right,
    )  # fmt: skip


def _describe(part: Part, tokens: int, explanation: Explanation, changed: Tensor) -> Word:
    image = explanation.trace.image
    effect = float((image - changed).double().norm())
    return Word(
        part.text, group(part.text), tokens, part.relevance_absolute, measure(part.text, part.map, image, effect)
    )
