"""Backward passes start from the output: against autograd through the plain formula, which keeps the response."""

import math

import pytest
import torch
from references.epilogue import cosine_of_output
from torch.nn import functional as F

from bcos_kernels.functional import bcos_conv2d, bcos_linear
from bcos_kernels.ops.epilogue import reference

EXPONENTS = [1.0001, 1.1, 1.25, 1.5, 2, 2.5, 3, 6]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def tilted(dtype):
    """x ``[3, 2]`` along the first axis, and units at cosines from far below delta to 1, one that x does not see."""
    cosines = torch.cat([torch.zeros(1), torch.logspace(-10, -0.01, 60)]).double()
    weight = torch.stack([cosines, (1 - cosines**2).sqrt()], 1).to(dtype)
    x = torch.tensor([[1.0, 0.0], [-3.0, 0.0], [0.25, 0.0]]).to(dtype)
    return x, weight, torch.tensor([[1.0], [-2.0], [0.5]]).to(dtype).expand(3, len(weight)).contiguous()


def linear_by_hand(x, weight, b):
    y = F.linear(x, weight / weight.norm(dim=1, keepdim=True))
    u = y.abs() / (x.norm(dim=1, keepdim=True) + 1e-12)
    return y * (u if b == 2 else (u + 1e-6) ** (b - 1))


def pixels_by_hand(x, weight, b):
    y = F.conv2d(x, weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    u = y.abs() / (x.square().sum(1, keepdim=True) + 1e-6).sqrt()
    return y * (u if b == 2 else (u + 1e-6) ** (b - 1))


LAYERS = {
    "matrix": (bcos_linear, linear_by_hand, lambda t: t),
    "pixels": (bcos_conv2d, pixels_by_hand, lambda t: t[:, :, None, None]),
}


def gradients(function, x, weight, b, cotangent):
    x, weight = x.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    return torch.autograd.grad(function(x, weight, b), (x, weight), cotangent)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("b", EXPONENTS)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_every_unit_from_tiny_cosines_to_one(name, b, dtype, backend):
    layer, by_hand, shaped = LAYERS[name]
    given = [shaped(t) for t in tilted(dtype)]
    x, weight, cotangent = given
    true = gradients(by_hand, x.double(), weight.double(), b, cotangent.double())
    theirs = gradients(by_hand, x, weight, b, cotangent)
    ours = gradients(layer, x, weight, b, cotangent)
    for mine, plain, exact in zip(ours, theirs, true, strict=True):
        rows = [(t.double() - exact).flatten(1).norm(dim=1) for t in (mine, plain)]  # by unit, or by sample
        size = exact.flatten(1).norm(dim=1)
        floor = 16 * torch.finfo(dtype).eps * size + torch.finfo(dtype).smallest_normal
        assert (rows[0] <= 2 * rows[1] + floor).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("b", [1.0001, 1.1, 1.25, 1.5, 2.5, 3, 6, 20])
def test_the_factor_is_exact_over_all_outputs(b, delta, dtype, backend):
    """Whatever the cosine: what the backward pass multiplies by, by kernels and by the reference."""
    info = torch.finfo(dtype)
    out = torch.logspace(max(math.log10(info.tiny) + 2, -280), 0, 5001, dtype=torch.float64).to(dtype)[:, None]
    n = torch.ones(len(out), dtype=dtype)
    u = cosine_of_output(out, n[:, None], b, delta)
    s, ratio = (u + delta) ** (b - 1), u / (u + delta)
    grad = torch.ones_like(out)
    _, c = torch.ops.bcos_kernels.scale_backward(grad, out, n, None, b, delta)
    held = torch.ops.bcos_kernels.apply_factor(grad, out, n, None, b, delta)
    expected = -(b - 1) * out.double() * ratio
    for found, exact in ((held, s), (c[:, None], expected)):
        normal = (s * (u + delta) > 100 * info.tiny) & (exact.abs() > 100 * info.tiny)  # else digits are lost
        error = ((found.double() - exact) / exact).abs()[normal]
        # The truth itself comes from logarithms, which are large.
        assert error.max() <= (1e-12 if dtype == torch.float64 else 12 * info.eps)


@pytest.mark.parametrize("b", [1.25, 1.5, 2, 2.5])
@pytest.mark.parametrize("name", LAYERS)
def test_nothing_in_and_nothing_along_give_no_gradient(name, b, backend):
    layer, _, shaped = LAYERS[name]
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    weight = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    dx, dw = gradients(layer, shaped(x), shaped(weight), b, shaped(torch.ones(2, 2)))
    assert dx.isfinite().all() and dw.isfinite().all()
    s = 0.0 if b == 2 else 1e-6 ** (b - 1)
    torch.testing.assert_close(dx[0].flatten(), torch.full((2,), s / 2**0.5))  # of the unit that has a length


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("b", [1.25, 1.5, 2, 2.5])
@pytest.mark.parametrize("name", LAYERS)
def test_poison_stays_where_it_is_and_shows(name, b, poison, backend):
    layer, _, shaped = LAYERS[name]
    x, weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.ones(5, 4)
    x[1, 2] = poison
    leaf = shaped(x).requires_grad_()
    out = layer(leaf, shaped(weight), b=b)
    (dx,) = torch.autograd.grad(out, leaf, torch.ones_like(out))
    for t in (out, dx):
        assert t[[0, 2]].isfinite().all() and not t[1].isfinite().any()


@pytest.mark.parametrize("b", [1.25, 1.5, 2.5, 6])
def test_an_output_that_underflowed_is_that_of_no_response(b, backend):
    out, n = torch.zeros(1, 1, dtype=torch.float16), torch.ones(1)
    grad_y, c = torch.ops.bcos_kernels.scale_backward(torch.ones_like(out), out, n, None, b, 1e-6)
    torch.testing.assert_close(grad_y, torch.full_like(out, 1e-6 ** (b - 1)))
    assert c.item() == 0


def test_response_is_found_again():
    y = torch.cat([torch.logspace(-12, 0, 200), -torch.logspace(-12, 0, 200), torch.zeros(1)]).double()[:, None]
    n = torch.full((len(y),), 1.5, dtype=torch.float64)
    for b in EXPONENTS:
        out = reference.scale(y, n, None, b, 1e-6)
        torch.testing.assert_close(reference.response(out, n, b, 1e-6), y, rtol=1e-14, atol=0)
