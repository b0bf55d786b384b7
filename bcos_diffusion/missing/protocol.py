"""The whole of it for one model: draw a corpus, calibrate, and measure separation and gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.missing.calibration import Calibration
from bcos_diffusion.missing.fit import fit
from bcos_diffusion.missing.gain import gain, strengthening
from bcos_diffusion.missing.induced import can_forget, induced
from bcos_diffusion.missing.judged import Judged, judge_observed
from bcos_diffusion.missing.measure import measure
from bcos_diffusion.missing.observe import Advance, observe
from bcos_diffusion.pipeline import BcosDiffusionPipeline


@dataclass(frozen=True)
class Sizes:
    """How much is drawn: pictures to calibrate on and to measure on, prompts to ensure, pictures to strengthen, and
    pictures of prompts with forgotten words."""

    validation: int = 400
    test: int = 300
    prompts: int = 40
    strengthened: int = 20
    induced: int = 100


def judged(
    pipeline: BcosDiffusionPipeline,
    segmenter: Segmenter,
    split: str,
    count: int,
    cache: Path | None = None,
    advance: Advance = lambda pictures: None,
) -> Sequence[Judged]:
    """Pictures of a split, drawn, looked at and judged; arguments and errors as for ``observe``."""
    return judge_observed(segmenter, observe(pipeline, split, count, cache=cache, advance=advance))


def calibrate(
    pipeline: BcosDiffusionPipeline,
    segmenter: Segmenter,
    count: int = Sizes.validation,
    cache: Path | None = None,
    advance: Advance = lambda pictures: None,
) -> Calibration:
    """The calibration of a model, on ``count`` validation pictures."""
    return fit(pipeline, judged(pipeline, segmenter, "validation", count, cache, advance), segmenter)


def measure_missing(
    pipeline: BcosDiffusionPipeline,
    segmenter: Segmenter,
    sizes: Sizes = Sizes(),
    cache: Path | None = None,
    advance: Advance = lambda pictures: None,
) -> dict[str, Any]:
    """Calibrate on validation pictures, and measure on test pictures: ``separation``, ``gain`` and ``strengthening``.

    ``induced`` is the separation of words that were forgotten, for a model whose words are its own.

    cache: a folder where what was drawn is kept, so that a second call draws nothing; advance: called with how many
    pictures are new.
    """
    known = judged(pipeline, segmenter, "validation", sizes.validation, cache, advance)
    exact, heat = (fit(pipeline, known, segmenter, source) for source in ("exact", "heat"))
    test = judged(pipeline, segmenter, "test", sizes.test, cache, advance)
    found: dict[str, Any] = {}
    if can_forget(pipeline):
        unlearned = induced(pipeline, segmenter, sizes.induced, cache, advance)
        found["induced"] = measure(unlearned, exact, heat, segmenter, pipeline.defaults.steps)
    return found | {
        "separation": measure(test, exact, heat, segmenter, pipeline.defaults.steps),
        "gain": gain(pipeline, segmenter, exact, heat, sizes.prompts, cache=cache, advance=advance),
        "strengthening": strengthening(pipeline, segmenter, known, sizes.strengthened),
    }
