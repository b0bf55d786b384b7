"""1 × 1 convolutions as products of matrices, against torch's convolution in float64."""

import pytest
import torch
from torch.nn import functional as F

from bcos_kernels import BcosConv2d, dispatch
from bcos_kernels.ops.bcos_conv2d import pointwise
from bcos_kernels.ops.bcos_conv2d.geometry import Geometry

SIDE = 25
"""A map of more than LEAST_PIXELS pixels."""


def geometry(stride=1, groups=1, padding=0):
    return Geometry((1, 1), (stride, stride), (padding, padding), (1, 1), groups)


def tensors(side=SIDE, channels=5, outputs=7, dtype=torch.float64, batch=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, side, side, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randn(outputs, channels, 1, 1, generator=generator, dtype=torch.float64).to(dtype)


@pytest.fixture(autouse=True)
def without_a_graph():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("stride, side", [(1, SIDE), (2, 2 * SIDE), (2, 9), (3, 3 * SIDE + 1)])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_products_are_the_convolution_and_its_gradients(stride, side, dtype, tolerance):
    x, weight = tensors(side, dtype=dtype)
    wide_x, wide_weight = x.double().requires_grad_(), weight.double().requires_grad_()
    with torch.enable_grad():
        expected = F.conv2d(wide_x, wide_weight, stride=stride)
    out = pointwise.convolve(x, weight, geometry(stride))
    if side == 9:
        assert out is None  # too small a map; the gradient of its stride is still ours
    else:
        torch.testing.assert_close(out.double(), expected, rtol=10 * tolerance, atol=10 * tolerance, check_dtype=False)
        assert out.is_contiguous() and out._base is None
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    truth = torch.autograd.grad(expected, (wide_x, wide_weight), grad.double())
    for needed in ((True, True), (True, False), (False, True)):
        found = pointwise.backward(grad, x, weight, geometry(stride), needed)
        for ours, theirs, wanted in zip(found, truth, needed, strict=True):
            assert (ours is not None) == wanted
            if wanted:
                assert float((ours - theirs).abs().max()) <= 100 * tolerance * float(theirs.abs().max())


CASES = ["half", "channels last", "grouped", "padded", "small", "single", "wide", "strided in memory"]


@pytest.mark.parametrize("case", CASES)
def test_the_rest_is_left_to_torch(case):
    x, weight = tensors()
    where = geometry()
    if case == "half":
        x, weight = x.bfloat16(), weight.bfloat16()
    elif case == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif case == "grouped":
        where, weight = geometry(groups=5), weight[:5, :1]
    elif case == "padded":
        where = geometry(padding=1)
    elif case == "small":
        x, weight = tensors(8)
    elif case == "single":
        x = x[:1]
    elif case == "wide":  # a gradient of the weight a sample would be larger than the maps
        x, weight = tensors(24, 1300, 1300, torch.float32, batch=2)
    else:
        x = x.transpose(2, 3)
    assert pointwise.convolve(x, weight, where) is None
    grad = F.conv2d(x.float(), weight.float(), padding=where.padding, groups=where.groups).to(x.dtype)
    assert pointwise.backward(grad, x, weight, where, (True, True)) is None


def test_a_graph_and_transforms_are_left_to_torch():
    x, weight = tensors()
    with torch.enable_grad():
        assert pointwise.convolve(x, weight, geometry()) is None
    seen = []
    torch.func.vmap(lambda one: seen.append(pointwise.convolve(one, weight, geometry())) or one)(x[None])
    assert seen == [None] and not dispatch.traces()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("max_out", [1, 2])
def test_a_layer_gives_the_same_either_way(stride, max_out, monkeypatch):
    x, _ = tensors(2 * SIDE)
    layer, grad = BcosConv2d(5, 6, 1, stride=stride, max_out=max_out, dtype=torch.float64), None

    def run():
        nonlocal grad
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            out = layer(leaf)
            grad = torch.randn_like(out) if grad is None else grad
            return out.detach(), *torch.autograd.grad(out, (leaf, layer.linear.weight), grad)

    ours = run()
    monkeypatch.setattr(pointwise, "_is_pointwise", lambda *_: False)
    for found, expected in zip(ours, run(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
