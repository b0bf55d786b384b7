"""The C++ kernels' own conversions and powers against those of torch."""

import pytest
import torch

from bcos_kernels import native
from bcos_kernels.ops.epilogue import cpu

_cpu = native.load()
pytestmark = pytest.mark.skipif(_cpu is None, reason=native.why_missing())

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True, params=["baseline", "avx2"])
def instruction_set(request):
    if request.param not in _cpu.instruction_sets():
        pytest.skip(f"this machine has no {request.param}")
    before = _cpu.instruction_set()
    _cpu.select_instruction_set(request.param)
    yield request.param
    _cpu.select_instruction_set(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_conversions_are_those_of_torch(dtype):
    """b = 1 copies y through the accumulation type; n = |y| with b = 2 too. Every 16-bit pattern is tried."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    y = (bits.view(dtype) if dtype.itemsize == 2 else bits.view(torch.bfloat16).to(dtype)).reshape(256, 256)
    out = cpu.scale(y.clone(), torch.ones(256, dtype=_accumulator(dtype)), None, 1.0, 0.0)
    torch.testing.assert_close(out, y, rtol=0, atol=0, equal_nan=True)
    # out = y * |y| / n: results between, above and below the numbers of the type, rounded as torch rounds.
    n = torch.logspace(-3, 3, 256, dtype=_accumulator(dtype))
    wide = y.to(_accumulator(dtype))
    expected = (wide * torch.where(wide == 0, 0.0, wide.abs() * (1 / n)[:, None])).to(dtype)
    torch.testing.assert_close(cpu.scale(y.clone(), n, None, 2.0, 0.0), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("b", [1.1, 1.75, 2.5, 4.0, 7.3])
def test_general_power_is_as_exact_as_pow(b):
    u = torch.cat([torch.logspace(-44, 0, 4001, dtype=torch.float64), torch.linspace(0.5, 1.5, 4001)]).float()
    y, n = torch.ones(len(u), 1), (1 / u.double()).float()
    keep = n.isfinite() & (1 / n > 0)
    n, y = n[keep], y[keep]
    out = cpu.scale(y, n, None, b, 0.0)[:, 0].double()
    base = (1 / n).double()
    expected = base ** (b - 1)
    error = (out - expected).abs()
    assert (error <= 4 * torch.finfo(torch.float32).eps * expected + 2e-45).all()


def _accumulator(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32
