"""The compiled epilogues against slow float64 references.

Where there is no device, Triton kernels are interpreted and CUDA kernels compiled for the host.

Tolerances are bounds, not habits: one rounding of the output type plus a few roundings of the accumulation
type, relative to the sum of the magnitudes that enter each output.
"""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from references import host_cuda
from references.epilogue import (
    GEOMETRIES,
    IMAGE_LAYOUTS,
    ROW_LAYOUTS,
    accumulator,
    check,
    cosine_of_output,
    random,
    scale_reference,
    square_sums,
)

from bcos_kernels import native
from bcos_kernels.ops.epilogue import cpu, cuda, triton

CPU = native.load()
HALF_AND_SINGLE = [torch.float32, torch.bfloat16, torch.float16]
DTYPES = [*HALF_AND_SINGLE, torch.float64]
EXPONENTS = [(1.0, 1e-6), (1.5, 1e-6), (2.0, 0.0), (2.5, 1e-6), (1.25, 1e-3), (3.0, 0.0)]


class Kernels:
    """One backend where it can run, and which of the cases are for it."""

    def __init__(self, functions, device, dtypes, least_b):
        self.functions, self.device, self.dtypes, self.least_b = functions, device, dtypes, least_b

    def takes(self, dtype, b=2.0):
        if dtype not in self.dtypes or b < self.least_b:
            pytest.skip(f"not for {dtype} and b = {b}")

    def layouts(self, layouts, dtype):
        """All of them; in the interpreter, where a half type changes nothing but the casts, one for those."""
        interpreted = self.functions is triton and self.device == "cpu"
        return list(layouts.items())[1:2] if interpreted and dtype != torch.float32 else list(layouts.items())

    def check(self, out, expected, magnitude, where, roundings=8):
        # Triton's interpreter cuts bfloat16 off where a device rounds.
        cut = self.functions is triton and self.device == "cpu" and out.dtype == torch.bfloat16
        check(out, expected, magnitude, where, roundings, last=1 if cut else 0.501)

    def random(self, shape, dtype, seed=0):
        self.takes(dtype)
        return random(shape, dtype, seed, self.device)


@pytest.fixture(params=["baseline", "avx2", "triton", "cuda"])
def kernels(request, monkeypatch):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if request.param == "triton":
        if importlib.util.find_spec("triton") is None:
            pytest.skip("triton is not installed")
        if device == "cpu":
            monkeypatch.setenv("TRITON_INTERPRET", "1")
        yield Kernels(triton, device, HALF_AND_SINGLE, least_b=1.01)
        return
    if request.param == "cuda":
        host_cuda.use(monkeypatch)
        yield Kernels(cuda, device, DTYPES, least_b=1)
        return
    if CPU is None or request.param not in CPU.instruction_sets():
        pytest.skip(native.why_missing() or f"this machine has no {request.param}")
    before = CPU.instruction_set()
    CPU.select_instruction_set(request.param)
    yield Kernels(cpu, "cpu", DTYPES, least_b=1)
    CPU.select_instruction_set(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 65), (70, 33), (0, 4), (4, 0), (300, 130)], ids=str)
def test_row_norm(shape, dtype, kernels):
    for layout, lay in kernels.layouts(ROW_LAYOUTS, dtype):
        x = lay(kernels.random(shape, dtype))
        out = kernels.functions.row_norm(x, 1e-3)
        assert out.dtype == accumulator(dtype)
        expected = x.double().norm(dim=1) + 1e-3
        kernels.check(out, expected, expected, layout)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_patch_norm(geometry, dtype, kernels):
    batch, channels, size, *window = GEOMETRIES[geometry]
    for layout, lay in kernels.layouts(IMAGE_LAYOUTS, dtype):
        x = lay(kernels.random((batch, channels, *size), dtype))
        out = kernels.functions.patch_norm(x, *window, 1e-6)
        expected = (square_sums(x, window) + 1e-6).sqrt()
        assert out.dtype == accumulator(dtype) and out.shape == expected.shape
        kernels.check(out, expected, expected, layout)


def test_half_precision_norms_do_not_overflow(kernels):
    x = torch.full((1, 8, 3, 3), 3e4, dtype=torch.float16, device=kernels.device)
    out = kernels.functions.patch_norm(x, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, 1e-6)
    assert out[0, 0, 1, 1].item() == pytest.approx(float(x[0, 0, 0, 0]) * 72**0.5, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("b", "delta"), EXPONENTS)
@pytest.mark.parametrize("groups", [1, 3, 12])
def test_scale_and_its_derivatives(groups, b, delta, dtype, kernels):
    kernels.takes(dtype, b)
    y = kernels.random((2, 12, 5, 9), dtype)
    y.view(-1)[::7] = 0
    grad = kernels.random(y.shape, dtype, seed=1)
    n = kernels.random((2, groups, 5, 9), accumulator(dtype), seed=2).abs() * 3 + 1
    for layout, lay in kernels.layouts(IMAGE_LAYOUTS, dtype):
        check_scale(kernels, lay(y), lay(grad), n, b, delta, groups, layout)
    check_scale(kernels, y, IMAGE_LAYOUTS["channels_last"](grad), n, b, delta, groups, "mixed")
    check_scale(kernels, y, grad[:, :1, :1, :1].expand_as(y), n, b, delta, groups, "expanded gradient")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("b", "delta"), EXPONENTS)
