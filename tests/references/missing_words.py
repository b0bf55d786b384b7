"""Calibrations and witnesses of which a test knows what they will say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bcos_diffusion.missing.calibration import Calibration, Checkpoint, fingerprint
from bcos_diffusion.missing.features import NAMES
from bcos_diffusion.missing.logistic import Logistic
from bcos_diffusion.missing.run import Run
from bcos_diffusion.missing.scoring import Scored, objects
from bcos_diffusion.pipeline import BcosDiffusionPipeline


def calibration(pipeline: BcosDiffusionPipeline, bias: float = 0.0, abort_below: float = 0.3) -> Calibration:
    """One that looks at the share alone."""
    logistic = Logistic(NAMES, (0.0,) * 5, (1.0,) * 5, (0.0, 4.0, 0.0, 0.0, 0.0), bias)
    points = tuple(Checkpoint(share, logistic, (1.0, 0.0), abort_below) for share in (0.2, 0.4, 1.0))
    return Calibration(pipeline.name, fingerprint(pipeline.model), points, {"pictures": 0})


class Scripted:
    """A witness that says of the objects what it was told to: one list per look, by try."""

    traced = True

    def __init__(self, calibration: Calibration, script: list[list[float]]):
        self.calibration, self.script, self.looks = calibration, list(script), []

    @contextmanager
    def watching(self, run: Run) -> Iterator[None]:
        yield

    def scores(self, run: Run) -> tuple[Scored, ...]:
        words = run.job.prompts(0).words[0]
        self.looks.append((run.number, run.job))
        said = self.script.pop(0)
        return tuple(Scored(words[i], i, "object", p) for i, p in zip(objects(words), said, strict=True))
