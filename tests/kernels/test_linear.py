"""bcos_linear against a loop over rows and units in float64 that shares no code with it."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bcos_kernels import BcosLinear, explanation_mode, stacked
from bcos_kernels.functional import bcos_linear

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
EXPONENTS = [1, 1.5, 2, 2.5]
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "strided": lambda x: x.repeat_interleave(3, -1)[..., ::3],
}


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def slow(x, weight, b=2, max_out=1, convention="A"):
    """One row and one unit at a time, in Python floats (mathematics §1)."""
    rows, units = x.reshape(-1, x.shape[-1]).tolist(), weight.tolist()
    out = []
    for row in rows:
        n = math.sqrt(sum(v * v for v in row)) + 1e-12
        for o in range(0, len(units), max_out):
            candidates = []
            for w in units[o : o + max_out]:
                wx, length = sum(a * v for a, v in zip(w, row, strict=True)), math.sqrt(sum(a * a for a in w))
                candidates.append((wx / length if convention == "A" else wx, abs(wx) / n, length))
            y, cosine, length = max(candidates)
            cosine = cosine if convention == "B" else cosine / length
            out.append(y * (cosine + (0 if b == 2 else 1e-6)) ** (b - 1))
    return torch.tensor(out, dtype=torch.float64).view(*x.shape[:-1], -1)


@pytest.mark.parametrize("convention", "ABC")
@pytest.mark.parametrize("max_out", [1, 3])
@pytest.mark.parametrize("b", EXPONENTS)
def test_values(b, max_out, convention, backend):
    x, weight = random(2, 5, 7), random(4 * max_out, 7, seed=1)
    expected = slow(x, weight, b, max_out, convention)
    assert expected.abs().max() > 0.1
    for layout, lay in LAYOUTS.items():
        out = bcos_linear(lay(x), weight, b, max_out, convention)
        torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-12, msg=lambda m, at=layout: f"{at}: {m}")


@pytest.mark.parametrize("shape", [(7,), (1, 7), (2, 3, 4, 7)])
def test_any_number_of_dimensions(shape):
    x, weight = random(*shape), random(3, 7, seed=1)
    torch.testing.assert_close(bcos_linear(x, weight), slow(x, weight), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 7), (2, 0, 7), (0, 3, 7), (2, 0)])
def test_empty_inputs(shape, backend):
    x, weight = torch.zeros(shape, requires_grad=True), torch.ones(3, shape[-1], requires_grad=True)
    out = bcos_linear(x, weight, b=1.5)
    dx, dw = torch.autograd.grad(out.sum(), (x, weight))
    assert out.shape == (*shape[:-1], 3)
    assert dx.shape == x.shape
    assert not out.any() and not dw.any()


def composed(x, weight):
    """The formula of B-cos-v2 for b = 2, operation by operation in x's own dtype."""
    y = F.linear(x, weight / torch.linalg.vector_norm(weight, dim=1, keepdim=True))
    return y.abs() / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + 1e-12) * y


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_error_in_a_dtype_is_that_of_torch(dtype, layout, backend):
    x, weight = LAYOUTS[layout](random(40, 33, dtype=dtype)), random(24, 33, seed=1, dtype=dtype)
    upstream = random(40, 24, seed=2, dtype=dtype)

    def run(layer, wide):
        a, w, g = (t.to(wide).detach().requires_grad_() for t in (x, weight, upstream))
        out = layer(a, w)
        return [t.detach() for t in (out, *torch.autograd.grad(out, (a, w), g))]

    found = zip(run(bcos_linear, dtype), run(composed, dtype), run(composed, torch.float64), strict=True)
    for what, (mine, torchs, truth) in zip(("out", "dx", "dw"), found, strict=True):
        assert mine.dtype == dtype
        errors = [float((t.double() - truth).norm() / truth.norm()) for t in (mine, torchs)]
        assert errors[0] <= 2 * errors[1] + torch.finfo(dtype).eps / 8, (what, errors)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("b", EXPONENTS)
def test_explanation_mode_does_not_change_a_bit(b, dtype, backend):
    x, weight = random(6, 9, dtype=dtype), random(8, 9, seed=1, dtype=dtype)
    for options in ({}, {"max_out": 2}, {"convention": "B"}, {"convention": "C", "max_out": 4}):
        plain = bcos_linear(x, weight, b, **options)
        with explanation_mode():
            assert torch.equal(bcos_linear(x, weight, b, **options), plain)


