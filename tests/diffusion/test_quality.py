"""Image quality beside held-out scenes: distances with intervals, and what pictures show."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bcos_diffusion.evaluation.drawn_objects import judge
from bcos_diffusion.evaluation.quality import (
    accuracy,
    kernel_distance,
    quality,
    segmenter_features,
    with_interval,
)
from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.paper.distance import frechet
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes

pytest.importorskip("torch_fidelity")


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.load()


def test_a_pipeline_of_random_weights_is_far_below_real_scenes(model: Path) -> None:
    told: list[int] = []
    pipeline = BcosDiffusionPipeline.from_pretrained(model)
    found = quality(pipeline, count=20, seed=3, advance=told.append)
    drawn, real = found["drawn"], found["real"]
    assert sum(told) == 20 and found["count"] == 20 and found["segmenter"] == Segmenter.load().name
    assert found["segmenter_miou"] == Segmenter.load().card["scores"]["miou"]
    assert set(drawn["frechet"]) == set(drawn["kernel"]) == {Segmenter.load().name, "random-convnet"}
    for kind in ("frechet", "kernel"):
        for name, value in drawn[kind].items():
            assert value["low"] < value["value"] < value["high"]
            assert value["low"] > real[kind][name]["high"]
    assert real["objects"]["value"] >= 0.95 and drawn["objects"]["value"] <= 0.3
    assert real["colour"]["value"] >= 0.95 and real["relation"]["value"] >= 0.9
    assert quality(pipeline, count=20, seed=3)["drawn"] == drawn


def test_it_tells_mistakes_before_drawing(model: Path) -> None:
    with pytest.raises(ValueError, match="at least 8, got 3"):
        quality(BcosDiffusionPipeline.from_pretrained(model), count=3)


def test_accuracy_counts_what_captions_name(segmenter: Segmenter) -> None:
    scenes = [Scenes(size=32, split="test")[i] for i in range(60)]
    images = torch.from_numpy(np.stack([s.image for s in scenes])).permute(0, 3, 1, 2).float() / 255
    words = [s.words for s in scenes]
    right = accuracy(judge(segmenter, images, words), words)
    assert all(right[kind]["value"] >= 0.9 for kind in ("objects", "counts", "colour", "relation"))
    assert right["extra"]["value"] <= 0.05
    shuffled = words[1:] + words[:1]
    wrong = accuracy(judge(segmenter, images, shuffled), shuffled)
    assert wrong["objects"]["value"] <= 0.1 and wrong["extra"]["value"] >= 1 and wrong["colour"]["value"] <= 0.4


def test_distances_are_those_of_their_definitions() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((40, 5)) + 0.5

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 5 + 1) ** 3)

    within = [np.mean([k(p[i], p[j]) for i in range(40) for j in range(40) if i != j]) for p in (x, y)]
    across = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(sum(within) - 2 * across)


def test_intervals_hold_the_true_distance_as_often_as_they_say() -> None:
    """Of the difference of two means, whose truth is known: it should be in about 95% of the intervals."""
    rng = np.random.Generator(np.random.PCG64(1))
    shift = 0.5

    def mean_distance(x: np.ndarray, y: np.ndarray) -> float:
        return float(x.mean() - y.mean())

    held = 0
    for _ in range(200):
        found = with_interval(mean_distance, rng.standard_normal((60, 1)) + shift, rng.standard_normal((60, 1)))
        held += found["low"] <= shift <= found["high"]
    assert 0.88 <= held / 200 <= 0.99


def test_features_of_the_segmenter_tell_grainy_pictures_from_clean_ones(segmenter: Segmenter) -> None:
    extractor = segmenter_features(segmenter)
    assert extractor.name == segmenter.name and segmenter.name in extractor.metric
    pictures = torch.from_numpy(Scenes(size=32, split="test").batch(range(120))[0]).permute(0, 3, 1, 2)
    grain = 40 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    grainy = (pictures.float() + grain).clamp(0, 255).to(torch.uint8)
    one, other, far = (extractor.extract(x).double().numpy() for x in (pictures[:60], pictures[60:], grainy[:60]))
    assert kernel_distance(far, other) > 5 * abs(kernel_distance(one, other))
    assert frechet(far, other) > frechet(one, other)
