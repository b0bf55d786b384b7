"""Derivatives of both layers, backward and forward, with explanation off (by gradcheck) and on (by an explicit W).

gradcheck compares with finite differences in float64, so it needs no formula of its own.
"""

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn import functional as F

from bcos_kernels import explanation_mode, stacked
from bcos_kernels.functional import bcos_conv2d, bcos_linear

EXPONENTS = [1, 1.5, 2, 2.5]
# channels, outputs, (H, W), kernel, and the options of the layer
GEOMETRIES = {
    "pixel": (3, 2, (2, 3), (1, 1), {}),
    "patch": (2, 2, (3, 4), (3, 3), {"padding": 1}),
    "strided": (2, 2, (5, 4), (3, 2), {"stride": (2, 3), "padding": (1, 0)}),
    "pixel_strided": (2, 2, (3, 4), (1, 1), {"stride": 2}),
    "dilated": (2, 2, (4, 5), (2, 2), {"dilation": (1, 3), "padding": (1, 2)}),
    "grouped": (4, 4, (3, 3), (2, 2), {"groups": 2}),
    "depthwise": (3, 3, (3, 3), (3, 3), {"groups": 3, "padding": 1}),
    "same": (2, 2, (3, 4), (3, 3), {"padding": "same"}),
    "same_even": (2, 2, (3, 3), (2, 2), {"padding": "same"}),
    "valid": (2, 2, (3, 4), (2, 3), {"padding": "valid"}),
    "reflect": (2, 2, (3, 4), (3, 3), {"padding": 1, "padding_mode": "reflect"}),
    "replicate": (2, 2, (3, 4), (3, 3), {"padding": (2, 1), "padding_mode": "replicate"}),
    "circular": (2, 2, (3, 4), (3, 3), {"padding": 1, "padding_mode": "circular"}),
}


