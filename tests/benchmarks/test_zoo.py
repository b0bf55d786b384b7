"""The benchmark of patched models: means, and images as wide as the memory allows."""

import pytest
import torch
from torch import nn

from benchmarks import zoo


def row(entry, ratio):
    return {"entry": entry} | {f"{name} {what}": ratio for name in zoo.MEASURES for what in ("x", "memory x")}


def test_means_are_geometric_and_by_kind():
    found = zoo.summary([row("resnet18", 1.0), row("vgg11_bnu", 4.0), row("standard_vitc_ti_patch1_14", 2.0)])
    assert found["B-cos"]["forward x"] == pytest.approx(2) and found["standard"]["train memory x"] == pytest.approx(2)
    assert found["all"]["train x"] == pytest.approx(2)
    assert zoo.summary([row("resnet18", 3.0)]).keys() == {"all", "B-cos"}


@pytest.mark.parametrize("room, pixels", [(1e12, 224), (4.4e6, 160), (1, 64)])
def test_images_are_as_wide_as_fits(monkeypatch, room, pixels):
    """160² / 64² = 6.25 times as many activations as were measured, beside the gradients, which stay."""
    model = nn.Sequential(nn.Conv2d(6, 8, 3), nn.AdaptiveAvgPool2d(1))
    gradients = 4 * sum(p.numel() for p in model.parameters())
    monkeypatch.setattr(zoo, "peak_bytes", lambda call, device: gradients + 7e5)
    assert zoo.widest(model, "resnet18", 1, room) == pixels


def test_statistics_settle_on_the_images_and_momentum_stays():
    model, x = nn.Sequential(nn.BatchNorm2d(6)), zoo.images("resnet18", 2, 64)
    zoo.settle(model, x)
    torch.testing.assert_close(model[0].running_mean, x.mean((0, 2, 3)))
    assert model[0].momentum == 0.1 and x.shape == (2, 6, 64, 64)
    assert zoo.images("standard_vitc_ti_patch1_14", 1, 64).shape[1] == 3