@pytest.mark.parametrize("b", EXPONENTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("convention", "ABC")
def test_zeros_give_zero_and_finite_gradients(convention, dtype, b, backend):
    some, none = random(4, 6, dtype=dtype), torch.zeros(4, 6, dtype=dtype)
    for x, weight in ((some, none), (none, some), (none, none)):
        x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = bcos_linear(x, weight, b, max_out=2, convention=convention)
        gradients = torch.autograd.grad(out.sum(), (x, weight))
        assert not out.any()
        assert all(torch.isfinite(g).all() for g in gradients)


def test_half_precision_norms_neither_overflow_nor_vanish(backend):
    large = torch.full((1, 64), 4000.0, dtype=torch.float16)  # |x|² overflows fp16
    assert bcos_linear(large, torch.ones(1, 64, dtype=torch.float16)).item() == pytest.approx(32000, rel=2e-3)
    small = torch.full((1, 4), 2.0**-20, dtype=torch.float16)  # squares vanish in fp16
    assert bcos_linear(small, torch.ones(1, 4, dtype=torch.float16)).item() == pytest.approx(2.0**-19, rel=2e-2)


def test_tiny_inputs_have_exact_gradients(backend):
    """Where the ε of the norm is felt, x / (|x| + ε) is not the slope of the norm."""
    x, weight = (random(3, 5) * 1e-12).requires_grad_(), random(4, 5, seed=1).requires_grad_()

    def plain(x, weight):
        y = F.linear(x, weight / weight.norm(dim=1, keepdim=True))
        return y * y.abs() / (x.norm(dim=1, keepdim=True) + 1e-12)

    found = torch.autograd.grad(bcos_linear(x, weight).sum(), (x, weight))
    expected = torch.autograd.grad(plain(x, weight).sum(), (x, weight))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=float(theirs.abs().max()) * 1e-9)


def test_autocast_computes_in_its_type_and_keeps_parameters_wide():
    x, weight = (t.float().requires_grad_() for t in (random(4, 8), random(3, 8, seed=1)))
    with torch.autocast("cpu", torch.bfloat16):
        out = bcos_linear(x, weight)
        assert bcos_linear(x.bfloat16(), weight).dtype == torch.bfloat16
    dx, dw = torch.autograd.grad(out.float().sum(), (x, weight))
    assert (out.dtype, dx.dtype, dw.dtype) == (torch.bfloat16, torch.float32, torch.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": 0.9}, "b must be"),
        ({"b": float("nan")}, "b must be"),
        ({"max_out": 0}, "max_out"),
        ({"max_out": 4}, "max_out"),
        ({"convention": ""}, "convention"),
        ({"x": torch.ones(2, 4)}, "expected"),
        ({"x": torch.ones(())}, "expected"),
        ({"x": torch.ones(2, 5, dtype=torch.int32)}, "floating"),
        ({"x": torch.ones(2, 5, dtype=torch.float16)}, "one dtype"),
        ({"weight": torch.ones(6, 5, 1, 1)}, "expected"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"x": torch.ones(2, 5), "weight": torch.ones(6, 5)}
    assert bcos_linear(**good).shape == (2, 6)
    with pytest.raises(ValueError, match=message):
        bcos_linear(**(good | change))


class TestModule:
    def test_signature_is_that_of_bcos(self):
        layer = BcosLinear(7, 4, False, None, torch.float64, 1.5, 3)
        assert (layer.in_features, layer.out_features, layer.b, layer.max_out) == (7, 4, 1.5, 3)
        x = random(2, 5, 7)
        torch.testing.assert_close(layer(x), slow(x, layer.linear.weight.detach(), 1.5, 3), rtol=1e-11, atol=1e-12)

    def test_state_is_one_weight(self):
        state = nn.Sequential(BcosLinear(6, 4, max_out=3)).state_dict()
        assert {name: tuple(t.shape) for name, t in state.items()} == {"0.linear.weight": (12, 6)}

    def test_its_linear_part_has_unit_rows(self):
        layer, x = BcosLinear(7, 4, dtype=torch.float64), random(3, 7)
        torch.testing.assert_close(layer.linear(x), slow(x, layer.linear.weight.detach(), b=1))

    @pytest.mark.parametrize("bad", [{"b": 0}, {"max_out": 0}, {"convention": "a"}, {"bias": True}])
    def test_bad_options_are_refused_at_once(self, bad):
        with pytest.raises(ValueError, match=next(iter(bad))):
            BcosLinear(3, 4, **bad)

    def test_a_stack_must_divide_into_its_parts(self):
        with stacked(3), pytest.raises(ValueError, match="multiple of 3"):
            BcosLinear(4, 2)(torch.ones(4, 4))


def test_tensors_of_two_devices_are_refused():
    with pytest.raises(ValueError, match=r"one device, got .* on cpu and .* on meta"):
        bcos_linear(torch.ones(2, 3), torch.ones(4, 3, device="meta"))
