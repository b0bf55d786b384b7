"""The Quantus adapter against explain, and in Quantus's own metrics."""

import numpy as np
import pytest
import torch
from torch import nn

from bcos_kernels import explain
from bcos_kernels.attribution.quantus import explain_func

CLASSES, SIDE = 4, 8


class Colours(nn.Module):
    """A class a channel, and a channel that no class looks at."""

    def __init__(self):
        super().__init__()
        self.templates = nn.Parameter(torch.eye(CLASSES, CLASSES + 1) * 4)

    def forward(self, x):
        return x.mean((2, 3)) @ self.templates.T


@pytest.fixture(scope="module")
def quantus():
    return pytest.importorskip("quantus", exc_type=ImportError)  # its OpenCV may lack a library of the system


@pytest.fixture
def scene():
    """A model, images whose class shows in one quarter, their labels, and masks of it."""
    rng = np.random.default_rng(0)
    x = np.zeros((6, CLASSES + 1, SIDE, SIDE), np.float32)
    masks, labels = np.zeros((6, 1, SIDE, SIDE), bool), np.arange(6) % CLASSES
    for number, label in enumerate(labels):
        top, left = rng.integers(2, size=2) * SIDE // 2
        x[number, label, top : top + SIDE // 2, left : left + SIDE // 2] = 1
        masks[number, 0, top : top + SIDE // 2, left : left + SIDE // 2] = True
        x[number, -1] = rng.random((SIDE, SIDE))
    return Colours().eval(), x, labels, masks


def test_the_maps_of_explain(net, images):
    labels = np.array([4, 0, 2], dtype=np.int32)
    found = explain_func(net, images.float().numpy(), labels, device="cpu")
    expected = explain(net, images.float().double(), torch.tensor([4, 0, 2])).contribution_maps
    assert found.shape == (3, 1, 12, 10) and found.dtype == np.float64
    np.testing.assert_array_equal(found[:, 0], expected.numpy())
    by_channel = explain_func(net, images.float().numpy(), labels, channels=True)
    assert by_channel.shape == (3, 6, 12, 10)
    np.testing.assert_allclose(by_channel.sum(1), found[:, 0], rtol=1e-12)
    assert explain_func(net.bfloat16(), images.numpy(), labels[:, None]).dtype == np.float32
    with pytest.raises(ValueError, match="int64"):
        explain_func(net, images.numpy(), labels[:2])


def played(metric, scene, maps=None, **more):
    model, x, labels, _ = scene
    return metric(
        model=model, x_batch=x, y_batch=labels, a_batch=maps, explain_func=explain_func, device="cpu", batch_size=4,
        channel_first=True, **more,
    )  # fmt: skip


def random_maps(scene):
    return np.random.default_rng(1).random((len(scene[1]), 1, SIDE, SIDE)).astype(np.float32)


QUIET = {"disable_warnings": True, "display_progressbar": False}


def test_localisation(quantus, scene):
    metric = quantus.RelevanceRankAccuracy(**QUIET)
    assert played(metric, scene, s_batch=scene[3]) == [1.0] * 6
    assert np.mean(played(metric, scene, random_maps(scene), s_batch=scene[3])) < 0.6
    pointing = quantus.PointingGame(**QUIET)
    assert np.mean(played(pointing, scene, s_batch=scene[3])) == 1


def test_faithfulness_by_correlation(quantus, scene):
    """It sets single channels of pixels to 0, so only contributions by channel are what then goes missing."""

    def play(maps=None, **options):
        np.random.seed(0)
        metric = quantus.FaithfulnessCorrelation(
            nr_runs=30, subset_size=60, perturb_baseline="black", return_aggregate=False, normalise=False, **QUIET
        )
        return played(metric, scene, maps, **options)

    by_channel = play(explain_func_kwargs={"channels": True})
    assert len(by_channel) == 6
    np.testing.assert_allclose(by_channel, 1, atol=1e-4)
    by_pixel, chance = np.mean(play()), np.mean(play(random_maps(scene)))
    assert 1 > by_pixel > chance + 0.1


def test_pixel_flipping(quantus, scene):
    # Curves, because the area that Quantus 0.6 computes needs a function that NumPy 2.4 no longer has.
    metric = quantus.PixelFlipping(features_in_step=8, perturb_baseline="black", **QUIET)
    ours, chance = np.array(played(metric, scene)), np.array(played(metric, scene, random_maps(scene)))
    floor = 1 / CLASSES  # the probability that is left when all is black
    assert len(ours) == 6 and ours.mean() - floor < 0.7 * (chance.mean() - floor)


def test_complexity(quantus, scene):
    metric = quantus.Sparseness(**QUIET)
    ours = played(metric, scene)
    # A quarter of the map is one value, the rest 0: the Gini index of that is three quarters.
    np.testing.assert_allclose(ours, 0.75, atol=0.02)
    assert np.mean(played(metric, scene, random_maps(scene))) < 0.5


def test_robustness_calls_the_function_itself(quantus, scene):
    metric = quantus.MaxSensitivity(nr_samples=3, lower_bound=0.01, **QUIET)
    np.random.seed(0)
    found = played(metric, scene)
    assert len(found) == 6 and all(0 < value < 0.2 for value in found)
