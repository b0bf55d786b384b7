"""One vector-Jacobian product gives what the maps of the forward trace give."""

import pytest
from references.tiny import tiny_pipeline

from bcos_diffusion.app.ask import read
from bcos_diffusion.app.drawing import Drawing, Frame, draw, finished
from bcos_diffusion.app.region import pull_region
from bcos_diffusion.app.studio import Studio
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults

PROMPT = "a cat left of broccolis on blue"
BOX = (2, 3, 9, 11)


def frames_of(pipeline: BcosDiffusionPipeline, guidance: float = 2.5) -> tuple[list[Frame], Drawing]:
    ask = read(pipeline, PROMPT, "dog", 5, 4, guidance)
    frames = list(draw(pipeline, ask))
    return frames, finished(ask, frames)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_a_region_is_the_sum_of_the_maps_at_every_step(exact: BcosDiffusionPipeline, guidance: float) -> None:
    frames, drawing = frames_of(exact, guidance)
    for frame in frames:
        found = pull_region(exact, drawing, frame.step, BOX)
        expected = {(s.text, s.negative): s for s in frame.explanation.words_for(BOX).words}
        push = frame.explanation.trace.image.double()
        direction = push - push.mean(dim=(-2, -1), keepdim=True)
        left, top, right, bottom = BOX
        total = float((push * direction)[:, top:bottom, left:right].sum())
        assert found.total["push"] == pytest.approx(total, abs=1e-10)
        for part, pulled in zip(frame.explanation.words, found.words, strict=True):
            share = expected[part.text, part.negative]
            if [word.text for word in frame.explanation.words].count(part.text) == 1:
                assert pulled["mass"] == pytest.approx(share.mass, abs=1e-9)
                assert pulled["push"] == pytest.approx(share.push * total, abs=1e-9)
        assert found.error < 1e-12


def test_words_noise_and_constants_sum_to_the_total(exact: BcosDiffusionPipeline) -> None:
    additive = tiny_pipeline(time_conditioning="additive")
    standard = BcosDiffusionPipeline(exact.model, Defaults(3, 2.5, "standard"), "standard")
    for pipeline, has_constants in ((exact, False), (additive, True), (standard, True)):
        _, drawing = frames_of(pipeline)
        found = pull_region(pipeline, drawing, 4, BOX)
        for measure in ("push", "mass"):
            parts = sum(word[measure] for word in found.words) + sum(o[measure] for o in found.others.values())
            assert parts == pytest.approx(found.total[measure], abs=1e-10)
        report = {s.text: s.mass for s in drawing.explanation.words_for(BOX).others}
        constants = found.others["time and constants"]["mass"]
        assert constants == pytest.approx(report["time"] + report["other"], abs=1e-9)
        assert found.others["noise"]["mass"] == pytest.approx(report["x_T"], abs=1e-9)
        assert (abs(constants) > 1e-6) == has_constants


@pytest.mark.parametrize(
    ("box", "step", "said"),
    [
        ([0, 0, 25, 3], 3, "the box must be left, top, right, bottom"),
        ([3, 0, 3, 3], 3, "the box must be left, top, right, bottom"),
        ([0, 0, 1, 1], 9, "step must be one of 1, 2, 3, got 9"),
        ([0.5, 0, 1, 1], 3, "whole numbers"),
        ("everything", 3, "a region is a step and a box"),
        ([0, 0, 1, 1], None, "a region is a step and a box"),
    ],
)
def test_what_is_no_region_is_said(studio: Studio, drawing: Drawing, box: object, step: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        studio.region(drawing, box, step)