def test_scale_of_rows(b, delta, dtype, kernels):
    kernels.takes(dtype, b)
    y, grad = kernels.random((37, 19), dtype), kernels.random((37, 19), dtype, seed=1)
    n = kernels.random((37,), accumulator(dtype), seed=2).abs() * 3 + 1
    for layout, lay in kernels.layouts(ROW_LAYOUTS, dtype):
        check_scale(kernels, lay(y), lay(grad), n, b, delta, 1, layout)


def check_scale(kernels, w_x, grad, n, b, delta, groups, where):
    """With and without lengths of the weights, by which the responses are divided."""
    units = w_x.shape[1]
    lengths = (torch.arange(units, device=w_x.device) / 3).to(n.dtype)  # a unit without length among them
    for length in (None, lengths):
        _check_scale(kernels, w_x, grad, n, length, b, delta, groups, f"{where}, lengths {length is not None}")


def _check_scale(kernels, w_x, grad, n, lengths, b, delta, groups, where):
    wide = n[:, None] if w_x.dim() == 2 else n.repeat_interleave(w_x.shape[1] // groups, dim=1)
    gains = torch.ones(w_x.shape[1], device=w_x.device, dtype=torch.float64)
    if lengths is not None:
        gains = torch.where(lengths == 0, 1.0, 1 / lengths.double())
    gains = gains.view(-1, *[1] * (w_x.dim() - 2))
    # A power amplifies the rounding of its base by its exponent.
    roundings = 8 + 8 * b
    y = w_x.double() * gains
    given = torch.empty_strided(w_x.shape, w_x.stride(), dtype=w_x.dtype, device=w_x.device).copy_(w_x)
    out = kernels.functions.scale(given, n, lengths, b, delta)
    expected = scale_reference(y, wide, b, delta)
    assert out.dtype == w_x.dtype
    assert out is given  # the output takes the memory of the response
    kernels.check(out, expected, expected.abs(), where, roundings)

    delta = 0.0 if b == 2 else delta
    kept = torch.empty_strided(w_x.shape, w_x.stride(), dtype=w_x.dtype, device=w_x.device).copy_(expected)
    u = cosine_of_output(kept, wide, b, delta)
    ratio = torch.where(u + delta == 0, 0.0, u / (u + delta))
    flow = grad.double() * (u + delta) ** (b - 1)
    terms = -(b - 1) * grad.double() * kept.double() * ratio / wide.double() ** 2
    grad_y, c = kernels.functions.scale_backward(grad, kept, n, lengths, b, delta)
    expected = flow * (1 + (b - 1) * ratio) * gains
    kernels.check(grad_y, expected, expected.abs(), where, roundings)
    parts = terms[:, None] if w_x.dim() == 2 else terms.unflatten(1, (groups, -1))
    sums = parts.sum(2)
    assert c.dtype == n.dtype and grad_y.stride() == torch.empty_like(kept).stride()
    kernels.check(c, sums.reshape(n.shape), parts.abs().sum(2).reshape(n.shape), where, roundings)


@pytest.mark.parametrize("b", [1.5, 2.0, 2.5])
def test_derivatives_agree_with_autograd(b, kernels):
    x = kernels.random((2, 6, 7, 6), torch.float64)
    weight = kernels.random((4, 6, 3, 3), torch.float64, seed=1)
    window = ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)

    def layer(x):
        y = F.conv2d(x, weight, padding=1)
        n = (square_sums(x, window) + 1e-6).sqrt()
        return y * (y.abs() / n + (0.0 if b == 2 else 1e-6)) ** (b - 1)

    leaf = x.clone().requires_grad_()
    grad = kernels.random((2, 4, 7, 6), torch.float64, seed=2)
    (expected,) = torch.autograd.grad(layer(leaf), leaf, grad)

    n = kernels.functions.patch_norm(x, *window, 1e-6)
    grad_y, c = kernels.functions.scale_backward(grad, layer(x), n, None, b, 1e-6)
    dx = F.conv_transpose2d(grad_y, weight, padding=1)
    kernels.functions.spread(dx, x, c, *window)
    torch.testing.assert_close(dx, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_spread_is_the_adjoint_of_the_patch_sum(geometry, dtype, kernels):
    batch, channels, size, *window = GEOMETRIES[geometry]
    x, start = (kernels.random((batch, channels, *size), dtype, seed) for seed in (0, 1))
    ones = torch.ones(x.shape, dtype=torch.float64, device=x.device, requires_grad=True)
    sums = square_sums(ones, window)  # its derivative at one is twice the adjoint
    c = kernels.random(sums.shape, accumulator(dtype), seed=2)
    (twice,) = torch.autograd.grad(sums, ones, c.double(), retain_graph=True)
    (reach,) = torch.autograd.grad(sums, ones, c.double().abs())
    expected = start.double() + x.double() * twice / 2
    magnitude = start.double().abs() + x.double().abs() * reach / 2
    for layout, lay in kernels.layouts(IMAGE_LAYOUTS, dtype):
        dx = lay(start.clone())
        kernels.functions.spread(dx, lay(x), c, *window)
        kernels.check(dx, expected, magnitude, layout)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_spread_rows(dtype, kernels):
    x, start = kernels.random((40, 21), dtype), kernels.random((40, 21), dtype, seed=1)
    c = kernels.random((40,), accumulator(dtype), seed=2)
    added = x.double() * c.double()[:, None]
    for layout, lay in kernels.layouts(ROW_LAYOUTS, dtype):
        dx = lay(start.clone())
        kernels.functions.spread_rows(dx, lay(x), c)
        kernels.check(dx, start.double() + added, start.double().abs() + added.abs(), layout)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize(("b", "delta"), EXPONENTS)
def test_zero_gives_zero_and_never_nan(b, delta, layout, dtype, kernels):
    kernels.takes(dtype, b)
    y = IMAGE_LAYOUTS[layout](torch.zeros(2, 8, 3, 5, dtype=dtype, device=kernels.device))
    n = torch.zeros(2, 1, 3, 5, dtype=accumulator(dtype), device=kernels.device)  # eps = 0 and a zero patch
    assert not kernels.functions.scale(y, n, None, b, delta).any()
    grad_y, c = kernels.functions.scale_backward(torch.ones_like(y), y, n, None, b, delta)
    assert not c.any()
    s = 1.0 if b == 1 else (0.0 if b == 2 else delta) ** (b - 1)
    torch.testing.assert_close(grad_y, torch.full_like(y, s))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("b", "delta"), EXPONENTS)
