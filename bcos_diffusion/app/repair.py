"""The search for a picture that has every word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from bcos_diffusion.app.ask import Ask
from bcos_diffusion.missing.calibration import Calibration
from bcos_diffusion.missing.ensure import TRIES, Candidate, Search, attempts, most_promising
from bcos_diffusion.missing.witness import Contributions
from bcos_diffusion.pipeline import BcosDiffusionPipeline


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
