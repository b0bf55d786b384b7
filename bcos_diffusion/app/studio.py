"""What the server does for a page, with one model: draw, repair, ask a region, hear attention. Knows nothing of Gradio.

Many pages share one model and few cores. The lock lets one of them use the network at a time, for a step of a run, so
that a question about a finished picture is answered between two steps of another one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bcos_diffusion.app import payload
from bcos_diffusion.app.ask import Ask, read
from bcos_diffusion.app.attention import attention_maps
from bcos_diffusion.app.drawing import Drawing, draw, finished
from bcos_diffusion.app.region import pull_region
from bcos_diffusion.app.repair import repaired, search
from bcos_diffusion.app.vocabulary import examples
from bcos_diffusion.missing.calibration import Calibration
from bcos_diffusion.missing.ensure import TRIES, Candidate
from bcos_diffusion.missing.scoring import score
from bcos_diffusion.pipeline import BcosDiffusionPipeline

Message = dict[str, Any]


@dataclass(frozen=True)
class Looking:
    """A search on its way. number: of the try that is drawn."""

    number: int

    @property
    def text(self) -> str:
        """What a visitor reads."""
        return f"looking for a picture that has every word, try {self.number} of {TRIES}"

    @property
    def share(self) -> float:
        """How much of the search is done, at least."""
        return (self.number - 1) / TRIES


class Studio:
    """A model at work. calibration: tells which words a picture lacks; without it, nothing is said of that."""

    def __init__(self, pipeline: BcosDiffusionPipeline, calibration: Calibration | None = None):
        pipeline.model.unet.check_explainable()
        self.pipeline, self.calibration = pipeline, calibration
        self.lock = threading.Lock()
        self.examples = examples(pipeline)

    def read(self, *values: object) -> Ask:
        """As :func:`bcos_diffusion.app.ask.read`."""
        return read(self.pipeline, *values)

    def welcome(self) -> tuple[Message, Drawing]:
        """The picture that a page opens with: the first example."""
        defaults = self.pipeline.defaults
        ask = self.read(self.examples[0], None, 0, defaults.steps, defaults.guidance)
        *_, (message, drawing) = self.picture(ask)
        assert drawing is not None
        return message, drawing

    def picture(
        self, ask: Ask, strength: Mapping[int, float] | None = None
    ) -> Iterator[tuple[Message, Drawing | None]]:
        """Draw: previews, and at last the whole picture with what is kept of it. Raises ValueError as ``draw``."""
        frames, packed = [], []
        for frame in draw(self.pipeline, ask, strength, self.lock):
            frames.append(frame)
            packed.append(payload.frame_maps(frame))
            if frame.step < ask.steps:
                yield payload.preview(frame), None
        drawing = finished(ask, frames, strength)
        scored = score(drawing.explanation, self.calibration) if self.calibration is not None else ()
        yield payload.whole(drawing, packed, scored), drawing

    def repair(self, drawing: Drawing) -> Iterator[Looking | str | tuple[Message, Drawing | None]]:
        """Look for a picture that has all words: how far the search is, the picture if it is a better one, as
        :meth:`picture`, and at last what came of it. Raises ValueError without a calibration.
        """
        if self.calibration is None:
            raise ValueError("this model has no calibration of missing words, so nothing can be judged")
        yield Looking(1)
        best: Candidate | None = None
        for count, candidate in search(self.pipeline, drawing.ask, self.calibration, self.lock):
            best = candidate
            yield Looking(min(count + 1, TRIES))
        assert best is not None
        tried = best.attempt
        if tried.seed == drawing.ask.seed and dict(tried.strength) == dict(drawing.strength):
            yield f"{TRIES} tries were no better: this picture stays"
            return
        yield from self.picture(repaired(drawing.ask, best), tried.strength)
        lacking = ", ".join(scored.word for scored in tried.missing)
        said = f"still missing after {TRIES} tries: {lacking}" if lacking else "every word is drawn now"
        yield f"{said} (seed {tried.seed})"

    def region(self, drawing: Drawing, box: object, step: object) -> Message:
        """As :func:`pull_region`, for a box and a step that may be anything; raises ValueError for what is no box."""
        if not isinstance(step, int) or not isinstance(box, list) or len(box) != 4:
            raise ValueError("a region is a step and a box: left, top, right and bottom in pixels")
        left, top, right, bottom = (_whole(value) for value in box)
        with self.lock:
            return pull_region(self.pipeline, drawing, step, (left, top, right, bottom)).to_dict()

    def attention(self, drawing: Drawing) -> Iterator[Message | None]:
        """DAAM's maps of a picture: nothing until the last step, then all of them."""
        frames = []
        for step, maps in attention_maps(self.pipeline, drawing, self.lock):
            frames.append(payload.attention_frame(step, maps, drawing.spoken))
            yield None
        yield {"frames": frames}


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("a box has whole numbers of pixels")
    return value
