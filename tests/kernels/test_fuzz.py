"""Random shapes, options, types, layouts and values: kernels against the reference in float64, forward and backward."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bcos_kernels import dispatch, explanation_mode
from bcos_kernels.functional import bcos_conv2d, bcos_linear

CASES = settings(max_examples=1500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = ["contiguous", "channels_last", "sliced", "expanded"]

commons = {
    "dtype": st.sampled_from(DTYPES),
    "layout": st.sampled_from(LAYOUTS),
    "b": st.one_of(st.sampled_from([1, 1.5, 2, 2.5]), st.floats(1, 4)),
    "max_out": st.integers(1, 3),
    "convention": st.sampled_from("ABC"),
    "held": st.booleans(),
    "size": st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
    "seed": st.integers(0, 2**16),
}


def tensor(shape, dtype, seed, size=1.0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * size).to(dtype)


def laid_out(x, layout):
    """The same values, as somebody else's tensor may hold them."""
    if layout == "channels_last" and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1] + 1), float("nan"), dtype=x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    if layout == "expanded":
        return x[:1].expand_as(x)
    return x


def outcome(layer, x, weight, cotangent, held, backend, monkeypatch):
    monkeypatch.setattr(dispatch, "wanted", backend)
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    if held:
        with explanation_mode():
            out = layer(x, weight)
    else:
        out = layer(x, weight)
    return out.detach(), *torch.autograd.grad(out, (x, weight), cotangent(out))


def check(layer, x, weight, b, seed, held, monkeypatch):
    def cotangent(out):
        return tensor(out.shape, x.dtype, seed + 2).to(out.dtype)

    exact = outcome(layer, x.double(), weight.double(), cotangent, held, "reference", monkeypatch)
    theirs = outcome(layer, x, weight, cotangent, held, "reference", monkeypatch)
    ours = outcome(layer, x, weight, cotangent, held, "auto", monkeypatch)
    eps, lengths = torch.finfo(x.dtype).eps, weight.double().flatten(1).norm(dim=1)
    flow = cotangent(exact[0]).double().norm()
    # What each would be if nothing cancelled. Where all of it does, as what points along a weight, rounding is left.
    least = lengths[lengths > 0].min() if lengths.any() else torch.tensor(1.0)
    bounds = 0.0, b * flow * lengths.norm() / least, b * flow * x.double().norm() / least
    for true, reference, kernel, bound in zip(exact, theirs, ours, bounds, strict=True):
        assert kernel.shape == true.shape and kernel.dtype == x.dtype
        assert kernel.isfinite().all() or not reference.isfinite().all()
        finite = true.isfinite() & reference.isfinite() & kernel.isfinite()
        true, reference, kernel = (t.double()[finite] for t in (true, reference, kernel))
        floor = 8 * eps * true.norm() + 2 * eps * bound + torch.finfo(x.dtype).tiny
        assert (kernel - true).norm() <= 2 * (reference - true).norm() + floor


@pytest.mark.slow
@CASES
@given(data=st.data(), **commons)
def test_convolutions(data, dtype, layout, b, max_out, convention, held, size, seed):
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, units = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 4))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.one_of(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.sampled_from(["same", "valid"])))
    mode = draw(st.sampled_from(["zeros", "zeros", "replicate", "reflect", "circular"]))
    stride = (1, 1) if padding == "same" else stride
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    height, width = (r + 3 + draw(st.integers(0, 6)) for r in reach)  # room to reflect 3 pixels
    x = laid_out(tensor((draw(st.integers(0, 3)), channels, height, width), dtype, seed, size), layout)
    weight = tensor((units * max_out, channels // groups, *kernel), dtype, seed + 1)
    if draw(st.booleans()):
        weight[0] = 0
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode}
    with pytest.MonkeyPatch.context() as monkeypatch:
        check(
            lambda x, w: bcos_conv2d(x, w, b, max_out, convention=convention, **options),
            x, weight, b, seed, held, monkeypatch,
        )  # fmt: skip


@pytest.mark.slow
@CASES
@given(data=st.data(), **commons)
def test_matrix_products(data, dtype, layout, b, max_out, convention, held, size, seed):
    lead = data.draw(st.lists(st.integers(0, 5), max_size=3))
    depth, units = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 20))
    x = tensor((*lead, depth), dtype, seed, size)
    x = laid_out(x, layout) if lead else x
    weight = tensor((units * max_out, depth), dtype, seed + 1)
    if data.draw(st.booleans()):
        weight[0] = 0
    with pytest.MonkeyPatch.context() as monkeypatch:
        check(
            lambda x, w: bcos_linear(x, w, b, max_out, convention), x, weight, b, seed, held, monkeypatch
        )  # fmt: skip
