"""Draw a picture and trace it while it is drawn: one pass, looked at after every step."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor

from bcos_diffusion.app.ask import Ask
from bcos_diffusion.explain import Explanation, explained
from bcos_diffusion.explanation.phrases import groups
from bcos_diffusion.explanation.trace import unstack
from bcos_diffusion.job import Job
from bcos_diffusion.missing.ensure import strengthen
from bcos_diffusion.missing.run import Run
from bcos_diffusion.pipeline import BcosDiffusionPipeline

MOST_FRAMES = 30
"""How many steps of a run are kept to look at; of longer runs, as many that are evenly spaced."""


@dataclass(frozen=True)
class Frame:
    """A moment of the run of a job. step: from 1; before: the stack of x_t and its parts before it,
    ``[S, 1, 6, H, W]``; explanation: of the x_0 predicted in it, which after the last step is the picture itself;
    spoken: the words that carry a value, by position among its words. Others give exactly nothing."""

    job: Job
    step: int
    before: Tensor
    explanation: Explanation
    spoken: tuple[int, ...]


@dataclass(frozen=True)
class Drawing:
    """A picture that was drawn, as the server keeps it for questions. before: by step, as in :class:`Frame`.

    strength: by word position, what the value of a word was multiplied by to bring it into the picture.
    """

    ask: Ask
    job: Job
    explanation: Explanation
    before: Mapping[int, Tensor]
    strength: Mapping[int, float]
    spoken: tuple[int, ...]

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that can be looked at, the last of which is the picture."""
        return tuple(self.before)


def shown_steps(steps: int) -> list[int]:
    """The steps of a run that are kept, counted from 1: the last one always."""
    count = min(steps, MOST_FRAMES)
    return [round(steps * (i + 1) / count) for i in range(count)]


def draw(
    pipeline: BcosDiffusionPipeline,
    ask: Ask,
    strength: Mapping[int, float] | None = None,
    lock: AbstractContextManager[object] | None = None,
) -> Iterator[Frame]:
    """Draw and yield the moments to look at, as they come; stops where the caller stops.

    lock: held while the network runs. Raises ValueError as :meth:`Ask.job`, and for a picture that is not finite.
    """
    lock = threading.Lock() if lock is None else lock
    job = strengthen(ask.job(pipeline), strength or {})
    run = Run(pipeline, job)
    kept = set(shown_steps(job.steps))
    sources = set(job.sources[0])
    spoken = tuple(i for i, group in enumerate(groups(job.prompts(0))) if sources & set(group.tokens))
    for step in range(1, job.steps + 1):
        before = run.state
        with lock:
            run.advance(step)
        if step not in kept:
            continue
        if not bool(run.predicted.isfinite().all()):
            raise ValueError("the picture has values that are not finite: too much guidance, or damaged weights")
        (traced,) = unstack(run.unet, run.predicted, job.sources, job.update)
        found = explained(pipeline, job, 0, traced, ask.prompt, ask.negative_prompt, ask.seed)
        yield Frame(job, step, before, found, spoken)


def finished(ask: Ask, frames: list[Frame], strength: Mapping[int, float] | None = None) -> Drawing:
    """What is kept of the frames of a whole run."""
    last, before = frames[-1], {frame.step: frame.before for frame in frames}
    return Drawing(ask, last.job, last.explanation, before, dict(strength or {}), last.spoken)
