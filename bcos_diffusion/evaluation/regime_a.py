"""Regime A: denoise a real test scene in one step, where the mask of every word is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bcos_diffusion.diffusion import T, add_noise, paired_noise
from bcos_diffusion.encoding import encode
from bcos_diffusion.evaluation.words import is_content, without_each_word
from bcos_diffusion.explain import mean_free
from bcos_diffusion.explanation.attribution import contributions_of_words
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import COLOURS, Scene
from bcos_diffusion.scenes.lexicon import plural
from bcos_diffusion.text import TextBatch

SHARES = (0.2, 0.4, 0.6, 0.8)
"""Noise levels, as shares of T."""


@dataclass(frozen=True)
class Region:
    """Where one word should be the largest contributor: the number of the word and its pixels ``[H, W]``."""

    word: int
    mask: Tensor
    kind: str


@dataclass(frozen=True)
class OneStep:
    """A scene denoised at several noise levels, one per row.

    image: ``[N, 6, H, W]``, predicted; contributions: ``[words, N, 6, H, W]``; effects: ``[words, N]``, the
    L2 norm of the change when a word is dropped; mse: ``[N]``; words and regions: of the caption.
    """

    words: list[str]
    regions: list[Region]
    image: Tensor
    contributions: Tensor
    effects: Tensor
    mse: Tensor


def regions(scene: Scene, words: list[str]) -> list[Region]:
    """The visible pixels of each named object, and the background where its colour is named."""
    found: list[Region] = []
    for placed in scene.objects:
        named = [i for i, word in enumerate(words) if word in (placed.noun, plural(placed.noun))]
        if named and placed.mask is not None and placed.mask.any():
            found.append(Region(named[0], torch.from_numpy(placed.mask), "object"))
    if scene.background in words and scene.background in COLOURS:
        covered = np.any([p.mask for p in scene.objects if p.mask is not None], axis=0)
        if not covered.all():
            found.append(Region(words.index(scene.background), torch.from_numpy(~covered), "colour"))
    return found


def largest_word(contributions: Tensor, image: Tensor, mask: Tensor) -> int:
    """The word that pushes a region furthest from the image's mean colour towards its own; -1 where none does.

    contributions: ``[words, 6, H, W]``; image: ``[6, H, W]``; mask: ``[H, W]`` bool.
    """
    pushes = (mean_free(contributions, image).double() * mask).sum((-2, -1))  # [words]
    best = int(pushes.argmax())
    return best if pushes[best] > 0 else -1


@torch.no_grad()
def effects_of_words(
    pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor, x_hat: Tensor
) -> Tensor:
    """How much the prediction changes when each word is dropped, at the same x_t: L2 norms ``[words, N]``."""
    text = pipeline.model.condition(without_each_word(batch))
    count, n = len(text.mask), len(x_t)
    repeated = Conditioning(
        text.values.repeat_interleave(n, 0), text.keys.repeat_interleave(n, 0), text.mask.repeat_interleave(n, 0)
    )
    changed = pipeline.model.unet(x_t.repeat(count, 1, 1, 1), t.repeat(count), repeated)
    return (changed.unflatten(0, (count, n)) - x_hat).double().flatten(2).norm(dim=2)


def denoise_scene(pipeline: BcosDiffusionPipeline, scene: Scene, seed: int) -> OneStep:
    """Noise a scene to each level of :data:`SHARES` and attribute the predicted x_0; no guidance."""
    device = pipeline.model.device
    batch = pipeline.model.tokenizer.encode([scene.caption]).to(device)
    x_0 = encode(torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255)
    t = torch.tensor([round(share * T) - 1 for share in SHARES])
    noise = paired_noise((len(t), *x_0.shape[1:]), torch.Generator().manual_seed(seed))
    x_t = add_noise(x_0, t, noise, pipeline.alpha_bar.cpu()).to(device, pipeline.dtype)
    t, x_0 = t.to(device), x_0.to(device)
    x_hat, contributions = contributions_of_words(pipeline, batch, x_t, t)
    effects = effects_of_words(pipeline, batch, x_t, t, x_hat)
    mse = (x_hat.float() - x_0).pow(2).flatten(1).mean(1)
    words = batch.words[0]
    return OneStep(words, regions(scene, words), x_hat.cpu(), contributions.cpu(), effects.cpu(), mse.cpu())


@dataclass(frozen=True)
class Verdict:
    """Whether a region's own word was its largest contributor at one noise level, against how many rivals.

    kind: "object" or "colour"; rivals: the other content words of the caption, among which chance would choose.
    """

    kind: str
    level: float
    hit: bool
    rivals: int


def localisation(step: OneStep) -> list[Verdict]:
    """One verdict per region and noise level."""
    rivals = sum(is_content(word) for word in step.words) - 1
    return [
        Verdict(
            region.kind,
            share,
            largest_word(step.contributions[:, row], step.image[row], region.mask) == region.word,
            rivals,
        )
        for region in step.regions
        for row, share in enumerate(SHARES)
    ]
