"""What is special about the CUDA kernels: tiles, long words, streams, errors, and the registers they compile to."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from references import host_cuda
from references.epilogue import IMAGE_LAYOUTS, accumulator, check, random

from bcos_kernels import dispatch
from bcos_kernels.modules.norms import GroupNorm
from bcos_kernels.ops.contribution.op import contribution
from bcos_kernels.ops.epilogue import cuda, reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
KERNELS = {
    "reduce_squares": 16,
    "apply_factor": 16,
    "scale_backward": 16,
    "add_scaled": 16,
    "project_rows": 8,
    "box": 4,
}

refusal_of = cuda._refusal_of.__wrapped__


@pytest.fixture
def kernels(monkeypatch):
    host_cuda.use(monkeypatch)


@pytest.fixture
def pretended(monkeypatch):
    """Two devices on the host, whatever this machine has."""
    host_cuda.pretend(monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("columns", [1031, 2048, 2049, 5000])
def test_long_rows_have_a_block_each(columns, dtype, kernels):
    x, grad = random((3, columns), dtype, 0, DEVICE), random((3, columns), dtype, 1, DEVICE)
    lengths = cuda.row_norm(x, 0.0)
    expected = x.double().norm(dim=1)
    check(lengths, expected, expected, "norm")
    unit = x.double() / expected[:, None]
    inner = (unit * grad.double()).sum(1, keepdim=True)
    size = grad.double().abs() + (unit * grad.double()).abs().sum(1, keepdim=True) * unit.abs()
    true = grad.double() - inner * unit
    cuda.project_rows(grad, x, lengths)
    check(grad, true, size, "projection")


MAPS = {  # shape -> groups; the last two have so many tiles that a thread takes several steps
    (2, 320, 9, 8): 2,
    (1, 8, 65, 72): 2,
    (3, 24, 7, 11): 2,
    (33, 16, 1, 257): 1,
    (33, 257, 4, 4): 1,
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_maps_of_many_tiles(shape, layout, dtype, kernels):
    """Against the reference in float64."""
    lay, groups = IMAGE_LAYOUTS[layout], MAPS[shape]
    y, grad = (lay(random(shape, dtype, seed, DEVICE)) for seed in (0, 1))
    n = random((shape[0], groups, *shape[2:]), accumulator(dtype), 2, DEVICE).abs() + 1
    lengths = random((shape[1],), accumulator(dtype), 3, DEVICE).abs() + 1
    wide = [t.double() for t in (grad, y, n, lengths)]
    for found, true in zip(
        cuda.scale_backward(grad, y, n, lengths, 2.0, 0.0), reference.scale_backward(*wide, 2.0, 0.0), strict=True
    ):
        check(found, true, true.abs() if found.ndim == 4 and found.shape == y.shape else sizes(*wide), "gradient", 16)
    held = cuda.apply_factor(grad, y, n, lengths, 1.5, 1e-6)
    true = reference.apply_factor(*wide, 1.5, 1e-6)
    check(held, true, true.abs(), "factor", 16)
    for kernel, padding in (((3, 3), (1, 1, 1, 1)), ((1, 1), (0, 0, 0, 0))):
        window = kernel, (1, 1), padding, (1, 1), groups
        norms = cuda.patch_norm(y, *window, 1e-6)
        true = reference.patch_norm(wide[1], *window, 1e-6)
        check(norms, true, true, "norm")
        dx, wide_dx, size = grad.clone(), wide[0].clone(), wide[0].abs()
        cuda.spread(dx, y, n, *window)
        reference.spread(wide_dx, wide[1], wide[2], *window)
        reference.spread(size, wide[1].abs(), wide[2], *window)
        check(dx, wide_dx, size, "spread", 16)


def sizes(grad, y, n, lengths):
    """The magnitudes that enter a coefficient for b = 2."""
    return reference.by_group((grad * y).abs(), n.shape[1]).sum(2) / n.square()


CUTS = {  # size of what is cut, cut
    "an odd address": ((257,), lambda whole: whole[1:].view(1, 8, 4, 8)),
    "channels between others": (
        (1, 17, 4, 8),
        lambda whole: whole.contiguous(memory_format=torch.channels_last)[:, 1:9],
    ),
    "lines of odd length": ((1, 8, 4, 17), lambda whole: whole[..., 1:]),
    "lines of odd length from their start": ((1, 8, 4, 17), lambda whole: whole[..., :16]),
    "samples of odd length": ((2, 257), lambda whole: whole[:, :256].view(2, 8, 4, 8)),
    "samples of odd length, channels last": ((2, 257), lambda whole: whole[:, :256].view(2, 4, 8, 8).movedim(3, 1)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cut", CUTS)
def test_memory_that_cannot_be_read_in_long_words(cut, dtype, kernels):
    size, view = CUTS[cut]
    x, dx = view(random(size, dtype, 0, DEVICE)), view(torch.zeros(size, dtype=dtype, device=DEVICE))
    window = (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1
    expected = x.double().norm(dim=1, keepdim=True)
    norms = cuda.patch_norm(x, *window, 0.0)
    check(norms, expected, expected, cut)
    cuda.spread(dx, x, norms, *window)
    true = x.double() * norms.double()
    check(dx, true, true.abs(), cut)


def test_kernels_run_where_the_tensors_are(pretended, monkeypatch):
    """Stream 16 + d belongs to device d, and a launch from another device fails."""
    x = torch.ones(4, 3)
    for device in (1, 0, 1):
        monkeypatch.setattr(cuda, "_queue", lambda x, device=device: (device, 16 + device))
        assert torch.equal(cuda.row_norm(x, 0.0), torch.full((4,), 3**0.5))
        assert ctypes.CDLL(cuda._kernels.__file__).current_device() == 0  # as torch left it


@pytest.mark.parametrize(
    ("queue", "message"), [((0, 17), "CUDA: invalid resource handle"), ((2, 0), "CUDA: invalid device ordinal")]
)
def test_a_launch_that_fails_says_why(queue, message, pretended, monkeypatch):
    monkeypatch.setattr(cuda, "_queue", lambda x: queue)
    with pytest.raises(RuntimeError, match=message):
        cuda.row_norm(torch.ones(4, 3), 0.0)
    assert cuda.row_norm(torch.ones(0, 3), 0.0).shape == (0,)  # nothing to launch


def test_a_device_that_kernels_were_not_built_for_is_refused(pretended, monkeypatch):
    assert refusal_of(1) == ""
    assert refusal_of(2) == "the CUDA kernels do not run on device 2: CUDA: invalid device ordinal"
    monkeypatch.setattr(cuda, "_refusal_of", lambda device: "no kernel image")
    assert cuda.supports(torch.ones(2)) == "no kernel image"


def test_ops_that_have_no_cuda_kernels_choose_as_if_none_were_forced(kernels, monkeypatch):
    x = random((2, 4, 3, 3), torch.float64, 0, DEVICE)
    monkeypatch.setattr(dispatch, "wanted", "cuda")
    assert dispatch.epilogue(x) is cuda
    forced = GroupNorm(2, 4).to(x)(x), contribution(x, x, (1,)), dispatch.norms(x)
    monkeypatch.setattr(dispatch, "wanted", "auto")
    free = GroupNorm(2, 4).to(x)(x), contribution(x, x, (1,)), dispatch.norms(x)
    assert torch.equal(forced[0], free[0]) and torch.equal(forced[1], free[1]) and forced[2] is free[2]


def test_results_repeat_to_the_bit(kernels):
    x, c = random((2, 40, 12, 12), torch.float32, 0, DEVICE), random((2, 1, 12, 12), torch.float32, 1, DEVICE)
    one, two = (cuda.scale_backward(x, x, c.abs() + 1, None, 2.0, 0.0) for _ in range(2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


ARCHITECTURES = [90, *(pytest.param(arch, marks=pytest.mark.slow) for arch in (80, 100))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_within_registers(architecture, tmp_path):
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    said = ""
    for source in sorted((host_cuda.ROOT / "csrc/cuda").glob("*.cu")):
        command = [nvcc, "-std=c++17", "-O3", f"-arch=sm_{architecture}", "-Xptxas=-v", "-cubin", source]
        done = subprocess.run([*command, "-o", tmp_path / "a.cubin"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said += done.stderr
    names = re.findall(r"Compiling entry function '\w*?(\w+?)_kernelI", said)
    found = {name: sum(name in mangled for mangled in names) for name in KERNELS}
    assert found == KERNELS
    assert set(re.findall(r"(\d+) bytes spill", said)) == {"0"}
    assert max(map(int, re.findall(r"Used (\d+) registers", said))) <= 80  # three blocks of 256 threads each


def find_nvcc():
    path = Path("/usr/local/cuda/bin/nvcc")
    return shutil.which("nvcc") or (str(path) if path.exists() else None)