def random(*shape, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.requires_grad_()


def convolution(geometry, max_out=1, **further):
    """A function of (x, weight), and the two; small, because finite differences move one element at a time."""
    channels, outputs, size, kernel, options = GEOMETRIES[geometry]
    x = random(2 if geometry == "patch" else 1, channels, *size)
    weight = random(outputs * max_out, channels // options.get("groups", 1), *kernel, seed=1)
    return (lambda x, w: bcos_conv2d(x, w, max_out=max_out, **options, **further)), (x, weight)


def matrix(max_out=1, **further):
    return (lambda x, w: bcos_linear(x, w, max_out=max_out, **further)), (random(3, 4), random(3 * max_out, 4, seed=1))


@pytest.mark.parametrize("b", EXPONENTS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolution(geometry, b, backend):
    layer, inputs = convolution(geometry, b=b)
    assert gradcheck(layer, inputs)


@pytest.mark.parametrize("b", [1.001, 1.25, 6])
def test_exponents_near_one_and_large(b, backend):
    for layer, inputs in (convolution("patch", b=b), matrix(2, b=b)):
        assert gradcheck(layer, inputs, check_forward_ad=True)


@pytest.mark.parametrize("convention", "ABC")
@pytest.mark.parametrize("max_out", [1, 2])
@pytest.mark.parametrize("b", EXPONENTS)
def test_conventions_and_maxout(b, max_out, convention, backend):
    for layer, inputs in (
        convolution("grouped", max_out, b=b, convention=convention),
        matrix(max_out, b=b, convention=convention),
    ):
        assert gradcheck(layer, inputs, check_forward_ad=True, check_backward_ad=True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("geometry", ["patch", "strided", "dilated", "same_even", "replicate"])
def test_forward_mode(geometry, memory_format, backend):
    layer, (x, weight) = convolution(geometry, b=1.5)
    x = x.detach().contiguous(memory_format=memory_format).requires_grad_()
    assert gradcheck(layer, (x, weight), check_forward_ad=True, check_backward_ad=False)
    with torch.no_grad():  # through the op's own derivative: no graph, so no detour by the reference
        _check_tangent(layer, x.detach(), weight.detach())


def _check_tangent(layer, x, weight):
    v, u = random(*x.shape, seed=2).detach(), random(*weight.shape, seed=3).detach()
    with forward_ad.dual_level():
        output = layer(forward_ad.make_dual(x, v), forward_ad.make_dual(weight, u))
        value, tangent = forward_ad.unpack_dual(output)
        assert torch.equal(value, layer(x, weight))
    step = 1e-6
    slope = (layer(x + step * v, weight + step * u) - layer(x - step * v, weight - step * u)) / (2 * step)
    torch.testing.assert_close(tangent, slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("b", EXPONENTS)
@pytest.mark.parametrize("max_out", [1, 2])
def test_forward_mode_without_a_graph(b, max_out, backend):
    for layer, inputs in (convolution("patch", max_out, b=b), matrix(max_out, b=b)):
        _check_tangent(layer, *(t.detach() for t in inputs))


@pytest.mark.parametrize("b", [1.5, 2])
def test_second_derivatives(b, backend):
    for layer, inputs in (convolution("grouped", 2, b=b), convolution("reflect", b=b), matrix(b=b, convention="C")):
        assert gradgradcheck(layer, inputs, fast_mode=True)


def test_a_weight_made_from_the_input_is_not_counted_twice():
    x = random(3, 3)
    for layer in (bcos_linear, lambda x, w: bcos_conv2d(x[:, :, None, None], w[:, :, None, None])):
        out = layer(x, x.t() @ x)
        once, again = (torch.autograd.grad(out.sum(), x, create_graph=c, retain_graph=True)[0] for c in (False, True))
        torch.testing.assert_close(once, again)


def test_transforms_of_torch_func():
    layer, (x, weight) = convolution("patch", b=1.5)
    x, weight = x.detach(), weight.detach()

    def one(x, w):
        return layer(x[None], w)[0]

    torch.testing.assert_close(torch.vmap(one, (0, None))(x, weight), layer(x, weight))
    a, b = (f(layer, argnums=(0, 1))(x, weight) for f in (torch.func.jacrev, torch.func.jacfwd))
    expected = torch.autograd.functional.jacobian(layer, (x, weight))
    batched = torch.autograd.functional.jacobian(layer, (x, weight), vectorize=True)
    for i in range(2):
        for found in (a, b, batched):
            torch.testing.assert_close(found[i], expected[i])


def test_forward_over_reverse():
    layer, (x, weight) = convolution("patch", b=1.5)
    v = random(*x.shape, seed=2).detach()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.detach().requires_grad_(), v)
        (slope,) = torch.autograd.grad(layer(dual, weight).square().sum(), dual)
        found = forward_ad.unpack_dual(slope).tangent
    (slope,) = torch.autograd.grad(layer(x, weight).square().sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad((slope * v).sum(), x)
    torch.testing.assert_close(found, expected)


def test_only_what_is_asked_for_gets_a_gradient(backend):
    for layer, inputs in (convolution("grouped"), matrix()):
        both = torch.autograd.grad(layer(*inputs).sum(), inputs)
        for i, expected in enumerate(both):
            alone = [t if j == i else t.detach() for j, t in enumerate(inputs)]
            assert torch.equal(torch.autograd.grad(layer(*alone).sum(), alone[i])[0], expected)


def test_results_may_be_changed_in_place():
    for layer, inputs in (convolution("patch"), matrix()):
        expected = torch.autograd.grad(layer(*inputs).sum(), inputs)
        out = layer(*inputs)
        out += 1
        assert all(map(torch.allclose, torch.autograd.grad(out.sum(), inputs), expected))


def test_compiled_layers_agree():
    layer, inputs = convolution("patch", b=1.5)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for explain in (False, True):
        torch._dynamo.reset()
        expected, found = (_explained_if(explain, f, inputs) for f in (layer, compiled))
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs)


def _explained_if(explain, layer, inputs):
    if not explain:
        out = layer(*inputs)
        return out, *torch.autograd.grad(out.sum(), inputs)
    with explanation_mode():
        out = layer(*inputs)
    return out, *torch.autograd.grad(out.sum(), inputs)


# Explanation: every derivative is that of the linear map with the scale of this input written into it.


def unit(weight, convention):
    return weight / weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1)) if convention == "A" else weight


def frozen(plain, value, x, weight, max_out, convention):
    """The linear map ``v -> s(x) · choice(ŵ v)`` as a function of (v, weight): scale and choice are data."""
    with torch.no_grad():
        y = plain(x, unit(weight, convention)).unflatten(1, (-1, max_out))
        y, choice = y.max(2, keepdim=True)
        s = value / y.squeeze(2)

    def linear(v, w):
        return plain(v, unit(w, convention)).unflatten(1, (-1, max_out)).gather(2, choice).squeeze(2) * s

    return linear


CASES = {
    f"{kind} M={m} {c}": (kind, m, c)
    for kind in ("matrix", "grouped", "strided", "dilated", "depthwise")
    for m, c in ((1, "A"), (1, "C"), (2, "A"), (2, "B"), (2, "C"))
}


def explained_case(case, b):
    kind, max_out, convention = CASES[case]
    if kind == "matrix":
        layer, (x, weight) = matrix(max_out, b=b, convention=convention)
        plain = F.linear
    else:
        layer, (x, weight) = convolution(kind, max_out, b=b, convention=convention)
        options = GEOMETRIES[kind][-1]

        def plain(v, w):
            return F.conv2d(v, w, **options)

    return layer, x, weight, frozen(plain, layer(x, weight).detach(), x, weight, max_out, convention)


@pytest.mark.parametrize("b", EXPONENTS)
@pytest.mark.parametrize("case", CASES)
def test_explained_derivatives_are_those_of_the_frozen_map(case, b, backend):
    layer, x, weight, linear = explained_case(case, b)
    v, u = random(*x.shape, seed=2).detach(), random(*weight.shape, seed=3).detach()
    upstream = random(*linear(x, weight).shape, seed=4).detach()
    with explanation_mode():
        out = layer(x, weight)
    torch.testing.assert_close(out, linear(x, weight))
    expected = torch.autograd.grad(linear(x, weight), (x, weight), upstream)
    for found, truth in zip(torch.autograd.grad(out, (x, weight), upstream), expected, strict=True):
        torch.testing.assert_close(found, truth)
    with torch.no_grad(), explanation_mode(), forward_ad.dual_level():
        pushed = layer(forward_ad.make_dual(x, v), forward_ad.make_dual(weight, u))
        pushed = forward_ad.unpack_dual(pushed).tangent
    _, truth = torch.autograd.functional.jvp(linear, (x, weight), (v, u))
    torch.testing.assert_close(pushed, truth)


@pytest.mark.parametrize("b", EXPONENTS)
@pytest.mark.parametrize("case", CASES)
def test_a_stacked_batch_is_the_frozen_map(case, b):
    layer, x, weight, linear = explained_case(case, b)
    tangents = [random(*x.shape, seed=seed) for seed in (2, 3)]
    with stacked(3):
        out = layer(torch.cat([x, *tangents]), weight)
    expected = torch.cat([linear(v, weight) for v in (x, *tangents)])
    torch.testing.assert_close(out, expected)
    upstream = random(*out.shape, seed=4).detach()
    wanted = (x, *tangents, weight)
    pairs = zip(*(torch.autograd.grad(o, wanted, upstream) for o in (out, expected)), strict=True)
    for found, truth in pairs:
        torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("b", [1.5, 2])
def test_second_derivatives_of_the_explanation(b):
    layer, x, weight, linear = explained_case("grouped M=2 A", b)
    with explanation_mode():
        out = layer(x, weight)

    def second(out):
        (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, weight))

    for found, truth in zip(second(out), second(linear(x, weight)), strict=True):
        torch.testing.assert_close(found, truth)
