"""Whole layers as one kernel on a CUDA device, at the sizes they are used in: error, choice, graphs, torch.compile."""

import json

import pytest
import torch

from bcos_kernels import tuning
from bcos_kernels.functional import bcos_linear
from bcos_kernels.ops.dense import rows, triton
from bcos_kernels.ops.dense.rows import Alignment, Rows
from bcos_kernels.ops.epilogue import reference

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SHAPES = [(8192, 320, 320), (2048, 1280, 640), (154, 320, 1024)]  # rows, units, depth


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv(tuning.FOLDER, str(tmp_path))
    tuning._table.cache_clear()
    yield tmp_path
    tuning._table.cache_clear()


def matrices(shape, dtype):
    count, units, depth = shape
    generator = torch.Generator(device="cuda").manual_seed(0)
    x, weight, grad = (
        torch.randn(size, generator=generator, device="cuda")
        for size in ((count, depth), (units, depth), (count, units))
    )
    return x.to(dtype), (weight / depth**0.5).to(dtype), grad.to(dtype)


def near(ours, theirs, exact):
    """Not further from the truth than twice what separate passes in the same type are."""
    eps = torch.finfo(ours.dtype).eps
    return (ours.double() - exact).norm() <= 2 * (theirs.double() - exact).norm() + eps * exact.norm()


@pytest.mark.parametrize("b", [1.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_tile_both_ways(shape, dtype, b):
    x, weight, grad = matrices(shape, dtype)
    inputs, alignment = Rows(x, weight, 1e-6, True), Alignment(True, b, 0.0, False)
    wide = inputs._replace(x=x.double(), weight=weight.double())
    exact, apart = (rows.forward(reference, i, alignment) for i in (wide, inputs))
    out, n, lengths = apart
    back = rows.backward(reference, inputs, alignment, grad, out, n, lengths)
    true = rows.backward(reference, wide, alignment, grad.double(), out.double(), n.double(), lengths.double())
    for name, tile in triton.FORWARD_TILES.items():
        assert near(triton.forward_fused(tile, inputs, alignment)[0], out, exact[0]), name
    for name, tile in triton.BACKWARD_TILES.items():
        found = triton.backward_fused(tile, inputs, alignment, grad, out, n, lengths)
        assert all(near(*parts) for parts in zip(found, back, true, strict=True)), name


def test_the_choice_is_measured_kept_and_captured(cache):
    x, weight, _ = matrices(SHAPES[0], torch.bfloat16)
    with torch.no_grad():
        expected = bcos_linear(x, weight)
        torch.cuda.synchronize()
        (table,) = cache.iterdir()
        assert any("dense forward bfloat16 8192x320x320" in key for key in json.loads(table.read_text()))
        for known in (True, False):  # a shape that was never timed is captured too
            graph, given = torch.cuda.CUDAGraph(), x if known else x[:4000]
            with torch.cuda.graph(graph):
                captured = bcos_linear(given, weight)
            graph.replay()
            torch.testing.assert_close(captured, expected[: len(given)], rtol=2e-2, atol=2e-2)


def test_layers_compile_whole():
    x, weight, _ = matrices(SHAPES[2], torch.bfloat16)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    found = []
    for layer in (bcos_linear, torch.compile(bcos_linear, fullgraph=True)):
        out = layer(x, weight)
        found.append((out, *torch.autograd.grad(out.float().square().sum(), (x, weight))))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=5e-2, atol=5e-2)
