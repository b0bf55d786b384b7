"""Layers that are matrix products, in one Triton kernel each way: every tile against float64, and who decides.

Without a device the kernels run in Triton's interpreter.
"""

import importlib.util
import itertools

import pytest
import torch
from references.epilogue import random
from torch.library import opcheck

from bcos_kernels import BcosConv2d, dispatch, tuning
from bcos_kernels.ops.dense import operators, rows, triton
from bcos_kernels.ops.dense.rows import Alignment, Rows
from bcos_kernels.ops.epilogue import reference

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Triton's interpreter multiplies the bits of bfloat16 as whole numbers.
HALVES = [torch.float16] if DEVICE == "cpu" else [torch.float16, torch.bfloat16]
SHAPES = [(70, 40, 33), (5, 130, 70), (1, 1, 16)]  # rows, units, depth
KINDS = list(itertools.product((1.5, 2.0, 2.5), (True, False), (True, False)))  # b, unit, root of sum


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


def layer(shape, dtype, root_of_sum, scale=1.0):
    count, units, depth = shape
    x, weight = random((count, depth), dtype, 0, DEVICE), random((units, depth), dtype, 1, DEVICE)
    x[:1], weight[-1:] = 0, 0  # a row without length, and a unit
    return Rows(x * scale, weight, 1e-6 if root_of_sum else 1e-12, root_of_sum)


def wide(found):
    return [None if t is None else t.double() for t in found]


def compare(fused, apart, true):
    """No result is further from the truth than twice what three separate passes in this type are."""
    for ours, theirs, exact in zip(fused, apart, true, strict=True):
        assert (ours is None) == (exact is None)
        if ours is not None:
            allowed = 2 * (theirs.double() - exact).norm() + torch.finfo(ours.dtype).eps * exact.norm()
            assert (ours.double() - exact).norm() <= allowed


