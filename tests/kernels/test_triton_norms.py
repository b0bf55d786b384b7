"""Whole norms on the Triton backend, forward, backward and stacked, against the reference in float64."""

import importlib.util

import pytest
import torch

from bcos_kernels import dispatch, explanation_mode, stacked
from bcos_kernels.modules.norms import BatchNorm2d, GroupNorm, LayerNorm, PositionNorm2d, RMSNorm

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NORMS = {
    "group": (lambda: GroupNorm(2, 6, centred=True), (4, 6, 3, 5)),
    "group uncentred": (lambda: GroupNorm(3, 6), (4, 6, 7)),
    "layer": (lambda: LayerNorm(6), (4, 5, 6)),
    "rms": (lambda: RMSNorm(6), (4, 6)),
    "position": (lambda: PositionNorm2d(6), (4, 6, 3, 5)),
    "batch": (lambda: BatchNorm2d(6, track_running_stats=False), (4, 6, 3, 5)),
    "batch in evaluation": (lambda: BatchNorm2d(6).eval(), (4, 6, 3, 5)),
}


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


def case(name, dtype):
    torch.manual_seed(0)
    make, shape = NORMS[name]
    norm, x, grad = make(), torch.randn(shape) * 2 + 1, torch.randn(shape)
    torch.nn.init.normal_(norm.weight, 1, 0.5)
    if getattr(norm, "running_mean", None) is not None:
        torch.nn.init.normal_(norm.running_mean)
    return norm.to(DEVICE, dtype), x.to(DEVICE, dtype), grad.to(DEVICE, dtype)


def run(backend, name, dtype, held, monkeypatch):
    """Output and both gradients of float32 values, in the type given."""
    monkeypatch.setattr(dispatch, "wanted", backend)
    norm, x, grad = (t.to(dtype) for t in case(name, torch.float32))
    x.requires_grad_()
    if held:
        with explanation_mode():
            out = norm(x)
    else:
        out = norm(x)
    out.backward(grad)
    return out.detach(), x.grad, norm.weight.grad


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", NORMS)
def test_errors_are_at_most_twice_those_of_the_reference(name, dtype, held, monkeypatch):
    exact = run("reference", name, torch.float64, held, monkeypatch)
    theirs, ours = (run(backend, name, dtype, held, monkeypatch) for backend in ("reference", "triton"))
    for true, reference, kernel in zip(exact, theirs, ours, strict=True):
        allowed = 2 * (reference.double() - true).norm() + 2 * torch.finfo(torch.float32).eps * true.norm()
        assert kernel.dtype == dtype
        assert (kernel.double() - true).norm() <= allowed


@pytest.mark.parametrize("name", NORMS)
def test_a_stack_is_pushed_through_with_the_statistics_of_its_first_part(name, monkeypatch):
    norm, x, v = case(name, torch.float32)
    found = {}
    for backend in ("triton", "reference"):
        monkeypatch.setattr(dispatch, "wanted", backend)
        with torch.no_grad(), stacked(3):
            found[backend] = norm(torch.cat([x, v, x - v]))
    torch.testing.assert_close(found["triton"], found["reference"])
