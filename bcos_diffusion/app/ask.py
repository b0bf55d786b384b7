"""What a visitor asks for, checked before anything is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline

MOST_STEPS = 100
MOST_GUIDANCE = 10.0
LONGEST = 500
"""Characters of a prompt: several times what any tokenizer here takes, and too few to keep the server busy."""
LARGEST_SEED = 2**53 - 1
"""The largest integer that a browser holds exactly."""


@dataclass(frozen=True)
class Ask:
    """One picture to draw."""

    prompt: str
    negative_prompt: str | None
    seed: int
    steps: int
    guidance: float

    def job(self, pipeline: BcosDiffusionPipeline) -> Job:
        """The same for the sampler. Raises ValueError as :meth:`BcosDiffusionPipeline.job`."""
        return pipeline.job([self.prompt], [self.negative_prompt], [self.seed], self.steps, self.guidance)


def read(
    pipeline: BcosDiffusionPipeline, prompt: object, negative_prompt: object, seed: object, steps: object,
    guidance: object,
) -> Ask:  # fmt: skip
    """Read what came from the page, which may be anything.

    Raises ValueError for what the pipeline cannot draw: empty or long prompts, unknown words, numbers out of range.
    """
    asked = Ask(
        _text("prompt", prompt),
        _text("negative prompt", negative_prompt or "") or None,
        int(_number("seed", seed, 0, LARGEST_SEED)),
        int(_number("steps", steps, 1, MOST_STEPS)),
        _number("guidance", guidance, 0, MOST_GUIDANCE),
    )
    pipeline.tokenize(asked.prompt, asked.negative_prompt)
    return asked


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the {name} must be text")
    if len(value) > LONGEST:
        raise ValueError(f"the {name} has {len(value)} characters, at most {LONGEST} are accepted")
    return value.strip()


def _number(name: str, value: object, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number between {least} and {most}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be between {least} and {most}, got {value:g}")
    return value