@pytest.mark.parametrize(("b", "unit", "root_of_sum"), KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_one_kernel_gives_what_separate_passes_give(dtype, shape, b, unit, root_of_sum):
    inputs, held = layer(shape, dtype, root_of_sum), False
    exact = Rows(inputs.x.double(), inputs.weight.double(), *inputs[2:])
    tile = triton.Tile(32, 64, 16, 4, 2)
    alignment = Alignment(unit, b, 0.0 if b == 2 else 1e-6, held)
    found = triton.forward_fused(tile, inputs, alignment)
    apart = rows.forward(reference, inputs, alignment)
    compare(found, apart, rows.forward(reference, exact, alignment))

    out, n, lengths = found
    grad = random(tuple(out.shape), dtype, 2, DEVICE)
    for held in (False, True):
        alignment = alignment._replace(held=held)
        back = triton.backward_fused(tile, inputs, alignment, grad, out, n, lengths)
        apart = rows.backward(reference, inputs, alignment, grad, out, n, lengths)
        true = rows.backward(reference, exact, alignment, *wide((grad, out, n, lengths)))
        compare(back, apart, true)


@pytest.mark.parametrize("name", triton.FORWARD_TILES)
def test_every_tile_of_the_forward_pass(name):
    tile, alignment = triton.FORWARD_TILES[name], Alignment(True, 2.0, 0.0, False)
    inputs = apart_in_memory(layer((tile.rows + 3, tile.columns + 5, tile.depth + 7), torch.float16, True))
    exact = Rows(inputs.x.double(), inputs.weight.double(), *inputs[2:])
    found, apart = triton.forward_fused(tile, inputs, alignment), rows.forward(reference, inputs, alignment)
    compare(found, apart, rows.forward(reference, exact, alignment))


@pytest.mark.parametrize("name", triton.BACKWARD_TILES)
def test_every_tile_of_the_backward_pass(name):
    tile, alignment = triton.BACKWARD_TILES[name], Alignment(True, 2.0, 0.0, False)
    inputs = apart_in_memory(layer((tile.rows + 3, tile.depth + 7, tile.columns + 5), torch.float16, True))
    exact = Rows(inputs.x.double(), inputs.weight.double(), *inputs[2:])
    out, n, lengths = rows.forward(reference, inputs, alignment)
    arguments = random(tuple(out.shape), torch.float16, 2, DEVICE), out, n, lengths
    compare(
        triton.backward_fused(tile, inputs, alignment, *arguments),
        rows.backward(reference, inputs, alignment, *arguments),
        rows.backward(reference, exact, alignment, *wide(arguments)),
    )


def apart_in_memory(inputs):
    """The same with rows of x that do not follow one another."""
    wider = torch.zeros(len(inputs.x), inputs.x.shape[1] + 4, dtype=inputs.x.dtype, device=DEVICE)
    wider[:, 3:-1] = inputs.x
    return inputs._replace(x=wider[:, 3:-1])


def test_norms_of_large_halves_do_not_overflow():
    inputs = layer((4, 8, 64), torch.float16, True, scale=2e3)
    out, n, _ = triton.forward_fused(triton.FORWARD_TILES["64x64x64"], inputs, Alignment(False, 2.0, 0.0, False))
    assert n.isfinite().all() and (n > 2**16 / 8).any()
    assert out[0].eq(0).all()


def test_nan_and_infinity_reach_the_output():
    inputs = layer((4, 8, 16), torch.float16, True)
    inputs.x[1, 3], inputs.x[2, 3] = float("nan"), float("inf")
    out, *_ = triton.forward_fused(triton.FORWARD_TILES["64x64x64"], inputs, Alignment(True, 2.0, 0.0, False))
    assert out[1].isnan().all() and not out[2].isfinite().all() and out[[0, 3], :-1].isfinite().all()


@pytest.mark.parametrize("fused", [False, True])
def test_a_convolution_of_pixels_is_such_a_product(fused, monkeypatch):
    """Only where its pixels' channels adjoin; whichever kernel runs, values and gradients are the layer's."""
    asked = []

    def choose(what, device, candidates):
        asked.append(what)
        return list(candidates)[-1 if fused else 0]

    monkeypatch.setattr(tuning, "choose", choose)
    module = BcosConv2d(6, 10, 1).to(DEVICE, torch.float16)
    cotangent, found = random((2, 10, 3, 5), torch.float16, 2, DEVICE), {}
    for layout in (torch.channels_last, torch.contiguous_format):
        for backend in ("triton", "reference"):
            monkeypatch.setattr(dispatch, "wanted", backend)
            x = random((2, 6, 3, 5), torch.float16, 0, DEVICE).to(memory_format=layout).requires_grad_()
            out = module(x)
            found[backend] = out, *torch.autograd.grad(out, (x, module.linear.weight), cotangent)
        for ours, theirs in zip(*found.values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
    kinds = {what.split()[1] for what in asked}
    assert kinds == {"forward", "backward"} and len(asked) == 2
    assert all("float16 32x10x6" in what for what in asked)


def test_what_a_user_does_to_the_output_of_one_kernel_is_noticed(monkeypatch):
    monkeypatch.setattr(tuning, "choose", lambda what, device, candidates: list(candidates)[-1])
    monkeypatch.setattr(dispatch, "wanted", "triton")
    module, gradients = BcosConv2d(6, 10, 1).to(DEVICE, torch.float16), []
    for in_place in (False, True):
        x = random((2, 6, 3, 5), torch.float16, 0, DEVICE).to(memory_format=torch.channels_last).requires_grad_()
        out = module(x)
        out = out.mul_(3) if in_place else out * 3
        gradients.append(torch.autograd.grad(out.sum(), x)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("b", [1.5, 2.0])
def test_operators(b, unit, backend):
    inputs = Rows(*(random(s, torch.float64, i) for i, s in enumerate(((5, 4), (3, 4)))), 1e-6, True)
    alignment = Alignment(unit, b, 0.0, False)
    opcheck(torch.ops.bcos_kernels.dense_forward, (*inputs, *alignment[:3]))
    out, n, lengths = operators.forward(inputs, alignment)
    grad = random((5, 3), torch.float64, 2)
    opcheck(torch.ops.bcos_kernels.dense_backward, (*inputs, *alignment, grad, out, n, lengths))
    true = rows.forward(reference, inputs, alignment)
    for a, b in zip((out, n, lengths), true, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match=r"weight must be \[O, 4\]"):
        operators.forward(inputs._replace(weight=inputs.weight[:, 1:]), alignment)
    with pytest.raises(ValueError, match=r"kept must be \[5, 3\]"):
        operators.backward(inputs, alignment, grad[:4], out[:4], n[:4], lengths)
