"""Held gates against torch's own activations, and against the derivative they must not have."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bcos_kernels.mode import explanation_mode, stacked
from bcos_kernels.modules.gates import GEGLU, GELU, ReLU, SiLU, SwiGLU

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def glu(act):
    def reference(x):
        value, gate = x.chunk(2, -1)
        return value * act(gate)

    return reference


CASES = {
    "relu": (ReLU(), nn.ReLU()),
    "silu": (SiLU(), nn.SiLU()),
    "gelu": (GELU(), nn.GELU()),
    "gelu tanh": (GELU("tanh"), nn.GELU("tanh")),
    "geglu": (GEGLU(), glu(F.gelu)),
    "geglu tanh": (GEGLU(approximate="tanh"), glu(lambda x: F.gelu(x, approximate="tanh"))),
    "swiglu": (SwiGLU(), glu(F.silu)),
}
ALL = pytest.mark.parametrize(("gate", "reference"), CASES.values(), ids=CASES)
UNARY = pytest.mark.parametrize(("gate", "reference"), list(CASES.values())[:4], ids=list(CASES)[:4])


@ALL
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_is_that_of_torch_to_rounding(gate, reference, dtype):
    torch.manual_seed(0)
    x = (torch.randn(64, 32) * 4).to(dtype)
    ours, theirs, exact = gate(x), reference(x), reference(x.double())
    assert ours.dtype == dtype
    eps = torch.finfo(dtype).eps
    of_torch = (theirs.double() - exact).abs().max()  # GELU's in fp32 is up to 6.5 eps on some CPUs
    assert torch.allclose(ours.double(), exact, rtol=4 * eps, atol=max(4 * eps, float(of_torch)))
    assert theirs.abs().max() > 3


@ALL
def test_half_precision_keeps_its_range(gate, reference):
    x = torch.tensor([[60000.0, -60000.0, 1.0, 1.0]], dtype=torch.float16)
    assert torch.allclose(gate(x).double(), reference(x.double()), rtol=1e-3, atol=1e-3)


@ALL
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_is_bit_identical_while_explaining(gate, reference, dtype):
    x = torch.randn(8, 6).to(dtype)
    plain = gate(x)
    with explanation_mode():
        assert torch.equal(gate(x), plain)


@UNARY
def test_the_gate_is_constant_only_while_explaining(gate, reference):
    x = torch.randn(9, dtype=torch.double, requires_grad=True)
    with explanation_mode():
        (held,) = torch.autograd.grad(gate(x).sum(), x)
    assert torch.allclose(held * x, reference(x), atol=1e-12)
    (free,) = torch.autograd.grad(gate(x).sum(), x)
    (theirs,) = torch.autograd.grad(reference(x).sum(), x)
    assert torch.allclose(free, theirs, atol=1e-12)


@pytest.mark.parametrize(("gate", "act"), [(GEGLU(), F.gelu), (SwiGLU(), F.silu)], ids=["geglu", "swiglu"])
def test_only_the_value_of_a_gated_unit_carries_signal(gate, act):
    x = torch.randn(3, 8, dtype=torch.double, requires_grad=True)
    with explanation_mode():
        (held,) = torch.autograd.grad(gate(x).sum(), x)
    assert torch.equal(held[:, 4:], torch.zeros(3, 4))
    assert torch.allclose(held[:, :4], act(x[:, 4:]), atol=1e-12)


@ALL
def test_stacked_parts_share_the_gate_of_the_primal(gate, reference):
    x, v = torch.randn(2, 5, 8, dtype=torch.double)
    with explanation_mode():
        out, pushed = torch.func.jvp(gate, (x,), (v,))
    with stacked(2):
        both = gate(torch.cat([x, v]))
    assert torch.equal(both[:5], out)
    assert torch.allclose(both[5:], pushed, atol=1e-12)
    assert not torch.allclose(gate(v), pushed, atol=1e-2)


def test_a_gated_unit_splits_any_dimension():
    x = torch.randn(2, 6, 3, 3)
    value, gate = x.chunk(2, 1)
    assert torch.allclose(GEGLU(dim=1)(x), value * F.gelu(gate))


def test_bad_arguments_are_refused():
    for make in (GELU, lambda name: GEGLU(approximate=name)):
        with pytest.raises(ValueError, match="approximate must be one of"):
            make("sigmoid")
    with pytest.raises(ValueError, match=r"must be even, got \[2, 5\]"):
        GEGLU()(torch.zeros(2, 5))
