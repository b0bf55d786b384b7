"""Guidance that ends before the run does: what it draws, and that its pictures are explained as exactly."""

from pathlib import Path

import pytest
import torch
from references.networks import step
from references.tiny import tiny_pipeline
from torch import Tensor

from bcos_diffusion.diffusion import Guidance, ddim_step, ddim_timesteps
from bcos_diffusion.encoding import decode
from bcos_diffusion.explain import explain
from bcos_diffusion.explanation.backward import pull_back
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults

PROMPT, NEGATIVE = "a cat on a blue background", "dog"
STEPS, SCALE, BELOW = 4, 2.5, 499  # steps at 999, 749, 499 and 249: only the last is not guided


def pipeline_that_stops(below: int = BELOW) -> BcosDiffusionPipeline:
    pipeline = tiny_pipeline()
    pipeline.defaults = Defaults(STEPS, SCALE, unguided_below=below)
    return pipeline


def by_hand(pipeline: BcosDiffusionPipeline, seed: int, scales: list[float]) -> Tensor:
    model, alpha_bar = pipeline.model, pipeline.alpha_bar.double()
    prompt, negative = (model.condition(model.tokenizer.encode([text])) for text in (PROMPT, NEGATIVE))
    x_t = pipeline.initial_noise(seed)[None]
    timesteps = ddim_timesteps(STEPS)
    for number, (t, scale) in enumerate(zip(timesteps, scales, strict=True)):
        time = torch.tensor([t])
        said, held = step(pipeline, prompt, x_t, time), step(pipeline, negative, x_t, time)
        end = alpha_bar[timesteps[number + 1]] if number + 1 < STEPS else torch.ones((), dtype=torch.float64)
        x_t = ddim_step(x_t, held + scale * (said - held), alpha_bar[t], end)
    return decode(x_t)[0].clamp(0, 1)


def test_the_scale_holds_down_to_a_timestep_and_no_further() -> None:
    guidance = Guidance(3.0, 150)
    assert [guidance.at(t) for t in (999, 151, 150, 149, 0)] == [3.0, 3.0, 3.0, 1.0, 1.0]
    assert [Guidance(3.0).at(t) for t in (999, 0)] == [3.0, 3.0]


@pytest.mark.parametrize(
    ("below", "scales"),
    [(0, [SCALE] * 4), (BELOW, [SCALE] * 3 + [1.0]), (BELOW + 1, [SCALE] * 2 + [1.0] * 2), (1000, [1.0] * 4)],
)
def test_steps_below_it_are_drawn_from_the_prompt_alone(below: int, scales: list[float]) -> None:
    pipeline = pipeline_that_stops(below)
    drawn = pipeline.generate([PROMPT], NEGATIVE, seed=5)[0]
    torch.testing.assert_close(drawn, by_hand(pipeline, 5, scales), rtol=0, atol=1e-9)


def test_a_run_is_explained_as_exactly() -> None:
    pipeline = pipeline_that_stops()
    found = explain(pipeline, PROMPT, NEGATIVE, seed=5)
    torch.testing.assert_close(found.image, pipeline.generate([PROMPT], NEGATIVE, seed=5)[0], rtol=0, atol=1e-9)
    assert found.completeness < 1e-12
    job = pipeline.job([PROMPT], [NEGATIVE], [5])
    back = pull_back(pipeline.model.unet, job.text, job.first, job.alpha_bar, job.steps, job.guidance, job.update)
    assert back.tokens[:3, 0, 1].any() and not back.tokens[3, 0, 1].any()  # the counterpart is not heard at the end
    for source, pushed in zip(found.trace.sources, found.trace.tokens, strict=True):
        pulled = back.tokens[:, 0, source.row, source.position].sum()
        torch.testing.assert_close(pulled, pushed.sum(), rtol=1e-9, atol=1e-9)
    assert (found.to_dict()["guidance"], found.to_dict()["unguided_below"]) == (SCALE, BELOW)


def test_it_is_kept_beside_the_weights(tmp_path: Path) -> None:
    pipeline = pipeline_that_stops()
    pipeline.save_pretrained(tmp_path)
    loaded = BcosDiffusionPipeline.from_pretrained(tmp_path, torch.float64)
    assert loaded.job([PROMPT], [None], [0]).guidance == Guidance(SCALE, BELOW)
    assert loaded.job([PROMPT], [None], [0], guidance=1.5).guidance == Guidance(1.5, BELOW)
