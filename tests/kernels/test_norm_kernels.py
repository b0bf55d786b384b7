"""The compiled norms (C++; Triton, interpreted where there is no device) against float64, in every layout and type.

Tolerances are bounds, as in test_epilogue.py: one rounding of the output type and a few of the accumulation type.
"""

import importlib.util

import pytest
import torch
from references.epilogue import IMAGE_LAYOUTS, accumulator, check, random
from references.norms import EPS, KINDS, gradients, truth

from bcos_kernels import native
from bcos_kernels.ops.norms import cpu, reference, triton

CPU = native.load()
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# shape, groups, per_pixel
SPANS = {
    "groups": ((2, 12, 3, 5), 3, False),
    "one group": ((2, 6, 5, 7), 1, False),
    "instances": ((2, 5, 4, 9), 5, False),
    "batch": ((1, 6, 3, 20), 6, False),
    "vectors": ((3, 12, 1, 1), 4, False),
    "positions": ((2, 19, 3, 5), 1, True),
    "rows": ((5, 35, 1, 1), 1, True),
}
LARGE = {
    "groups": ((2, 6, 33, 41), 2, False),
    "one group": ((1, 70, 9, 33), 1, False),
    "batch": ((1, 5, 7, 300), 5, False),
    "positions": ((1, 70, 9, 77), 1, True),
    "rows": ((70, 1100, 1, 1), 1, True),
}


class Kernels:
    """One backend, and what of the cases is for it."""

    def __init__(self, functions, device, dtypes):
        self.functions, self.device, self.dtypes = functions, device, dtypes
        self.interpreted = functions is triton and device == "cpu"

    def layouts(self, dtype):
        if dtype not in self.dtypes:
            pytest.skip(f"not for {dtype}")
        names = list(IMAGE_LAYOUTS)
        if self.interpreted:  # in the interpreter a half type changes nothing but the casts
            names = names[:2] if dtype == torch.float32 else names[1:2]
        return {name: IMAGE_LAYOUTS[name] for name in names}

    def needs(self):
        """Which gradients to ask for: of x, of the weight."""
        return [(True, True)] if self.interpreted else [(True, True), (True, False), (False, True)]

    def check(self, out, expected, magnitude, where):
        # Triton's interpreter cuts bfloat16 off where a device rounds.
        cut = self.interpreted and out.dtype == torch.bfloat16
        check(out, expected, magnitude, where, roundings=16, last=1 if cut else 0.501)


# The interpreter takes minutes: the default run has the layers of test_triton_norms.py.
@pytest.fixture(params=["baseline", "avx2", "reference", pytest.param("triton", marks=pytest.mark.slow)])
def kernels(request, monkeypatch):
    if request.param == "reference":
        yield Kernels(reference, "cpu", DTYPES)
        return
    if request.param == "triton":
        if importlib.util.find_spec("triton") is None:
            pytest.skip("triton is not installed")
        if DEVICE == "cpu":
            monkeypatch.setenv("TRITON_INTERPRET", "1")
        yield Kernels(triton, DEVICE, DTYPES[:3])
        return
    if CPU is None or request.param not in CPU.instruction_sets():
        pytest.skip(native.why_missing() or f"this machine has no {request.param}")
    before = CPU.instruction_set()
    CPU.select_instruction_set(request.param)
    yield Kernels(cpu, "cpu", DTYPES)
    CPU.select_instruction_set(before)


def inputs(shape, dtype, device):
    """x off its centre, a gradient, and a weight in the accumulation type."""
    x = random(shape, dtype, 0, device) * 2 + 3
    return x, random(shape, dtype, 1, device), random(shape[1:2], accumulator(dtype), 2, device)


def check_all(kernels, x, grad, weight, span, kind, where):
    """Forward, given statistics, and every backward."""
    (_, groups, per_pixel), (centred, about_mean), f = span, KINDS[kind], kernels.functions
    out, mean, rstd = f.forward(x, weight, groups, EPS, centred, about_mean, per_pixel)
    expected, true_mean, true_rstd, size = truth(x, weight, groups, centred, about_mean, per_pixel)
    assert out.dtype == x.dtype and rstd.dtype == accumulator(x.dtype)
    assert mean.shape == (true_mean.shape if about_mean else (0,))
    kernels.check(out, expected, size, f"{where}: out")
    kernels.check(rstd, true_rstd, true_rstd, f"{where}: rstd")
    assert torch.equal(f.output(x, weight, groups, EPS, centred, about_mean, per_pixel), out)
    alone = f.statistics(x, groups, EPS, about_mean, per_pixel)
    assert torch.equal(alone[0], mean) and torch.equal(alone[1], rstd)
    mean = true_mean.to(rstd) if about_mean else None
    given = f.apply(x, weight, mean if centred else None, true_rstd.to(rstd))
    kernels.check(given, expected, size, f"{where}: given")
    for held in (False, True):
        dx, dw, dx_size, dw_size = gradients(grad, x, weight, groups, centred, about_mean, per_pixel, held)
        for need_dx, need_dw in kernels.needs():
            found = f.backward(
                grad, x, weight, mean, true_rstd.to(rstd), centred, about_mean, held, need_dx, need_dw
            )  # fmt: skip
            place = f"{where}: held {held}"
            assert [len(t) > 0 for t in found] == [need_dx, need_dw]
            if need_dx:
                kernels.check(found[0], dx, dx_size, f"{place}, dx")
            if need_dw:
                kernels.check(found[1], dw, dw_size, f"{place}, dw")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("span", SPANS)
