"""Whole layers on the backends of a device, forward and backward, against the reference in float64."""

import importlib.util

import pytest
import torch
from references import host_cuda
from references.epilogue import random

from bcos_kernels import dispatch, explanation_mode, stacked
from bcos_kernels.functional import bcos_conv2d, bcos_linear
from bcos_kernels.ops.epilogue import cuda

triton_only = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONVOLUTIONS = {
    "patch": ((2, 6, 7, 5), (4, 6, 3, 3), {"padding": 1}),
    "pixel": ((2, 6, 4, 5), (4, 6, 1, 1), {}),
    "strided": ((2, 4, 8, 7), (6, 2, 3, 2), {"stride": (2, 1), "padding": (1, 0), "groups": 2}),
    "dilated": ((1, 3, 9, 8), (4, 3, 3, 3), {"dilation": 2, "padding": "same", "max_out": 2}),
}


@pytest.fixture(params=[pytest.param("triton", marks=triton_only), "cuda"])
def backend(request, monkeypatch):
    if request.param == "cuda":
        host_cuda.use(monkeypatch)
    elif DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    return request.param


def run(function, x, weight, cotangent, backend, monkeypatch, **options):
    """Output and both gradients."""
    monkeypatch.setattr(dispatch, "wanted", backend)
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    out = function(x, weight, **options)
    out.backward(cotangent.to(out.dtype))
    return out.detach(), x.grad, weight.grad


def compare(function, x, weight, backend, monkeypatch, **options):
    """Errors against float64 are at most twice those of the reference in the same type."""
    monkeypatch.setattr(dispatch, "wanted", "reference")
    with torch.no_grad():
        shape = function(x.double(), weight.double(), **options).shape
    cotangent = random(shape, torch.float64, 3, DEVICE)
    exact = run(function, x.double(), weight.double(), cotangent, "reference", monkeypatch, **options)
    theirs = run(function, x, weight, cotangent, "reference", monkeypatch, **options)
    ours = run(function, x, weight, cotangent, backend, monkeypatch, **options)
    for true, reference, kernel in zip(exact, theirs, ours, strict=True):
        allowed = 2 * (reference.double() - true).norm() + 2 * torch.finfo(x.dtype).eps * true.norm()
        assert kernel.dtype == x.dtype
        assert (kernel.double() - true).norm() <= allowed


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("b", [1.5, 2, 2.5])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name, b, held, backend, monkeypatch):
    x_shape, weight_shape, options = CONVOLUTIONS[name]
    x, weight = (random(shape, torch.float32, i, DEVICE) for i, shape in enumerate((x_shape, weight_shape)))
    for layout in (torch.contiguous_format, torch.channels_last):
        if held:
            with explanation_mode():
                compare(bcos_conv2d, x.to(memory_format=layout), weight, backend, monkeypatch, b=b, **options)
        else:
            compare(bcos_conv2d, x.to(memory_format=layout), weight, backend, monkeypatch, b=b, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("b", [1.5, 2, 2.5])
def test_linear(b, dtype, backend, monkeypatch):
    if backend == "triton" and dtype == torch.float64:
        pytest.skip("not for float64")
    x, weight = random((3, 5, 24), dtype, 0, DEVICE), random((8, 24), dtype, 1, DEVICE)
    compare(bcos_linear, x, weight, backend, monkeypatch, b=b, max_out=2)


def test_a_stack_is_pushed_through_with_the_factors_of_its_first_part(backend, monkeypatch):
    x, weight = random((6, 3, 5, 4), torch.float32, 0, DEVICE), random((4, 3, 3, 3), torch.float32, 1, DEVICE)
    found = {}
    for name in (backend, "reference"):
        monkeypatch.setattr(dispatch, "wanted", name)
        with torch.no_grad(), stacked(3):
            found[name] = bcos_conv2d(x, weight, padding=1)
    torch.testing.assert_close(found[backend], found["reference"])


@triton_only
def test_triton_says_what_it_does_not_take(monkeypatch):
    monkeypatch.setattr(dispatch, "wanted", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match=r"float32, bfloat16 and float16, not torch\.float64"):
        bcos_linear(random((2, 3), torch.float64, 0, DEVICE), random((2, 3), torch.float64, 1, DEVICE))
    if DEVICE == "cpu":
        monkeypatch.delenv("TRITON_INTERPRET")
        with pytest.raises(ValueError, match="CUDA devices, not on cpu"):
            bcos_linear(torch.ones(2, 3), torch.ones(2, 3))


def test_cuda_says_what_it_does_not_take(monkeypatch):
    host_cuda.use(monkeypatch)
    monkeypatch.setattr(dispatch, "wanted", "cuda")
    with pytest.raises(ValueError, match=r"float16, not torch\.int64"):
        dispatch.choose(torch.ones(2, 3, device=DEVICE, dtype=torch.int64))
    monkeypatch.setattr(cuda, "DEVICE", "cuda")
    with pytest.raises(ValueError, match="CUDA devices, not on cpu"):
        bcos_linear(torch.ones(2, 3), torch.ones(2, 3))
