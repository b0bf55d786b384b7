"""The sparse sums by every backend against dense matrices of activations in float64."""

import pytest
import torch

from bcos_diffusion.features.sae.sparse import reference, row_products, scattered_rows, weighted_rows
from bcos_diffusion.features.sae.sparse.transpose import columns
from bcos_kernels import dispatch

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SHAPES = [(5, 3, 11, 7), (4, 1, 9, 300), (1, 6, 6, 1), (17, 33, 40, 24)]  # N, k, n, d


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def indices_of(samples, active, latents, seed=0):
    keys = torch.rand(samples, latents, generator=torch.Generator().manual_seed(seed))
    return keys.argsort(1)[:, :active]


def dense(values, indices, latents):
    """The matrix of activations ``[N, n]``."""
    return values.new_zeros(len(values), latents).scatter_add(1, indices, values)


def drawn(shape, dtype, device):
    samples, active, latents, width = shape
    if device == "cuda" or dispatch.wanted == "triton":
        if dtype == torch.float64:
            pytest.skip("the Triton kernels take no float64")
    values, table, x = (
        random(*size, dtype=dtype, seed=seed)
        for seed, size in enumerate(((samples, active), (latents, width), (samples, width)))
    )
    return values.to(device), table.to(device), x.to(device), indices_of(samples, active, latents).to(device)


def close(found, expected, magnitude, dtype):
    """Within a rounding of the result and a few of the sum, relative to what enters it."""
    assert found.dtype == dtype and found.shape == expected.shape
    eps = torch.finfo(dtype).eps
    sums = torch.finfo(torch.float32 if dtype.itemsize < 8 else dtype).eps
    assert ((found.double() - expected).abs() <= eps * expected.abs() + 64 * sums * magnitude + 1e-300).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_sums_are_those_of_dense_activations(shape, dtype, device):
    values, table, x, indices = drawn(shape, dtype, device)
    v, t, y = values.double(), table.double(), x.double()
    matrix, sizes = dense(v, indices, len(t)), dense(v.abs(), indices, len(t))
    close(weighted_rows(values, indices, table), matrix @ t, sizes @ t.abs(), dtype)
    close(row_products(x, indices, table), (y @ t.T).gather(1, indices), (y.abs() @ t.abs().T).gather(1, indices), dtype)
    close(scattered_rows(values, indices, x, len(t)), matrix.T @ y, sizes.T @ y.abs(), dtype)


def test_an_index_may_come_twice_and_rows_may_lie_anyhow(device):
    values, table, x, _ = (t for t in drawn((6, 4, 5, 12), torch.float32, device))
    indices = torch.randint(0, 5, (6, 4), generator=torch.Generator().manual_seed(3)).to(device)
    indices[0] = 2
    expected = (
        reference.weighted_rows(values, indices, table),
        reference.row_products(x, indices, table),
        reference.scattered_rows(values, indices, x, 5),
    )
    for lay in (lambda t: t.t().contiguous().t(), lambda t: torch.cat([t, t], 1)[:, : t.shape[1]]):
        v, t, y, i = lay(values), lay(table), lay(x), lay(indices)
        found = weighted_rows(v, i, t), row_products(y, i, t), scattered_rows(v, i, y, 5)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0)], ids=str)
def test_nothing_sums_to_zero(shape, device):
    indices, table = torch.zeros(shape, dtype=torch.int64, device=device), torch.ones(5, 3, device=device)
    values, x = torch.zeros(shape, device=device), torch.ones(shape[0], 3, device=device)
    assert torch.equal(weighted_rows(values, indices, table), torch.zeros_like(x))
    assert torch.equal(row_products(x, indices, table), values)
    assert torch.equal(scattered_rows(values, indices, x, 5), torch.zeros_like(table))


def test_gradients_of_gradients():
    indices = torch.randint(0, 7, (5, 3), generator=torch.Generator().manual_seed(0))
    values, table, x = (random(*size, seed=s).requires_grad_() for s, size in enumerate(((5, 3), (7, 4), (5, 4))))
    for function, inputs in (
        (lambda v, t: weighted_rows(v, indices, t), (values, table)),
        (lambda y, t: row_products(y, indices, t), (x, table)),
        (lambda v, y: scattered_rows(v, indices, y, 7), (values, x)),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_transforms_see_through_the_sums():
    indices = indices_of(5, 3, 7)
    values, table = random(5, 3), random(7, 4, seed=1)
    forward = torch.func.jvp(lambda v: weighted_rows(v, indices, table), (values,), (values,))[1]
    torch.testing.assert_close(forward, dense(values, indices, 7) @ table)
    mapped = torch.func.vmap(lambda v: weighted_rows(v, indices, table))(torch.stack([values, 2 * values]))
    torch.testing.assert_close(mapped[1], 2 * mapped[0])


def test_an_explanation_does_not_pay_for_the_gradient_of_the_table(monkeypatch):
    """Asked for values alone, a backward pass makes no matrix of all latents."""
    from bcos_diffusion.features.sae.sparse import op

    monkeypatch.setattr(op, "scattered_rows", lambda *a: pytest.fail("made a gradient that nobody asked for"))
    values, table = random(5, 3).requires_grad_(), random(7, 4, seed=1).requires_grad_()
    product = 2 * values
    torch.autograd.grad(weighted_rows(product, indices_of(5, 3, 7), 1 * table).sum(), values)


def test_no_pass_makes_dense_activations():
    samples, active, latents, width = 512, 4, 20_000, 8
    values, table = random(samples, active).requires_grad_(), random(latents, width, seed=1).requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profile:
        weighted_rows(values, indices_of_many(samples, active, latents), table).square().sum().backward()
    taken = max(event.self_cpu_memory_usage for event in profile.events())
    assert taken <= 2 * latents * width * 8 < samples * latents * 8 / 10


def indices_of_many(samples, active, latents):
    return torch.randint(0, latents, (samples, active), generator=torch.Generator().manual_seed(0))


def test_the_number_of_threads_changes_no_bit():
    indices = indices_of_many(700, 8, 60)
    values, table, x = random(700, 8).float(), random(60, 33, seed=1).float(), random(700, 33, seed=2).float()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            sums = weighted_rows(values, indices, table), row_products(x, indices, table)
            found.append((*sums, scattered_rows(values, indices, x, 60)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_columns_keep_samples_in_order():
    found = columns(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[2, 0], [2, 3]]), 5)
    assert found.starts.tolist() == [0, 1, 1, 3, 4, 4]
    assert found.values.tolist() == [2.0, 1.0, 3.0, 4.0] and found.samples.tolist() == [0, 0, 1, 1]


def test_bad_input_is_refused():
    values, indices, table, x = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.int64), torch.ones(4, 5), torch.ones(2, 5)
    for call, message in (
        (lambda: weighted_rows(values, indices.int(), table), "indices must be int64"),
        (lambda: weighted_rows(values[:, :2], indices, table), "must have one shape"),
        (lambda: weighted_rows(values.double(), indices, table), "must have one dtype"),
        (lambda: weighted_rows(values, indices, table[0]), "floating matrix"),
        (lambda: row_products(x[:, :4], indices, table), r"x \[2, 4\] must be \[2, 5\]"),
        (lambda: scattered_rows(values, indices, x[:1], 4), r"x \[1, 5\] must be \[2, 5\]"),
        (lambda: scattered_rows(values, indices, x.long(), 4), "floating matrix"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
