"""Regime A: denoise a real scene in one step, where the mask of every word is known exactly."""

from __future__ import annotations

from functools import partial

from bcos_diffusion.baselines.removal import REMOVALS
from bcos_diffusion.baselines.subject import one_step
from bcos_diffusion.evaluation.clock import timed
from bcos_diffusion.evaluation.effects import Effects
from bcos_diffusion.evaluation.localised import localise
from bcos_diffusion.evaluation.noised import Noised, noise_scene
from bcos_diffusion.evaluation.setup import Contender, Record, Setup
from bcos_diffusion.evaluation.truth import Region, described, regions
from bcos_diffusion.evaluation.words import is_content
from bcos_diffusion.scenes import Scenes


def record(setup: Setup, split: str, number: int) -> Record:
    """Noise scene ``number`` of a split, attribute the x_0 that is predicted at every level, and judge the maps.

    The noise is that of seed ``setup.options.seed + number``, for both models alike. Effects of words are found on the
    test split alone.
    """
    return record_with(setup, split, number, REMOVALS if split == "test" else ())


def record_with(setup: Setup, split: str, number: int, removals: tuple[str, ...]) -> Record:
    """:func:`record` with the effects of words that are taken out in these ways."""
    seed = setup.options.seed + number
    scene = Scenes(setup.size, split, setup.options.seed)[number]
    found = regions(scene.words, scene.masks)
    kept: Record = {"scene": number, "caption": scene.caption}
    for name, contender in setup.contenders.items():
        noised = noise_scene(contender.pipeline, scene, seed)
        kept[name] = _record_of_model(setup, contender, noised, found, number, removals)
    return kept


def _record_of_model(
    setup: Setup, contender: Contender, noised: Noised, found: list[Region], number: int, removals: tuple[str, ...]
) -> Record:
    """What the methods of one model say of a noised scene."""
    pipeline, seed, words = contender.pipeline, setup.options.seed + number, noised.batch.words[0]
    subject = one_step(pipeline, noised.batch, noised.x_t, noised.t)
    effects = Effects(subject, removals, seed)
    methods: Record = {}
    for name, method in setup.methods(contender, number, setup.options.costly_scenes).items():
        work = partial(method.denoise, pipeline, noised.batch, noised.x_t, noised.t)
        attributed, seconds = timed(pipeline.model.device, seed, work)
        methods[name] = {
            "seconds": seconds,
            **localise(attributed.maps.float().cpu().numpy(), words, found),
            "faithfulness": effects.judged(attributed),
        }
    mse = (subject.image().double() - noised.x_0).pow(2).flatten(1).mean(1)
    return {
        "mse": mse.tolist(),
        "content_words": sum(map(is_content, words)),
        "regions": described(found),
        "methods": methods,
    }
