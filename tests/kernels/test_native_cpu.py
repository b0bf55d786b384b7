"""The C++ kernels against slow float64 references in torch, for every dtype and layout.

Tolerances are bounds, not habits: one rounding of the output type plus a few roundings of the accumulation
type, relative to the sum of the magnitudes that enter each output.
"""

import itertools

import pytest
import torch
import torch.nn.functional as F

from bcos_kernels import native
from bcos_kernels.ops.epilogue import cpu

_cpu = native.load()
pytestmark = pytest.mark.skipif(_cpu is None, reason=native.why_missing())

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
EXPONENTS = [(1.0, 1e-6), (1.5, 1e-6), (2.0, 0.0), (2.5, 1e-6), (1.25, 1e-3), (3.0, 0.0)]

IMAGE_LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: _inside(x, (2, 3, 2, 3)),
    "cropped": lambda x: _inside(x, (1, 1, 1, 1), margin=2),
    "rows_of_channels": lambda x: x.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}
ROW_LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "transposed": lambda x: x.t().contiguous().t(),
    "sliced": lambda x: _inside(x, (2, 3)),
    "head_of_wider": lambda x: _inside(x, (1, 1), margin=5),
}
# batch, channels, (H, W), kernel, stride, padding (top, bottom, left, right), dilation, groups
GEOMETRIES = {
    "pixel": (2, 6, (5, 7), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "pixel_strided": (2, 6, (5, 7), (1, 1), (2, 3), (0, 0, 0, 0), (1, 1), 2),
    "pixel_padded": (1, 4, (4, 4), (1, 1), (1, 1), (1, 0, 0, 2), (1, 1), 1),
    "patch": (2, 16, (9, 8), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "grouped": (2, 12, (6, 7), (3, 2), (1, 1), (1, 1, 0, 1), (1, 1), 3),
    "depthwise": (2, 5, (6, 7), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 5),
    "strided": (2, 9, (11, 10), (3, 4), (2, 3), (1, 2, 0, 1), (1, 1), 3),
    "dilated": (1, 7, (12, 11), (3, 2), (1, 2), (2, 1, 3, 0), (2, 3), 1),
    "stride_over_kernel": (1, 4, (9, 9), (2, 2), (3, 4), (0, 0, 1, 0), (1, 1), 2),
    "column": (2, 8, (9, 1), (3, 1), (1, 1), (1, 1, 0, 0), (1, 1), 1),
    "empty_batch": (0, 4, (5, 5), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "wide": (1, 37, (40, 50), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
}


@pytest.fixture(autouse=True, params=["baseline", "avx2"])
def instruction_set(request):
    if request.param not in _cpu.instruction_sets():
        pytest.skip(f"this machine has no {request.param}")
    before = _cpu.instruction_set()
    _cpu.select_instruction_set(request.param)
    yield request.param
    _cpu.select_instruction_set(before)


def _inside(x, steps, margin=0):
    """The same values as a strided part of a larger tensor whose other elements are NaN."""
    sizes = [size * step + 2 * margin for size, step in zip(x.shape, steps, strict=True)]
    parts = tuple(slice(margin, margin + size * step, step) for size, step in zip(x.shape, steps, strict=True))
    whole = torch.full(sizes, float("nan"), dtype=x.dtype)
    whole[parts] = x
    return whole[parts]


def _random(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def _accumulator(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check(out, expected, magnitude, where, roundings=8):
    """|out - expected| within half a unit of out's type and `roundings` of the accumulation type."""
    info, accumulation = torch.finfo(out.dtype), torch.finfo(_accumulator(out.dtype))
    bound = (
        0.501 * info.eps * expected.abs() + roundings * accumulation.eps * magnitude + info.smallest_normal * info.eps
    )
    error = (out.double() - expected).abs()
    assert torch.isfinite(out).all(), where
    assert (error <= bound).all(), f"{where}: {(error / bound).max().item():.2f} times the bound"


def _patches(x, kernel, stride, padding, dilation):
    """float64 patches [N, C, kh * kw, P, Q]."""
    top, bottom, left, right = padding
    padded = F.pad(x.double(), (left, right, top, bottom))
    p = (padded.shape[2] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    q = (padded.shape[3] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    offsets = itertools.product(range(kernel[0]), range(kernel[1]))
    cuts = [padded[:, :, i * dilation[0] :: stride[0], j * dilation[1] :: stride[1]][:, :, :p, :q] for i, j in offsets]
    return torch.stack(cuts, dim=2)


def _square_sums(x, geometry):
    kernel, stride, padding, dilation, groups = geometry
    return _patches(x, kernel, stride, padding, dilation).square().unflatten(1, (groups, -1)).sum((2, 3))


def _scale_reference(y, n, b, delta):
    y, n = y.double(), n.double()
    u = torch.where(y == 0, 0.0, y.abs() / n)
    return y * (u + (0.0 if b == 2 else delta)) ** (b - 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 65), (70, 33), (0, 4), (4, 0), (300, 130)], ids=str)
def test_row_norm(shape, dtype):
    for layout, lay in ROW_LAYOUTS.items():
        x = lay(_random(shape, dtype))
        out = cpu.row_norm(x, 1e-3)
        assert out.dtype == _accumulator(dtype)
        expected = x.double().norm(dim=1) + 1e-3
        _check(out, expected, expected, layout)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_patch_norm(geometry, dtype):
    batch, channels, size, *window = GEOMETRIES[geometry]
    for layout, lay in IMAGE_LAYOUTS.items():
        x = lay(_random((batch, channels, *size), dtype))
        out = cpu.patch_norm(x, *window, 1e-6)
        expected = (_square_sums(x, window) + 1e-6).sqrt()
        assert out.dtype == _accumulator(dtype) and out.shape == expected.shape
        _check(out, expected, expected, layout)


def test_half_precision_norms_do_not_overflow():
    x = torch.full((1, 8, 3, 3), 3e4, dtype=torch.float16)
    out = cpu.patch_norm(x, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, 1e-6)
    assert out[0, 0, 1, 1].item() == pytest.approx(float(x[0, 0, 0, 0]) * 72**0.5, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("b", "delta"), EXPONENTS)
@pytest.mark.parametrize("groups", [1, 3, 12])
def test_scale_and_its_derivatives(groups, b, delta, dtype):
    y = _random((2, 12, 5, 9), dtype)
    y.view(-1)[::7] = 0
    grad = _random(y.shape, dtype, seed=1)
    n = _random((2, groups, 5, 9), _accumulator(dtype), seed=2).abs() * 3 + 1
    for layout, lay in IMAGE_LAYOUTS.items():
        _check_scale(lay(y), lay(grad), n, b, delta, groups, layout)
    _check_scale(y, IMAGE_LAYOUTS["channels_last"](grad), n, b, delta, groups, "mixed")
    _check_scale(y, grad[:, :1, :1, :1].expand_as(y), n, b, delta, groups, "expanded gradient")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("b", "delta"), EXPONENTS)
def test_scale_of_rows(b, delta, dtype):
    y, grad = _random((37, 19), dtype), _random((37, 19), dtype, seed=1)
    n = _random((37,), _accumulator(dtype), seed=2).abs() * 3 + 1
    for layout, lay in ROW_LAYOUTS.items():
        _check_scale(lay(y), lay(grad), n, b, delta, 1, layout)


def _check_scale(y, grad, n, b, delta, groups, where):
    wide = n[:, None] if y.dim() == 2 else n.repeat_interleave(y.shape[1] // groups, dim=1)
    # A power amplifies the rounding of its base by its exponent.
    roundings = 8 + 8 * b
    out = cpu.scale(y, n, b, delta)
    expected = _scale_reference(y, wide, b, delta)
    assert out.dtype == y.dtype and out.stride() == torch.empty_like(y).stride()
    _check(out, expected, expected.abs(), where, roundings)

    delta = 0.0 if b == 2 else delta
    u = y.double().abs() / wide.double()
    ratio = torch.where(u + delta == 0, 0.0, u / (u + delta))
    flow = grad.double() * (u + delta) ** (b - 1)
    terms = -(b - 1) * flow * y.double() * ratio / wide.double() ** 2
    grad_y, c = cpu.scale_backward(grad, y, n, b, delta)
    expected = flow * (1 + (b - 1) * ratio)
    _check(grad_y, expected, expected.abs(), where, roundings)
    parts = terms[:, None] if y.dim() == 2 else terms.unflatten(1, (groups, -1))
    sums = parts.sum(2)
    assert c.dtype == n.dtype and grad_y.stride() == torch.empty_like(y).stride()
    _check(c, sums.reshape(n.shape), parts.abs().sum(2).reshape(n.shape), where, roundings)


@pytest.mark.parametrize("b", [1.5, 2.0, 2.5])
def test_derivatives_agree_with_autograd(b):
    x = _random((2, 6, 7, 6), torch.float64)
    weight = _random((4, 6, 3, 3), torch.float64, seed=1)
    window = ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)

    def layer(x):
        y = F.conv2d(x, weight, padding=1)
        n = (_square_sums(x, window) + 1e-6).sqrt()
        return y * (y.abs() / n + (0.0 if b == 2 else 1e-6)) ** (b - 1)

    leaf = x.clone().requires_grad_()
    grad = _random((2, 4, 7, 6), torch.float64, seed=2)
    (expected,) = torch.autograd.grad(layer(leaf), leaf, grad)

    y = F.conv2d(x, weight, padding=1)
    n = cpu.patch_norm(x, *window, 1e-6)
    grad_y, c = cpu.scale_backward(grad, y, n, b, 1e-6)
    dx = F.conv_transpose2d(grad_y, weight, padding=1)
    cpu.spread(dx, x, c, *window)
    torch.testing.assert_close(dx, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_spread_is_the_adjoint_of_the_patch_sum(geometry, dtype):
    batch, channels, size, *window = GEOMETRIES[geometry]
    x, start = (_random((batch, channels, *size), dtype, seed) for seed in (0, 1))
    ones = torch.ones(x.shape, dtype=torch.float64, requires_grad=True)
    sums = _square_sums(ones, window)  # its derivative at one is twice the adjoint
    c = _random(sums.shape, _accumulator(dtype), seed=2)
    (twice,) = torch.autograd.grad(sums, ones, c.double(), retain_graph=True)
    (reach,) = torch.autograd.grad(sums, ones, c.double().abs())
    expected = start.double() + x.double() * twice / 2
    magnitude = start.double().abs() + x.double().abs() * reach / 2
    for layout, lay in IMAGE_LAYOUTS.items():
        dx = lay(start.clone())
        cpu.spread(dx, lay(x), c, *window)
        _check(dx, expected, magnitude, layout)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_spread_rows(dtype):
    x, start = _random((40, 21), dtype), _random((40, 21), dtype, seed=1)
    c = _random((40,), _accumulator(dtype), seed=2)
    added = x.double() * c.double()[:, None]
    for layout, lay in ROW_LAYOUTS.items():
        dx = lay(start.clone())
        cpu.spread_rows(dx, lay(x), c)
        _check(dx, start.double() + added, start.double().abs() + added.abs(), layout)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize(("b", "delta"), EXPONENTS)
def test_zero_gives_zero_and_never_nan(b, delta, layout, dtype):
    y = IMAGE_LAYOUTS[layout](torch.zeros(2, 8, 3, 5, dtype=dtype))
    n = torch.zeros(2, 1, 3, 5, dtype=_accumulator(dtype))  # eps = 0 and a zero patch
    assert not cpu.scale(y, n, b, delta).any()
    grad_y, c = cpu.scale_backward(torch.ones_like(y), y, n, b, delta)
    assert not c.any()
    s = 1.0 if b == 1 else (0.0 if b == 2 else delta) ** (b - 1)
    torch.testing.assert_close(grad_y, torch.full_like(y, s))


def test_refusals_say_what_is_accepted():
    x = torch.ones(1, 4, 3, 3)
    window = ((3, 3), (1, 1), (0, 0, 0, 0), (1, 1))
    assert cpu.supports(x) is None
    assert "int64" in cpu.supports(x.long())
    assert "meta" in cpu.supports(x.to("meta"))
    for message, call in {
        "float32": lambda: cpu.row_norm(torch.ones(2, 2, dtype=torch.int32), 0.0),
        "2 dimensions": lambda: cpu.row_norm(x, 0.0),
        "divide": lambda: cpu.patch_norm(x, *window, 3, 0.0),
        "does not fit": lambda: cpu.patch_norm(x, (5, 5), *window[1:], 1, 0.0),
        "at least 1": lambda: cpu.patch_norm(x, (3, 3), (0, 1), *window[2:], 1, 0.0),
        "n must be": lambda: cpu.scale(x, torch.ones(1, 1, 3, 2), 2.0, 0.0),
        "grad must be": lambda: cpu.scale_backward(x.half(), x, torch.ones(1, 1, 3, 3), 2.0, 0.0),
        "c must be": lambda: cpu.spread(x.clone(), x, torch.ones(1, 1, 3, 3), *window, 1),
        "share memory": lambda: cpu.spread_rows(torch.ones(1, 2).expand(3, 2), torch.ones(3, 2), torch.ones(3)),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
