"""bcos_conv1d against the formula with torch's own one-dimensional convolutions in float64."""

import pytest
import torch
from torch.nn import functional as F

from bcos_kernels import BcosConv1d, contributions, explanation_mode, record_relevance
from bcos_kernels.functional import bcos_conv1d

DELTA, EPS = 1e-6, 1e-6
# channels, outputs, length, kernel, and the options of the layer
GEOMETRIES = {
    "token": (4, 6, 7, 1, {}),
    "patch": (3, 4, 9, 3, {"padding": 1}),
    "strided": (3, 4, 11, 4, {"stride": (3,), "padding": (2,), "dilation": 2}),
    "grouped": (6, 4, 8, 3, {"groups": 2}),
    "same": (3, 2, 8, 4, {"padding": "same"}),
    "same_reflect": (3, 2, 8, 4, {"padding": "same", "padding_mode": "reflect"}),
    "circular": (4, 4, 6, 3, {"padding": 1, "padding_mode": "circular"}),
}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensors(geometry):
    channels, outputs, length, kernel, options = GEOMETRIES[geometry]
    weight = random(outputs, channels // options.get("groups", 1), kernel, seed=1)
    return random(2, channels, length), weight, options


def slow(x, weight, b, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"):
    outputs, kernel = weight.shape[0], weight.shape[2]
    gap, step = (v[0] if isinstance(v, tuple) else v for v in (dilation, stride))
    total = gap * (kernel - 1)
    width = padding[0] if isinstance(padding, tuple) else padding
    left, right = (total // 2, total - total // 2) if padding == "same" else (width, width)
    x = F.pad(x, (left, right), "constant" if padding_mode == "zeros" else padding_mode)
    unit = weight / weight.flatten(1).norm(dim=1)[:, None, None]
    y = F.conv1d(x, unit, stride=step, dilation=gap, groups=groups)
    energy = F.conv1d(x.square(), torch.ones_like(weight), stride=step, dilation=gap, groups=groups)
    u = y.abs() / (energy + EPS).sqrt()
    assert y.shape[1] == outputs
    return y * (u + (0 if b == 2 else DELTA)) ** (b - 1)


@pytest.mark.parametrize("b", [1, 1.5, 2, 2.5])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_values_and_gradients(geometry, b, backend):
    x, weight, options = tensors(geometry)
    found, expected = [], []
    for function, results in ((bcos_conv1d, found), (slow, expected)):
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = function(*leaves, b, **options)
        results += [out, *torch.autograd.grad(out, leaves, random(*out.shape, seed=2))]
    for ours, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-9, atol=1e-10)


def test_max_out_keeps_the_stronger_unit_of_each_pair():
    x, weight, _ = tensors("patch")
    both = slow(x, weight, 2)
    y = F.conv1d(x, weight / weight.flatten(1).norm(dim=1)[:, None, None])
    pairs = y.unflatten(1, (-1, 2))
    expected = both.unflatten(1, (-1, 2)).gather(2, pairs.argmax(2, keepdim=True)).squeeze(2)
    torch.testing.assert_close(bcos_conv1d(x, weight, max_out=2), expected, rtol=1e-9, atol=1e-10)


def test_the_module_has_torchs_weight_and_takes_sequences_without_a_batch():
    layer = BcosConv1d(3, 4, 3, padding=1, b=1.5).double()
    assert list(layer.state_dict()) == ["linear.weight"]
    assert layer.linear.weight.shape == torch.nn.Conv1d(3, 4, 3).weight.shape
    x = random(2, 3, 8)
    torch.testing.assert_close(layer(x[0]), layer(x)[0])
    expected = slow(x, layer.linear.weight.detach(), 1.5, padding=1)
    torch.testing.assert_close(layer(x).detach(), expected, rtol=1e-9, atol=1e-10)


def test_an_explanation_is_complete_and_recorded():
    torch.manual_seed(0)
    model = torch.nn.Sequential(BcosConv1d(3, 6, 3, padding=1), BcosConv1d(6, 2, 3, stride=2)).double()
    x = random(2, 3, 9)
    shares = contributions(model, x, cotangent=torch.ones_like(model(x)))
    torch.testing.assert_close(shares.sum((1, 2)), model(x).sum((1, 2)).detach())
    with explanation_mode(), record_relevance(model) as record:
        model(x).sum().backward()
    (passed_on,) = record.positions["0"]
    assert passed_on.shape == (2, 9)
    torch.testing.assert_close(passed_on.sum(1), shares.sum((1, 2)))


@pytest.mark.parametrize(
    ("x", "weight", "options", "message"),
    [
        ((2, 3, 4, 5), (4, 3, 3), {}, "expected x"),
        ((2, 3, 5), (4, 3), {}, "expected x"),
        ((2, 3, 5), (4, 2, 3), {}, "channels"),
        ((2, 3, 5), (4, 3, 7), {}, "does not fit"),
        ((2, 3, 5), (4, 3, 3), {"stride": (1, 2)}, "stride must be"),
        ((2, 3, 5), (4, 3, 3), {"padding": 0.5}, "padding must be"),
        ((2, 3, 5), (4, 3, 3), {"padding": "some"}, "'valid' or 'same'"),
    ],
)
def test_bad_input(x, weight, options, message):
    with pytest.raises(ValueError, match=message):
        bcos_conv1d(torch.ones(x), torch.ones(weight), **options)
