"""The C++ kernels share torch's threads, and their number changes no bit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bcos_kernels import native
from bcos_kernels.ops.epilogue import cpu
from bcos_kernels.ops.norms import cpu as norms

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
        scaled = cpu.scale(x.clone(memory_format=torch.preserve_format), n, None, 2.5, 1e-6)
        results = [n, scaled, *cpu.scale_backward(x, x, n, None, 1.5, 1e-6)]
        dx = x.clone(memory_format=torch.preserve_format)
        cpu.spread(dx, x, n, *window)
        return [*results, dx, cpu.row_norm(x.reshape(-1, 33), 1e-12)]

    check_threads(run)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("groups", [1, 4, 80])
@pytest.mark.parametrize("batch", [1, 3])
def test_norms_do_not_depend_on_the_number_of_threads(batch, groups, dtype, layout):
    x = torch.randn(batch, 80, 21, 33, generator=torch.Generator().manual_seed(0)).to(dtype).to(memory_format=layout)
    weight = torch.linspace(-1, 2, 80)

    def run(threads):
        torch.set_num_threads(threads)
        results = []
        for per_pixel in {False, groups == 1}:
            out, mean, rstd = norms.forward(x, weight, groups, 1e-5, True, True, per_pixel)
            results += [out, mean, rstd, *norms.backward(x, out, weight, mean, rstd, True, True, False, True, True)]
        return results

    check_threads(run)


def check_threads(run):
    """The same bits from one thread, from two, from more than there are groups, and again."""
    before = torch.get_num_threads()
    try:
        one, *others = run(1), run(2), run(5), run(2)
    finally:
        torch.set_num_threads(before)
    for other in others:
        assert all(map(torch.equal, one, other))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_torch_and_the_kernels_share_one_thread_pool(tmp_path):
    if not _cpu.openmp:
        pytest.skip("built without OpenMP")
    code = "from bcos_kernels import native; native.load(); print(open('/proc/self/maps').read())"
    # In a process of its own, because libraries that other tests import bring pools along; and in another folder,
    # because a source folder in the present one would hide the package that is installed.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    maps = done.stdout
    loaded = {line.split()[-1] for line in maps.splitlines() if ".so" in line}
    pools = {path for path in loaded if Path(path).name.startswith(("libgomp", "libomp", "libiomp"))}
    assert any("bcos_kernels/_cpu" in path for path in loaded) and len(pools) == 1, pools