def test_parts_of_a_stack_share_the_factor_of_the_primal(b, delta, dtype, kernels):
    kernels.takes(dtype, b)
    kept, v = kernels.random((2, 6, 3, 5), dtype), kernels.random((6, 6, 3, 5), dtype, seed=1)
    n = kernels.random((2, 3, 3, 5), accumulator(dtype), seed=2).abs() * 3 + 1
    lengths = torch.tensor([0.5, 1, 2, 3, 4, 0.0], dtype=n.dtype, device=n.device)
    gains = torch.where(lengths == 0, 1.0, 1 / lengths.double())

    def expected(v, kept, n, gains):
        factor = (cosine_of_output(kept, n, b, delta) + delta) ** (b - 1)
        return v.double() * (gains * factor).repeat(len(v) // len(kept), *[1] * (v.ndim - 1))

    for layout, lay in kernels.layouts(IMAGE_LAYOUTS, dtype):
        out = kernels.functions.apply_factor(lay(v), lay(kept), n, lengths, b, delta)
        true = expected(v, kept, n.repeat_interleave(2, dim=1), gains[:, None, None])
        kernels.check(out, true, true.abs(), layout, roundings=8 + 8 * b)
        room = lay(torch.full_like(v, float("nan")))
        assert kernels.functions.apply_factor(lay(v), lay(kept), n, lengths, b, delta, room) is room
        assert torch.equal(room, out)
    rows, pushed, norms = kept[:, :, 0, 0], v[:, :, 0, 0], n[:, 0, 0, 0].contiguous()
    out = kernels.functions.apply_factor(pushed, rows, norms, None, b, delta)
    true = expected(pushed, rows, norms[:, None], torch.ones_like(gains))
    kernels.check(out, true, true.abs(), "rows", roundings=8 + 8 * b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (4, 37, 3, 3), (2, 130, 3, 3), (0, 3)], ids=str)
def test_projection_leaves_nothing_along_the_weight(shape, dtype, kernels):
    weight, grad = kernels.random(shape, dtype), kernels.random(shape, dtype, seed=1)
    weight[:1] = 0
    wide, along = weight.double().flatten(1), grad.double().flatten(1)
    lengths = wide.norm(dim=1).to(accumulator(dtype))
    unit = wide / wide.norm(dim=1, keepdim=True).clamp(min=1e-300)
    inner = (unit * along).sum(1, keepdim=True)
    expected = (along - inner * unit).view(shape)
    magnitude = (along.abs() + (unit * along).abs().sum(1, keepdim=True) * unit.abs()).view(shape)
    if len(shape) == 4:
        weight, grad = (t.contiguous(memory_format=torch.channels_last) for t in (weight, grad))
    kernels.functions.project_rows(grad, weight, lengths)
    kernels.check(grad, expected, magnitude, "projection")


def test_a_backend_says_which_tensors_it_cannot_take(kernels):
    x = torch.ones(1, 4, 3, 3, device=kernels.device)
    assert kernels.functions.supports(x) is None
    assert "int64" in kernels.functions.supports(x.long())
    assert "meta" in kernels.functions.supports(x.to("meta"))
