"""Which words a picture lacks, and the search for a picture that has them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from bcos_diffusion.app.ask import Ask
from bcos_diffusion.explain import Explanation
from bcos_diffusion.missing.calibration import Calibration
from bcos_diffusion.missing.ensure import TRIES, Candidate, Search, attempts, most_promising
from bcos_diffusion.missing.scoring import Scored, score_maps
from bcos_diffusion.missing.witness import Contributions
from bcos_diffusion.pipeline import BcosDiffusionPipeline


def scores(explanation: Explanation, calibration: Calibration | None) -> tuple[Scored, ...]:
    """How likely each content word of the prompt was drawn; nothing where the model has no calibration."""
    if calibration is None:
        return ()
    words = [part for part in explanation.words if not part.negative]
    return score_maps(torch.stack([part.map for part in words]), [part.text for part in words], calibration)


def search(
    pipeline: BcosDiffusionPipeline, ask: Ask, calibration: Calibration, lock: AbstractContextManager[object]
) -> Iterator[tuple[int, Candidate]]:
    """Look for a picture in which every object named is there: the number of tries so far, and the best of them.

    As ``pipeline.generate(ensure=True)``, whose errors it raises; the first try is the picture itself.
    """
    tries = attempts(
        pipeline, ask.prompt, Contributions(calibration), ask.seed, Search(TRIES), ask.negative_prompt,
        steps=ask.steps, guidance=ask.guidance,
    )  # fmt: skip
    while True:
        with lock:
            found = next(tries, None)
        if found is None:
            return
        yield len(found), most_promising(found)


def repaired(ask: Ask, best: Candidate) -> Ask:
    """What to ask for to draw the picture of a try, whose words are strengthened beside it."""
    return replace(ask, seed=best.attempt.seed)
