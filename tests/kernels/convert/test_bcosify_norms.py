"""Norms with held statistics, in float64, and a network of them in a stacked batch."""

import pytest
import torch
from references.bcosify import IMAGES, LINES, ROWS, VOLUMES, N, check, randomised
from torch import nn

from bcos_kernels import bcosify, completeness, contributions, maps


def centred(x, dims):
    return x - x.mean(dims, keepdim=True)


def deviation(x, dims, eps=1e-5):
    return (x.var(dims, correction=0, keepdim=True) + eps).sqrt()


def test_layer_norm_holds_its_deviation():
    norm = randomised(nn.LayerNorm(6))
    check(norm, ROWS, lambda v: centred(v, -1) / deviation(ROWS, -1) * norm.weight)


def test_layer_norm_over_several_dimensions():
    norm = randomised(nn.LayerNorm((5, 5), elementwise_affine=True))
    check(norm, IMAGES, lambda v: centred(v, (2, 3)) / deviation(IMAGES, (2, 3)) * norm.weight)


def test_rms_norm_holds_its_mean_square():
    norm = randomised(nn.RMSNorm(6, eps=1e-3))
    check(norm, ROWS, lambda v: v / (ROWS.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight)


@pytest.mark.parametrize("x", [LINES, IMAGES, VOLUMES], ids=["1d", "2d", "3d"])
def test_group_and_instance_norm_hold_their_deviation(x):
    norm = randomised(nn.GroupNorm(2, 4))
    weight = norm.weight.detach().view(-1, *[1] * (x.ndim - 2))

    def grouped(v, groups):
        return v.reshape(N, groups, -1)

    def linear(v):
        return (centred(grouped(v, 2), -1) / deviation(grouped(x, 2), -1)).view_as(v) * weight

    check(norm, x, linear)
    kind = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}[x.ndim]
    check(kind(4).double(), x, lambda v: (centred(grouped(v, 4), -1) / deviation(grouped(x, 4), -1)).view_as(v))


@pytest.mark.parametrize(
    "kind, x",
    [
        (nn.BatchNorm1d, IMAGES.flatten(1)[:, :4]),
        (nn.BatchNorm1d, LINES),
        (nn.BatchNorm2d, IMAGES),
        (nn.BatchNorm3d, VOLUMES),
    ],
)
def test_batch_norm_loses_bias_and_mean(kind, x):
    norm = randomised(kind(4))
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().view(-1, *[1] * (x.ndim - 2))
    check(norm, x, lambda v: v * scale, biases="remove")
    assert norm.bias is None
    assert torch.allclose(norm(x), x * scale)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_that_keeps_its_constants_names_them(affine):
    model = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), randomised(nn.BatchNorm2d(4, affine=affine))).double().eval()
    expected = model(IMAGES).detach()
    bcosify(model, b=1)
    assert torch.allclose(model(IMAGES), expected, atol=1e-14)
    found = completeness(model, IMAGES)
    assert found.error < 1e-14
    assert set(found.mass) == {"input", "1.running_mean"} | ({"1.bias"} if affine else set())


def test_a_network_without_biases_maps_tangents_in_a_stacked_batch():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.GELU(), nn.MaxPool2d(2, return_indices=False), nn.GroupNorm(2, 6),
        nn.Flatten(), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 8), nn.GLU(), nn.Linear(4, 3),
    )  # fmt: skip
    model = randomised(model)
    report = bcosify(model, biases="remove")
    assert report.biases == ()
    tangents = torch.randn(3, *IMAGES.shape).double()
    stacked = maps(model, IMAGES, tangents)
    assert torch.allclose(stacked, maps(model, IMAGES, tangents, method="jvp"), rtol=1e-10, atol=1e-14)
    assert torch.allclose(maps(model, IMAGES, IMAGES[None])[0], model(IMAGES))
    given = contributions(model, IMAGES, target=1)
    assert torch.allclose(given.sum((1, 2, 3)), model(IMAGES)[:, 1])
