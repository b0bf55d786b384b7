"""The norms as torch operators: schema, shapes, layouts, and a backward that is the gradient of the forward."""

import itertools

import pytest
import torch
from torch.library import opcheck

from bcos_kernels import dispatch
from bcos_kernels.modules.norms import GroupNorm
from bcos_kernels.ops.norms import reference

ops = torch.ops.bcos_kernels
KINDS = [(False, False), (False, True), (True, True)]  # centred, about_mean


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("per_pixel", [False, True])
@pytest.mark.parametrize(("centred", "about_mean"), KINDS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_opcheck(layout, centred, about_mean, per_pixel):
    x, grad, weight = random(2, 6, 3, 4).to(memory_format=layout), random(2, 6, 3, 4, seed=1), random(6, seed=2)
    groups = 1 if per_pixel else 3
    for given in (weight, None):
        opcheck(ops.normalise, (x, given, groups, 1e-5, centred, about_mean, per_pixel))
        _, mean, rstd = ops.normalise(x, given, groups, 1e-5, centred, about_mean, per_pixel)
        mean = mean if about_mean else None
        for held, need_dx, need_dw in itertools.product((False, True), repeat=3):
            arguments = grad, x, given, mean, rstd, centred, about_mean, held, need_dx, need_dw
            opcheck(ops.normalise_backward, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(("centred", "about_mean"), KINDS)
def test_the_backward_is_the_gradient(centred, about_mean, backend):
    x, grad, weight = (
        random(2, 6, 3, 4).requires_grad_(),
        random(2, 6, 3, 4, seed=1),
        random(6, seed=2).requires_grad_(),
    )
    out, *_ = reference.forward(x, weight, 3, 1e-5, centred, about_mean, False)
    expected = torch.autograd.grad(out, (x, weight), grad)
    with torch.no_grad():
        found, mean, rstd = ops.normalise(x, weight, 3, 1e-5, centred, about_mean, False)
        mean = mean if about_mean else None
        pair = ops.normalise_backward(grad, x, weight, mean, rstd, centred, about_mean, False, True, True)
    for a, b in zip((found, *pair), (out, *expected), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("of_x", "of_weight"), [(True, False), (False, True), (True, True)])
def test_gradients_that_nobody_asks_for_are_not_computed(of_x, of_weight, backend, monkeypatch):
    asked, functions = [], dispatch.NORMS[backend]
    original = functions.backward
    monkeypatch.setattr(functions, "backward", lambda *a: asked.append(a[-2:]) or original(*a))
    x, norm = (random(2, 6, 3, 4).requires_grad_() * 2), GroupNorm(3, 6).double()
    wanted = [t for t, want in ((x, of_x), (norm.weight, of_weight)) if want]
    torch.autograd.grad(norm(x).sum(), wanted)
    assert asked == [(of_x, of_weight)]


def test_refusals_say_what_is_accepted(backend):
    x, rstd, rows = random(2, 6, 3, 4), random(2, 3), random(2, 1, 3, 4)
    for message, call in {
        "4 dimensions": lambda: ops.normalise(x[0], None, 1, 1e-5, False, False, False),
        "divide": lambda: ops.normalise(x, None, 4, 1e-5, False, False, False),
        "groups must be 1": lambda: ops.normalise(x, None, 2, 1e-5, False, False, True),
        "about_mean must be true": lambda: ops.normalise(x, None, 3, 1e-5, True, False, False),
        "weight must be": lambda: ops.normalise(x, x[0, 0, 0], 3, 1e-5, False, False, False),
        "real floating": lambda: ops.normalise(x.int(), None, 3, 1e-5, False, False, False),
        "mean must be given": lambda: ops.normalise_backward(x, x, None, None, rstd, True, True, False, True, True),
        "rstd must be": lambda: ops.normalise_backward(x, x, None, None, rstd[:1], False, False, False, True, True),
        "rstd must be .* 3, 4": lambda: ops.normalise_backward(
            x, x, None, None, rows[..., :2], False, False, False, True, True
        ),
        "mean must be .* torch.float64": lambda: ops.normalise_backward(
            x, x, None, rstd.half(), rstd, True, True, False, True, True
        ),
        "grad must be": lambda: ops.normalise_backward(x[:1], x, None, None, rstd, False, False, False, True, True),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
