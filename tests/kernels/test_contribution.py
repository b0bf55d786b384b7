"""Sums of x * g over chosen dimensions, by every backend, against float64; the product is never in memory.

Tolerances as in test_epilogue: one rounding of the result and a few of the accumulation type, relative to the sum of
the magnitudes that enter it; and never more than twice the error of torch's own sum in the same type.
"""

import importlib.util

import pytest
import torch
from references.epilogue import IMAGE_LAYOUTS, accumulator, check, random

from bcos_kernels import dispatch, native
from bcos_kernels.ops.contribution import reference
from bcos_kernels.ops.contribution.op import contribution
from bcos_kernels.ops.contribution.plan import plan

CPU = native.load()
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SUMS = [(1,), (2, 3), (1, 2, 3), (0, 2, 3), (0, 1, 2, 3), (3,), (0,), (0, 2), ()]


@pytest.fixture(params=["baseline", "avx2", "triton", "reference"])
def backend(request, monkeypatch):
    """The name of a backend, forced, and the device that it runs on."""
    if request.param == "triton":
        if importlib.util.find_spec("triton") is None:
            pytest.skip("triton is not installed")
        if DEVICE == "cpu":
            monkeypatch.setenv("TRITON_INTERPRET", "1")
    if request.param in ("triton", "reference"):
        monkeypatch.setattr(dispatch, "wanted", request.param)
        yield request.param
        return
    if CPU is None or request.param not in CPU.instruction_sets():
        pytest.skip(native.why_missing() or f"this machine has no {request.param}")
    monkeypatch.setattr(dispatch, "wanted", "cpu")
    before = CPU.instruction_set()
    CPU.select_instruction_set(request.param)
    yield "cpu"
    CPU.select_instruction_set(before)


def drawn(backend, shape, dtype, seed=0):
    if backend == "triton" and dtype == torch.float64:
        pytest.skip("the Triton kernels take no float64")
    return random(shape, dtype, seed, DEVICE if backend == "triton" else "cpu")


def compare(x, g, dims, where):
    out = contribution(x, g, dims)
    terms = x.double() * g.double()
    expected = terms.sum(dims) if dims else terms
    magnitude = terms.abs().sum(dims) if dims else terms.abs()
    assert out.dtype == accumulator(x.dtype) and out.shape == expected.shape and out.is_contiguous(), where
    check(out, expected, magnitude, where)
    theirs = (x * g).sum(dims) if dims else x * g
    floor = 2 * torch.finfo(out.dtype).eps * magnitude.norm()
    assert (out.double() - expected).norm() <= 2 * (theirs.double() - expected).norm() + floor, where


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dims", SUMS, ids=str)
def test_every_sum_in_every_layout(dims, dtype, backend):
    shape = (2, 5, 4, 9) if backend == "triton" else (3, 37, 9, 20)
    x, g = (drawn(backend, shape, dtype, seed) for seed in (0, 1))
    for layout, lay in IMAGE_LAYOUTS.items():
        compare(lay(x), lay(g), dims, layout)
    compare(x, IMAGE_LAYOUTS["channels_last"](g), dims, "mixed")
    compare(IMAGE_LAYOUTS["channels_last"](x), g[:, :1, :1, :1].expand_as(x), dims, "expanded")
    compare(x, torch.ones((), dtype=dtype, device=x.device).expand_as(x), dims, "ones")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tokens_and_vectors(dtype, backend):
    x, g = (drawn(backend, (2, 7, 45), dtype, seed) for seed in (0, 1))
    compare(x, g, (2,), "tokens")
    compare(x.transpose(0, 1), g.transpose(0, 1), (-1,), "transposed tokens")
    compare(x[0, 0], g[0, 0], (0,), "one vector")
    compare(x[:, :, :1], g[:, :, :1], (1,), "one column")
    compare(x[0, 0, 0], g[0, 0, 0], (), "one number")


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (2, 3, 0)], ids=str)
def test_nothing_sums_to_zero(shape, backend):
    x = drawn(backend, shape, torch.float32)
    for dims in ((1,), (0, 2), (0, 1, 2)):
        assert torch.equal(contribution(x, x, dims), (x * x).sum(dims))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_long_sums_stay_accurate(layout, backend):
    """Pieces and splits of one sum: a plain running sum would be hundreds of roundings off."""
    shape = (1, 8, 64, 64) if backend == "triton" else (1, 700, 40, 50)
    x = IMAGE_LAYOUTS[layout](drawn(backend, shape, torch.float32).abs() + 1)
    for dims in ((1, 2, 3), (0, 1, 2, 3), (1,), (2, 3)):
        compare(x, torch.ones_like(x[:1, :1, :1, :1]).expand_as(x), dims, f"{dims}")