def test_every_layout(span, kind, dtype, kernels):
    for layout, lay in kernels.layouts(dtype).items():
        x, grad, weight = inputs(SPANS[span][0], dtype, kernels.device)
        check_all(kernels, lay(x), lay(grad), weight, SPANS[span], kind, layout)
    if dtype == torch.float32:
        lay = IMAGE_LAYOUTS["sliced"]
        check_all(kernels, lay(x), grad[:, :1, :1, :1].expand_as(x), None, SPANS[span], kind, "sliced, no weight")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("span", LARGE)
def test_sums_in_many_parts(span, kind, layout, kernels, monkeypatch):
    if kernels.interpreted and (layout == "sliced" or kind == "deviation"):
        pytest.skip("sums are split as for the others")
    monkeypatch.setattr(triton, "PROGRAMS", 4)  # each then sums several tiles
    x, grad, weight = inputs(LARGE[span][0], torch.float32, kernels.device)
    if kernels.interpreted and LARGE[span][2]:
        x, grad = x[:5, :, :2], grad[:5, :, :2]
    lay = IMAGE_LAYOUTS[layout]
    check_all(kernels, lay(x), lay(grad), weight, LARGE[span], kind, layout)


@pytest.mark.parametrize("span", SPANS)
def test_expanded_inputs(span, kernels):
    shape, groups, per_pixel = SPANS[span]
    x = (random((1, shape[1], 1, 1), torch.float32, 0, kernels.device) + 1).expand(shape)
    out, *_ = kernels.functions.forward(x, None, groups, EPS, False, False, per_pixel)
    expected, _, _, size = truth(x, None, groups, False, False, per_pixel)
    kernels.check(out, expected, size, span)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("span", LARGE)
def test_a_far_centre_costs_no_precision(span, layout, kernels, monkeypatch):
    """A variance as the difference of two large sums would have no digit left."""
    monkeypatch.setattr(triton, "PROGRAMS", 4)
    shape, groups, per_pixel = LARGE[span]
    x = random(shape, torch.float32, 0, kernels.device)[: 5 if kernels.interpreted else None] + 10000
    x = IMAGE_LAYOUTS[layout](x)
    out, _, rstd = kernels.functions.forward(x, None, groups, EPS, True, True, per_pixel)
    expected, _, true_rstd, _ = truth(x, None, groups, True, True, per_pixel)
    torch.testing.assert_close(rstd.double(), true_rstd, rtol=2e-3, atol=0)
    torch.testing.assert_close(out.double(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("span", SPANS)
def test_constants_are_finite(span, kind, dtype, kernels):
    (shape, groups, per_pixel), (centred, about_mean) = SPANS[span], KINDS[kind]
    if dtype not in kernels.dtypes or (kernels.interpreted and dtype != torch.float32):
        pytest.skip(f"not for {dtype}")
    for value in (0.0, 2.0):
        x = torch.full(shape, value, dtype=dtype, device=kernels.device)
        out, mean, rstd = kernels.functions.forward(x, None, groups, EPS, centred, about_mean, per_pixel)
        rms = value / (value**2 + EPS) ** 0.5
        constant = {"centred": 0.0, "deviation": value / EPS**0.5, "rms": rms}[kind]
        torch.testing.assert_close(out, torch.full_like(out, constant), rtol=2e-2, atol=0)
        found = kernels.functions.backward(
            torch.ones_like(x), x, None, mean if about_mean else None, rstd, centred, about_mean, False, True, True
        )
        assert all(t.isfinite().all() for t in found)


@pytest.mark.parametrize("span", SPANS)
def test_halves_at_the_end_of_their_range(span, kernels):
    shape, groups, per_pixel = SPANS[span]
    x = random(shape, torch.float32, 0, kernels.device)
    x = (x / x.abs().max() * 65504).half()
    for centred, about_mean in KINDS.values():
        out, *_ = kernels.functions.forward(x, None, groups, EPS, centred, about_mean, per_pixel)
        expected, _, _, size = truth(x, None, groups, centred, about_mean, per_pixel)
        kernels.check(out, expected, size, span)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("span", SPANS)
def test_what_is_not_finite_stays_visible(span, kind, bad, kernels):
    (shape, groups, per_pixel), (centred, about_mean) = SPANS[span], KINDS[kind]
    x = random(shape, torch.float32, 0, kernels.device)
    x[0, 1, 0, 0] = bad
    for layout in ("contiguous", "channels_last"):
        out, *_ = kernels.functions.forward(
            IMAGE_LAYOUTS[layout](x), None, groups, EPS, centred, about_mean, per_pixel
        )  # fmt: skip
        expected, *_ = truth(x, None, groups, centred, about_mean, per_pixel)
        assert not out[0, 1, 0, 0].isfinite()
        assert torch.equal(out.isfinite(), expected.isfinite())


@pytest.mark.parametrize("per_pixel", [False, True])
@pytest.mark.parametrize("shape", [(0, 6, 3, 4), (2, 6, 0, 4)], ids=str)
def test_nothing_gives_nothing(shape, per_pixel, kernels):
    x, weight = torch.empty(shape, device=kernels.device), torch.ones(6, device=kernels.device)
    out, mean, rstd = kernels.functions.forward(x, weight, 1, EPS, True, True, per_pixel)
    dx, dw = kernels.functions.backward(out, x, weight, mean, rstd, True, True, False, True, True)
    assert out.shape == dx.shape == x.shape
    assert torch.equal(dw, torch.zeros_like(weight))
