"""What a layer keeps for its backward pass, and what happens when that is written to."""

import itertools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from bcos_kernels import stacked
from bcos_kernels.functional import bcos_conv2d, bcos_linear
from bcos_kernels.ops import passes


def random(*shape, seed=0, dtype=torch.float64):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).requires_grad_()


LAYERS = {
    "convolution": (lambda x, w, **o: bcos_conv2d(x, w, padding=1, **o), (2, 16, 12, 12), (32, 16, 3, 3)),
    "matrix": (bcos_linear, (50, 24), (40, 24)),
}


def kept_bytes(layer, x, weight):
    """Bytes that the graph holds beside the input, the weight and the output."""
    held = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(x, weight)
    for own in (x, weight, out):
        held.pop(own.untyped_storage().data_ptr(), None)
    return sum(held.values()), out


@pytest.mark.parametrize("b", [1.25, 1.5, 2, 2.5])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_keeps_its_norm_and_the_lengths_of_its_weights_and_no_more(name, b, backend):
    layer, x_shape, weight_shape = LAYERS[name]
    x, weight = random(*x_shape), random(*weight_shape, seed=1)
    found, out = kept_bytes(lambda x, w: layer(x, w, b=b), x, weight)
    pixels = out.numel() // out.shape[1]
    assert found == 8 * (pixels + len(weight))


@pytest.mark.parametrize("max_out", [1, 2])
@pytest.mark.parametrize("b", [1.5, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_an_output_may_be_written_to(name, b, max_out, backend):
    """As that of a plain layer may: x += residual, an activation in place."""
    layer, x_shape, weight_shape = LAYERS[name]
    gradients = []
    for in_place in (False, True):
        x, weight = random(*x_shape), random(*weight_shape, seed=1)
        out = layer(x, weight, b=b, max_out=max_out)
        other = random(*out.shape, seed=2)
        out = out.mul_(other) if in_place else out * other
        view = out.view(-1)
        out = view.add_(1) if in_place else view + 1
        (out * torch.arange(out.numel())).sum().backward()
        gradients.append((x.grad, weight.grad))
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_gradients_are_right_after_the_output_is_gone(backend):
    x, weight = random(2, 16, 12, 12), random(32, 16, 3, 3, seed=1)
    out = bcos_conv2d(x, weight)
    out.relu_()
    total = out.sum()
    del out
    total.backward()
    theirs = x.grad
    x = random(2, 16, 12, 12)
    torch.relu(bcos_conv2d(x, weight)).sum().backward()
    torch.testing.assert_close(theirs, x.grad, rtol=1e-12, atol=1e-12)


def test_checkpoints_hold_nothing_inside(backend):
    x, weight = random(2, 16, 12, 12), random(16, 16, 3, 3, seed=1)

    def block(x):
        return bcos_conv2d(bcos_conv2d(x, weight, padding=1), weight, padding=1)

    found, _ = kept_bytes(lambda x, w: checkpoint(block, x, use_reentrant=False), x, weight)
    assert found == 0
    one = torch.autograd.grad(block(x).square().sum(), (x, weight))
    two = torch.autograd.grad(checkpoint(block, x, use_reentrant=False).square().sum(), (x, weight))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("max_out", [1, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_inference_mode_gives_the_same_bits(name, max_out, backend):
    layer, x_shape, weight_shape = LAYERS[name]
    x, weight = random(*x_shape), random(*weight_shape, seed=1)
    expected = layer(x, weight, max_out=max_out)
    with torch.inference_mode():
        assert torch.equal(layer(x, weight, max_out=max_out), expected)
        with stacked(2):
            assert torch.equal(layer(torch.cat([x, x]), weight, max_out=max_out)[: len(expected)], expected)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_that_nobody_asks_for_are_not_computed(name, monkeypatch, backend):
    """Of an explanation, which asks for inputs only, the weights' would double the price."""
    layer, x_shape, weight_shape = LAYERS[name]
    asked = []

    def recorded(saved, grad, layer, needed, norm_given):
        asked.append(needed)
        return original(saved, grad, layer, needed, norm_given)

    original = passes.backward
    monkeypatch.setattr(passes, "backward", recorded)
    leaf, weight = random(*x_shape), random(*weight_shape, seed=1)

    def run():
        asked.clear()
        hidden = leaf * 2
        return hidden, layer(hidden, weight).sum()

    for of_hidden, of_leaf, of_weight in itertools.product((False, True), repeat=3):
        hidden, total = run()
        wanted = [t for t, want in ((hidden, of_hidden), (leaf, of_leaf), (weight, of_weight)) if want]
        if wanted:
            torch.autograd.grad(total, wanted)
            assert asked == [(of_hidden or of_leaf, of_weight)]
    hidden, total = run()
    total.backward()
    assert asked == [(True, True)]
    direct = layer(leaf, weight).sum()
    torch.autograd.grad(direct, leaf)
    assert asked[-1] == (True, False)
