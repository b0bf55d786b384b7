"""Regime A: denoise a real scene in one step, where the mask of every word is known exactly."""

from __future__ import annotations

import numpy as np
import torch

from bcos_diffusion.diffusion import predicted_x_0
from bcos_diffusion.evaluation.clock import timed
from bcos_diffusion.evaluation.judge import judge
from bcos_diffusion.evaluation.noised import Noised, noise_scene
from bcos_diffusion.evaluation.setup import Contender, Record, Setup
from bcos_diffusion.evaluation.truth import Region, described, regions
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes


def record(setup: Setup, split: str, number: int) -> Record:
    """Noise scene ``number`` of a split, attribute the x_0 that is predicted at every level, and judge the maps.

    The noise is that of seed ``setup.options.seed + number``, for both models alike.
    """
    seed = setup.options.seed + number
    scene = Scenes(setup.size, split, setup.options.seed)[number]
    found = regions(scene.words, scene.masks)
    kept: Record = {"scene": number, "caption": scene.caption}
    for name, contender in setup.contenders.items():
        noised = noise_scene(contender.pipeline, scene, seed)
        kept[name] = _record_of_model(setup, contender, noised, found, number, split)
    return kept


def _record_of_model(
    setup: Setup, contender: Contender, noised: Noised, found: list[Region], number: int, split: str
) -> Record:
    """What the methods of one model say of a noised scene; effects of words on the test split alone."""
    pipeline, seed, words = contender.pipeline, setup.options.seed + number, noised.batch.words[0]
    methods: Record = {}
    for name, method in setup.methods(contender, number).items():
        work = lambda method=method: method.denoise(pipeline, noised.batch, noised.x_t, noised.t)  # noqa: E731
        attributed, seconds = timed(pipeline.model.device, seed, work)
        methods[name] = {"seconds": seconds} | judge(attributed.maps.float().cpu().numpy(), words, found)
    return {"mse": denoising_mse(pipeline, noised), "regions": described(found), "methods": methods}


@torch.no_grad()
def denoising_mse(pipeline: BcosDiffusionPipeline, noised: Noised) -> np.ndarray:
    """Mean squared error of the predicted x_0 over six channels, at every level: ``[N]``."""
    text = type(noised.batch).concatenate([noised.batch] * len(noised.t))
    predicted = pipeline.model(noised.x_t, noised.t, text)
    alpha_bar = pipeline.alpha_bar.to(noised.x_t)[noised.t][:, None, None, None]
    x_hat = predicted_x_0(predicted, noised.x_t, alpha_bar, pipeline.model.unet.predicts, pipeline.defaults.update)
    return (x_hat.double() - noised.x_0).pow(2).flatten(1).mean(1).cpu().numpy()
