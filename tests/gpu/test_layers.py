"""Layers on a CUDA device at the sizes they are used in: backend, error, memory, CUDA graphs."""

import pytest
import torch
from torch.nn import functional as F

from bcos_kernels import dispatch, native
from bcos_kernels.functional import bcos_conv2d, bcos_linear

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(4, 320, 64, 3), (4, 640, 32, 3), (4, 1280, 8, 3), (4, 320, 64, 1)]  # batch, channels, side, kernel


def tensors(batch, channels, side, kernel, dtype):
    generator = torch.Generator(device="cuda").manual_seed(0)
    x = torch.randn(batch, channels, side, side, generator=generator, device="cuda")
    weight = torch.randn(channels, channels, kernel, kernel, generator=generator, device="cuda")
    weight = weight / (channels * kernel**2) ** 0.5
    return (t.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_() for t in (x, weight))


def gradients(x, weight, backend, monkeypatch, b):
    monkeypatch.setattr(dispatch, "wanted", backend)
    x, weight = (t.detach().requires_grad_() for t in (x, weight))
    out = bcos_conv2d(x, weight, b=b, padding=weight.shape[2] // 2)
    out.backward(torch.ones_like(out))
    return out.detach(), x.grad, weight.grad


def test_triton_runs_what_it_takes():
    x = torch.ones(2, 3, device="cuda")
    assert dispatch.choose(x) == "triton"
    assert dispatch.choose(x.double()) == ("reference" if native.load("cuda") is None else "cuda")
    assert bcos_linear(x, x).is_cuda


@pytest.fixture(params=["triton", "cuda"])
def backend(request):
    if reason := dispatch.BACKENDS[request.param].supports(torch.ones(1, device="cuda")):
        pytest.skip(reason)
    return request.param


@pytest.mark.parametrize("b", [1.5, 2, 2.5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_errors_are_at_most_twice_those_of_the_reference(shape, dtype, b, backend, monkeypatch):
    x, weight = tensors(*shape, dtype)
    exact = gradients(x.double(), weight.double(), "reference", monkeypatch, b)
    theirs = gradients(x, weight, "reference", monkeypatch, b)
    ours = gradients(x, weight, backend, monkeypatch, b)
    for true, reference, kernel in zip(exact, theirs, ours, strict=True):
        allowed = 2 * (reference.double() - true).norm() + torch.finfo(dtype).eps * true.norm()
        assert (kernel.double() - true).norm() <= allowed


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_layer_keeps_what_a_plain_one_keeps(shape):
    x, weight = tensors(*shape, torch.bfloat16)
    padding, held = weight.shape[2] // 2, []
    for layer in (lambda: F.conv2d(x, weight, padding=padding), lambda: bcos_conv2d(x, weight, padding=padding)):
        layer()
        before = torch.cuda.memory_allocated()
        out = layer()
        held.append(torch.cuda.memory_allocated() - before)
        del out
    assert held[1] <= 1.05 * held[0]


def test_a_training_step_is_captured_in_a_graph(backend, monkeypatch):
    monkeypatch.setattr(dispatch, "wanted", backend)
    x, weight = tensors(2, 64, 16, 3, torch.bfloat16)

    def step():
        return torch.autograd.grad(bcos_conv2d(x, weight, padding=1).square().sum(), (x, weight))

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        expected = step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    for one, two in zip(expected, captured, strict=True):
        torch.testing.assert_close(one, two)


def test_cuda_kernels_wait_for_what_their_stream_does_before(monkeypatch):
    if reason := dispatch.BACKENDS["cuda"].supports(torch.ones(1, device="cuda")):
        pytest.skip(reason)
    monkeypatch.setattr(dispatch, "wanted", "cuda")
    x, side = torch.zeros(64, 64, device="cuda"), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side), torch.no_grad():
        torch.cuda._sleep(100_000_000)
        x.fill_(1)
        found = dispatch.epilogue(x).row_norm(x, 0.0)
    side.synchronize()
    assert torch.equal(found, torch.full((64,), 8.0, device="cuda"))
