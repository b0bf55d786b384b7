"""One norm for several layers that read the same input: same outputs and gradients as layers on their own."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from bcos_kernels import explanation_mode, stacked
from bcos_kernels.functional import bcos_conv2d, bcos_linear, patch_norm, row_norm

CONVOLUTIONS = {
    "patch": (3, {"padding": 1}),
    "strided": ((3, 2), {"stride": (2, 1), "padding": (1, 0), "groups": 2}),
    "dilated": (2, {"dilation": (1, 2), "padding": "same"}),
    "reflected": (3, {"padding": 1, "padding_mode": "reflect"}),
    "pixel": (1, {}),
}


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def pairs():
    """Name, (norm of x, layer with it), x and two weights."""
    yield "linear", row_norm, lambda x, w, **n: bcos_linear(x, w, **n), random(3, 2, 4), (5, 4)
    yield "vector", row_norm, lambda x, w, **n: bcos_linear(x, w, 1.5, max_out=2, **n), random(4), (6, 4)
    for name, (kernel, options) in CONVOLUTIONS.items():
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        weight = (4, 4 // options.get("groups", 1), *size)

        def norm(x, kernel=kernel, options=options):
            return patch_norm(x, kernel, **options)

        def layer(x, w, options=options, **n):
            return bcos_conv2d(x, w, **options, **n)

        yield name, norm, layer, random(2, 4, 5, 6), weight
    yield "image", lambda x: patch_norm(x, 2), lambda x, w, **n: bcos_conv2d(x, w, **n), random(4, 5, 6), (4, 4, 2, 2)


PAIRS = {name: rest for name, *rest in pairs()}


@pytest.mark.parametrize("name", PAIRS)
def test_layers_that_share_it_are_what_they_are_alone(name, backend):
    norm, layer, x, shape = PAIRS[name]
    weights = [random(*shape, seed=seed) for seed in (1, 2)]
    n = norm(x)
    shared, alone = [[layer(x, w, **given) for w in weights] for given in ({"norm": n}, {})]
    for held in (shared, alone):
        assert held[0].shape == alone[0].shape
    gradients = [
        torch.autograd.grad(sum(out.sin().sum() for out in outs), (x, *weights), retain_graph=True)
        for outs in (shared, alone)
    ]
    for a, b in zip((*shared, *gradients[0]), (*alone, *gradients[1]), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["linear", "strided", "reflected"])
def test_derivatives(name, backend):
    norm, layer, x, shape = PAIRS[name]
    inputs = x, random(*shape, seed=1)

    def shared(x, w):
        n = norm(x)
        return layer(x, w, norm=n) + layer(x, 2 * w, norm=n)

    assert gradcheck(shared, inputs, check_forward_ad=True)
    assert gradgradcheck(shared, inputs, fast_mode=True)
    n = norm(x).detach().requires_grad_()
    assert gradcheck(lambda x, w, n: layer(x, w, norm=n), (*inputs, n))


def test_explained_and_stacked(backend):
    norm, layer, x, shape = PAIRS["patch"]
    weight = random(*shape, seed=1)
    with explanation_mode():
        found = [torch.autograd.grad(layer(x, weight, **g).sum(), x)[0] for g in ({"norm": norm(x)}, {})]
    torch.testing.assert_close(*found)
    stack = torch.cat([x, random(*x.shape, seed=5)]).detach()
    with torch.no_grad(), stacked(2):
        torch.testing.assert_close(layer(stack, weight, norm=norm(stack)), layer(stack, weight))


def test_types(backend):
    x, weight = random(3, 4, dtype=torch.float32), random(5, 4, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert row_norm(x).dtype == torch.float32
        assert torch.equal(bcos_linear(x, weight, norm=row_norm(x)), bcos_linear(x, weight))


def test_a_norm_of_something_else_is_refused():
    x, weight = torch.ones(3, 4), torch.ones(5, 4)
    with pytest.raises(ValueError, match=r"norm must be \[3\] torch.float32, got \[1\]"):
        bcos_linear(x, weight, norm=row_norm(x[:1]))
    with pytest.raises(ValueError, match="float64"):
        bcos_linear(x, weight, norm=row_norm(x.double()))
    image = torch.ones(1, 4, 5, 5)
    with pytest.raises(ValueError, match=r"norm must be \[1, 1, 3, 3\]"):
        bcos_conv2d(image, torch.ones(2, 4, 3, 3), norm=patch_norm(image, 3, padding=1))
    with pytest.raises(ValueError, match="does not fit"):
        patch_norm(image, 7)
    with pytest.raises(ValueError, match="groups must divide"):
        patch_norm(image, 3, groups=3)
    with pytest.raises(ValueError, match="expected floating x"):
        patch_norm(image.int(), 3)
    with pytest.raises(ValueError, match="expected floating x"):
        row_norm(torch.tensor(1.0))
