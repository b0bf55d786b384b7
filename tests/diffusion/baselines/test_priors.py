"""Priors know nothing of the picture, and are the same wherever they are asked for."""

import math

import pytest
import torch

from bcos_diffusion.baselines.priors import Centre, Random
from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline

PROMPTS = ["a cat left of broccolis", "dog on blue background"]


def job(pipeline: BcosDiffusionPipeline, prompts: list[str] = PROMPTS, first_seed: int = 0) -> Job:
    seeds = range(first_seed, first_seed + len(prompts))
    return pipeline.job(prompts, [None] * len(prompts), seeds, 2, 2.5, size=(8, 24))


def test_noise_is_uniform_and_independent(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    made = job(every_pipeline["unet"], PROMPTS * 20)
    found = Random().draw(every_pipeline["unet"], made)
    values = torch.cat([one.maps.flatten(1) for one in found])  # [words, pixels]
    assert found[0].maps.shape == (5, 1, 8, 24) and len(found) == len(made) == 40
    assert values.min() >= 0 and values.max() < 1
    assert abs(float(values.mean()) - 0.5) < 5 * math.sqrt(1 / 12 / values.numel())
    assert abs(float(values.var()) - 1 / 12) < 0.002
    between = torch.corrcoef(values)
    assert (between - torch.eye(len(values))).abs().max() < 5.5 / math.sqrt(values.shape[1])
    torch.testing.assert_close(found[0].scores, found[0].maps.mean((-2, -1)))


def test_noise_depends_on_seed_and_picture_alone(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    pipeline = every_pipeline["unet"]
    together, alone = Random().draw(pipeline, job(pipeline)), Random().draw(pipeline, job(pipeline, PROMPTS[1:], 1))
    assert torch.equal(together[1].maps, alone[0].maps)
    assert not torch.equal(Random(1).draw(pipeline, job(pipeline))[1].maps, together[1].maps)
    made = job(pipeline)
    states, t = made.first[[0, 0, 1]], torch.tensor([5, 9, 5])
    found = Random().denoise(pipeline, made.prompts(0)[:1], states, t).maps
    again = Random().denoise(pipeline, made.prompts(0)[:1], states[1:2], t[1:2]).maps
    assert torch.equal(found[:, 1:2], again)
    assert len({tuple(row.flatten().tolist()) for row in found.unbind(1)}) == 3


@pytest.mark.parametrize("spread", [0.1, 0.25])
def test_the_centre_is_a_gaussian(every_pipeline: dict[str, BcosDiffusionPipeline], spread: float) -> None:
    pipeline = every_pipeline["unet"]
    made = job(pipeline)
    found = Centre(spread).draw(pipeline, made)[0]
    assert found.maps.shape == (5, 1, 8, 24) and found.scores.shape == (5, 1)
    for y in range(8):
        for x in range(24):
            down, across = ((y + 0.5) / 8 - 0.5) / spread, ((x + 0.5) / 24 - 0.5) / spread
            expected = math.exp(-(down**2 + across**2) / 2)
            torch.testing.assert_close(found.maps[:, 0, y, x], torch.full((5,), expected))
    assert (found.scores == found.scores[0]).all()
    states = Centre(spread).denoise(pipeline, made.prompts(0)[:1], made.first, torch.tensor([5, 9]))
    assert torch.equal(states.maps[:, :1], found.maps) and torch.equal(states.maps[:, 1:], found.maps)


def test_a_spread_must_be_positive() -> None:
    with pytest.raises(ValueError, match="spread must be positive, got 0"):
        Centre(0)
