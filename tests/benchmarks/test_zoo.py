"""The benchmark of patched models: means, and images as wide as the memory allows."""

import json

import pytest
import torch
from torch import nn

from benchmarks import zoo


def row(entry, ratio):
    ratios = {f"{name} {what}": ratio for name in zoo.MEASURES for what in ("x", "memory x")}
    limit = None if entry.startswith("standard") else 2 * ratio
    return {"entry": entry} | ratios | {f"{name} limit x": limit for name in zoo.MEASURES}


def test_means_are_geometric_and_by_kind():
    found = zoo.summary([row("resnet18", 1.0), row("vgg11_bnu", 4.0), row("standard_vitc_ti_patch1_14", 2.0)])
    assert found["B-cos"]["forward x"] == pytest.approx(2) and found["standard"]["train memory x"] == pytest.approx(2)
    assert found["all"]["train x"] == pytest.approx(2) and found["all"]["train limit x"] == pytest.approx(4)
    assert found["standard"]["train limit x"] is None
    assert zoo.summary([row("resnet18", 3.0)]).keys() == {"all", "B-cos"}


@pytest.mark.parametrize("room, pixels", [(1e12, 224), (5.7e6, 160), (1, 64)])
def test_images_are_as_wide_as_fits(monkeypatch, room, pixels):
    """160² / 64² = 6.25 times as many activations as were measured, beside what does not grow with images."""
    model = nn.Sequential(nn.Conv2d(6, 8, 3), nn.AdaptiveAvgPool2d(1))
    found = iter([2e6 + 5e5, 2e6 + 1e6])
    monkeypatch.setattr(zoo, "peak_bytes", lambda call, device: next(found))
    assert zoo.widest(model, "resnet18", 1, room) == pixels


def test_a_run_that_was_cut_goes_on(monkeypatch, tmp_path):
    names, path, asked = ["resnet18", "vgg11_bnu", "standard_vitc_ti_patch1_14"], tmp_path / "zoo.json", []
    path.write_text(json.dumps({"rows": [row(name, 1.5) for name in names[:2]]}))
    monkeypatch.setattr(zoo, "measure", lambda entry, *_: asked.append(entry) or row(entry, 2.0))
    monkeypatch.setattr(zoo, "entries", lambda: names)
    monkeypatch.setattr("sys.argv", ["zoo", "--json", str(path)])
    zoo.main()
    found = json.loads(path.read_text())
    assert asked == names[2:] and [kept["entry"] for kept in found["rows"]] == names and not found["not_measured"]
    assert found["geometric_means"]["B-cos"]["train x"] == pytest.approx(1.5)


def test_statistics_settle_on_the_images_and_momentum_stays():
    model, x = nn.Sequential(nn.BatchNorm2d(6)), zoo.images("resnet18", 2, 64)
    zoo.settle(model, x)
    torch.testing.assert_close(model[0].running_mean, x.mean((0, 2, 3)))
    assert model[0].momentum == 0.1 and x.shape == (2, 6, 64, 64)
    assert zoo.images("standard_vitc_ti_patch1_14", 1, 64).shape[1] == 3


def test_each_side_is_made_from_any_other():
    pytest.importorskip("bcos.modules", reason="the package bcos is not installed: pip install '.[bench]'")
    from bcos.modules import BcosLinear

    model, x = nn.Sequential(BcosLinear(4, 4, b=1.5)), torch.randn(3, 4)
    expected = model(x)
    sides = zoo.sides_of(model)
    plain = x @ (model[0].linear.weight / model[0].linear.weight.norm(dim=1, keepdim=True)).T
    for side in ("plain", "ours", "bcos", "plain", "bcos"):
        sides[side]()
        torch.testing.assert_close(model(x), plain if side == "plain" else expected)
    assert zoo.sides_of(nn.Sequential(nn.Linear(2, 2))).keys() == {"bcos", "ours"}
