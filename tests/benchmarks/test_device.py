"""The suite on a CUDA device: its clock, its memory, and every pass of small layers."""

import pytest
import torch

from benchmarks.memory import peak_bytes
from benchmarks.report import run
from benchmarks.shapes import Layer
from benchmarks.timing import DeviceClock

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_clock_sees_the_device_and_not_the_host():
    clock, x = DeviceClock(), torch.randn(4096, 4096, device="cuda")

    def times(count):
        def call(i):
            for _ in range(count):
                torch.mm(x, x)

        call(0)
        return sorted(clock(call, 3, 4) for _ in range(5))[2]

    assert times(4) == pytest.approx(4 * times(1), rel=0.2)
    tiny = torch.zeros(1, device="cuda")
    assert 0 < sorted(clock(lambda i: tiny.add_(1), 3, 30) for _ in range(5))[2] < 5e-6  # enqueuing alone takes longer


def test_the_peak_is_that_of_the_call():
    large = 64 * 2**20
    found = peak_bytes(lambda i: torch.empty(large, dtype=torch.int8, device="cuda").sum(), "cuda")
    assert large <= found < 1.5 * large


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_pass_is_measured(dtype):
    layers = [Layer("net", "a", "conv", 64, 64, 16, 2, kernel=3), Layer("net", "b", "linear", 64, 64, 32)]
    rows = run(layers, "cuda", dtype, 100, ("plain", "bcos_kernels", "eager"))
    assert len(rows) == 12 and all("ratio" in entry for row in rows for entry in row["peers"].values())
