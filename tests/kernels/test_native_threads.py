"""The C++ kernels share torch's threads, and their number changes no bit."""

import sys
from pathlib import Path

import pytest
import torch

from bcos_kernels import native
from bcos_kernels.ops.epilogue import cpu

_cpu = native.load()
pytestmark = pytest.mark.skipif(_cpu is None, reason=native.why_missing())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_results_do_not_depend_on_the_number_of_threads(batch, dtype, layout):
    x = torch.randn(batch, 80, 21, 33, generator=torch.Generator().manual_seed(0)).to(dtype).to(memory_format=layout)
    window = ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 2)

    def run(threads):
        torch.set_num_threads(threads)
        n = cpu.patch_norm(x, *window, 1e-6)
        results = [n, cpu.scale(x, n, None, 2.5, 1e-6), *cpu.scale_backward(x, x, n, None, 1.5, 1e-6)]
        dx = x.clone(memory_format=torch.preserve_format)
        cpu.spread(dx, x, n, *window)
        return [*results, dx, cpu.row_norm(x.reshape(-1, 33), 1e-12)]

    before = torch.get_num_threads()
    try:
        one, two, again = run(1), run(2), run(2)
    finally:
        torch.set_num_threads(before)
    for a, b, c in zip(one, two, again, strict=True):
        assert torch.equal(a, b) and torch.equal(b, c)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_torch_and_the_kernels_share_one_thread_pool():
    if not _cpu.openmp:
        pytest.skip("built without OpenMP")
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    pools = {path for path in loaded if Path(path).name.startswith(("libgomp", "libomp", "libiomp"))}
    assert len(pools) == 1, pools