def test_more_dimensions_than_a_kernel_walks(backend):
    x, g = (drawn(backend, (2, 3, 2, 3, 2, 3, 2, 3), torch.float32, seed) for seed in (0, 1))
    for dims in ((0, 2, 4, 6), (1, 3, 5, 7), (0, 3, 7)):
        compare(x, g.transpose(1, 3).contiguous().transpose(1, 3), dims, f"{dims}")


def test_half_products_do_not_overflow(backend):
    x = torch.full((1, 8, 3, 3), 3e4, dtype=torch.float16, device=DEVICE if backend == "triton" else "cpu")
    assert contribution(x, x, (1, 2, 3)).item() == pytest.approx(72 * float(x[0, 0, 0, 0]) ** 2, rel=1e-6)


def test_walks_merge_what_lies_in_one_piece():
    x = torch.zeros(2, 6, 4, 5)
    last = x.to(memory_format=torch.channels_last)
    ones = torch.ones(()).expand_as(x)
    assert plan(x, ones, (1, 2, 3))[2].summed == (1, 1, 120)
    assert plan(last, ones, (1, 2, 3))[2].summed == (1, 1, 120)
    assert plan(last, last, (1,))[2].kept == (1, 1, 40)
    assert plan(last, last, (1,))[2].along_sums
    assert plan(x, x, (1,))[2].kept == (1, 2, 20)
    assert not plan(x, x, (1,))[2].along_sums


@pytest.mark.skipif(CPU is None, reason=native.why_missing())
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_number_of_threads_changes_no_bit(layout, monkeypatch):
    monkeypatch.setattr(dispatch, "wanted", "cpu")
    x, g = (IMAGE_LAYOUTS[layout](random((2, 80, 31, 33), torch.float32, seed)) for seed in (0, 1))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([contribution(x, g, dims) for dims in ((1,), (2, 3), (1, 2, 3), (0, 1, 2, 3))])
    finally:
        torch.set_num_threads(before)
    for one, *others in zip(*found, strict=True):
        assert all(torch.equal(one, other) for other in others)


def test_it_is_differentiable_where_a_gradient_is_asked_for(backend):
    x, g = (drawn(backend, (2, 3, 4), torch.float32, seed).requires_grad_() for seed in (0, 1))
    upstream = random((2, 4), torch.float32, 2, x.device)
    found = torch.autograd.grad(contribution(x, g, (1,)), (x, g), upstream)
    assert torch.allclose(found[0], g * upstream[:, None])
    assert torch.allclose(found[1], x * upstream[:, None])
    with torch.no_grad():
        assert not contribution(x, g, (1,)).requires_grad


def test_transforms_see_through_it():
    x, g = torch.randn(3, 4, 5, dtype=torch.double), torch.randn(3, 4, 5, dtype=torch.double)
    mapped = torch.func.vmap(lambda x, g: contribution(x, g, (1,)))(x, g)
    assert torch.allclose(mapped, reference.contribution(x, g, (2,)))


@pytest.mark.skipif(CPU is None, reason=native.why_missing())
def test_the_product_is_never_in_memory(monkeypatch):
    monkeypatch.setattr(dispatch, "wanted", "cpu")
    x = torch.ones(2, 64, 128, 128)
    with torch.profiler.profile(profile_memory=True) as profile:
        contribution(x, x, (1,))
    taken = sum(max(0, event.self_cpu_memory_usage) for event in profile.events())
    assert taken <= 2 * 2 * 128 * 128 * 4  # the result, once more if it was filled


@pytest.mark.parametrize(
    ("x", "g", "dims", "message"),
    [
        (torch.ones(2, 3), torch.ones(3), (1,), "one shape"),
        (torch.ones(2, 3), torch.ones(2, 3).half(), (1,), "one shape, dtype"),
        (torch.ones(2, 3).long(), torch.ones(2, 3).long(), (1,), "real floating"),
        (torch.ones(2, 3), torch.ones(2, 3), (2,), r"different dimensions of x \[2, 3\], got \[2\]"),
        (torch.ones(2, 3), torch.ones(2, 3), (1, -1), "different dimensions"),
    ],
)
def test_bad_input_is_refused(x, g, dims, message):
    with pytest.raises(ValueError, match=message):
        contribution(x, g, dims)
