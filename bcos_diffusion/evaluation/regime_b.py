"""Regime B: draw the caption of a scene freely, and ask a segmenter where its objects came to be."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from bcos_diffusion.baselines.subject import whole_run
from bcos_diffusion.evaluation.clock import timed
from bcos_diffusion.evaluation.drawn_objects import named_objects, objects_of, usual_area
from bcos_diffusion.evaluation.effects import Effects
from bcos_diffusion.evaluation.localised import localise
from bcos_diffusion.evaluation.setup import Contender, Record, Segmenter, Setup
from bcos_diffusion.evaluation.truth import Mask, described, regions
from bcos_diffusion.evaluation.words import SINGULAR, group, is_content
from bcos_diffusion.scenes import Scenes

REMOVALS = ("drop",)
"""How words are taken out of whole runs, where each set of words is a picture to draw."""


def record(setup: Setup, split: str, number: int) -> Record:
    """Draw the caption of scene ``number`` of a split from seed ``setup.options.seed + number``, and judge the maps.

    Words whose object was not drawn have no region; they are counted in ``named`` alone.
    """
    scene = Scenes(setup.size, split, setup.options.seed)[number]
    kept: Record = {"scene": number, "caption": scene.caption}
    for name, contender in setup.contenders.items():
        kept[name] = _record_of_model(setup, contender, scene.caption, number, split)
    return kept


def drawn_masks(segmenter: Segmenter, image: Tensor, words: list[str]) -> dict[str, Mask]:
    """The regions of those object and colour words of a caption that were drawn, by the segmenter's own measure.

    image: rgb ``[3, H, W]``. Fewer pixels than an object of its kind has at least are no object, but a mistake.
    """
    total, side = objects_of(named_objects(words)), min(image.shape[1:])
    asked = [word for word in words if group(word) in ("object", "colour")]
    masks = {word: np.asarray(mask, bool) for word, mask in segmenter.masks(image, asked).items()}
    return {
        word: mask
        for word, mask in masks.items()
        if group(word) == "colour" or mask.sum() >= segmenter.present_share * usual_area(SINGULAR[word], total, side)
    }


def _record_of_model(setup: Setup, contender: Contender, caption: str, number: int, split: str) -> Record:
    options, pipeline, seed = setup.options, contender.pipeline, setup.options.seed + number
    job = pipeline.job([caption], [None], [seed], options.steps, options.guidance, options.update)
    words = job.batch.words[0]
    assert setup.segmenter is not None
    image = pipeline.draw(job)[0].float().cpu()
    found = regions(words, drawn_masks(setup.segmenter, image, words))
    effects = Effects(whole_run(pipeline, job, 0), REMOVALS if split == "test" else (), seed)
    methods: Record = {}
    for name, method in setup.methods(contender, number, options.costly_runs).items():
        (attributed,), seconds = timed(pipeline.model.device, seed, partial(method.draw, pipeline, job))
        methods[name] = {
            "seconds": seconds,
            **localise(attributed.maps.float().cpu().numpy(), words, found),
            "faithfulness": effects.judged(attributed),
        }
    return {
        "named": sum(group(word) == "object" for word in words),
        "drawn": sum(region.kind == "object" for region in found),
        "content_words": sum(map(is_content, words)),
        "regions": described(found),
        "methods": methods,
    }
