"""Who says, between the steps of a run, which words were drawn: the explanation, or its rival, attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from bcos_diffusion.missing.calibration import Calibration
from bcos_diffusion.missing.heat import Heat, heat_features
from bcos_diffusion.missing.run import Run
from bcos_diffusion.missing.scoring import Scored, objects, score_maps


class Witness(Protocol):
    """Scores the words of runs of one picture. calibration: whose early checkpoint says when a try is hopeless;
    traced: whether runs must be traced."""

    calibration: Calibration
    traced: bool

    @contextmanager
    def watching(self, run: Run) -> Iterator[None]:
        """Watch a run from its first step on, in the block."""
        ...

    def scores(self, run: Run) -> tuple[Scored, ...]:
        """The probability that each content word is drawn in what is predicted now."""
        ...


@dataclass
class Contributions:
    """What words contributed to the x_0 predicted last."""

    calibration: Calibration
    traced: bool = True

    @contextmanager
    def watching(self, run: Run) -> Iterator[None]:
        """Nothing to do: the run itself has the contributions."""
        yield

    def scores(self, run: Run) -> tuple[Scored, ...]:
        """As :func:`bcos_diffusion.missing.scoring.score_maps`."""
        return score_maps(run.words(0), run.job.prompts(0).words[0], self.calibration, run.number / run.job.steps)


@dataclass
class Attention:
    """DAAM's heat maps of all steps so far; colours, which it does not judge, count as drawn."""

    calibration: Calibration
    traced: bool = False
    _heat: Heat = field(default_factory=Heat)

    @contextmanager
    def watching(self, run: Run) -> Iterator[None]:
        """Hear the attention of the run."""
        self._heat = Heat()
        with self._heat.listening(run.unet, run.job.rows):
            yield

    def scores(self, run: Run) -> tuple[Scored, ...]:
        """By the features of heat maps."""
        words = run.job.prompts(0).words[0]
        named = objects(words)
        checkpoint = self.calibration.at(run.number / run.job.steps)
        probabilities = checkpoint.probability(heat_features(self._heat.words(run.job)[0], named))
        return tuple(Scored(words[i], i, "object", float(p)) for i, p in zip(named, probabilities, strict=True))
