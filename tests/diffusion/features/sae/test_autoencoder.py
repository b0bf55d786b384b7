"""The autoencoder against its equations with dense activations, in float64."""

import pytest
import torch

from bcos_diffusion.features.sae import KSparseAutoencoder, evaluate, pick
from bcos_diffusion.features.sae.autoencoder import unit


def made(dim=6, latents=20, k=4, dtype=torch.float64):
    """An autoencoder whose biases and encoder are no special case."""
    found = KSparseAutoencoder(dim, latents, k).to(dtype)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in (found.encoder, found.pre_bias, found.encoder_bias):
            parameter += 0.1 * torch.randn(parameter.shape, generator=random, dtype=torch.float64).to(dtype)
    return found


def features(count=9, dim=6, dtype=torch.float64):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def dense(autoencoder, x):
    """All activations ``[N, n]`` after TopK and ReLU, and the reconstruction."""
    before = (x - autoencoder.pre_bias) @ autoencoder.encoder.T + autoencoder.encoder_bias
    kept = before.topk(autoencoder.k, dim=1)
    z = torch.zeros_like(before).scatter(1, kept.indices, kept.values.relu())
    return z, z @ autoencoder.decoder + autoencoder.pre_bias


@pytest.mark.parametrize("k", [1, 4, 20])
@pytest.mark.parametrize("chunk", [1, 45, 10**6])
def test_it_is_the_equations(k, chunk, monkeypatch):
    monkeypatch.setattr(pick, "CHUNK", chunk)
    autoencoder, x = made(k=k), features()
    values, indices = autoencoder.encode(x)
    z, expected = dense(autoencoder, x)
    assert values.shape == indices.shape == (9, k) and indices.dtype == torch.int64 and (values >= 0).all()
    torch.testing.assert_close(torch.zeros_like(z).scatter(1, indices, values), z)
    torch.testing.assert_close(autoencoder(x), expected)
    torch.testing.assert_close(autoencoder.decode(values, indices), expected)


def test_gradients_are_those_of_the_dense_autoencoder():
    autoencoder, x, upstream = made(), features().requires_grad_(), features(dim=6)
    inputs = [x, *autoencoder.parameters()]
    ours = torch.autograd.grad((autoencoder(x) * upstream).sum(), inputs)
    theirs = torch.autograd.grad((dense(autoencoder, x)[1] * upstream).sum(), inputs)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected)


def test_gradcheck():
    autoencoder = made()
    names = [name for name, _ in autoencoder.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(autoencoder, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (features().requires_grad_(), *autoencoder.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_other_dtypes_and_layouts(dtype):
    x = features().to(dtype)
    autoencoder = made(dtype=dtype)
    close = {"rtol": 0.05, "atol": 0.05} if dtype.itemsize == 2 else {}
    values, indices = autoencoder.encode(x)
    assert values.dtype == dtype
    z = torch.zeros(9, 20, dtype=dtype).scatter(1, indices, values)
    torch.testing.assert_close(autoencoder(x), z @ autoencoder.decoder + autoencoder.pre_bias, **close)
    strided = x.t().contiguous().t()
    assert torch.equal(strided, x) and torch.equal(autoencoder(strided), autoencoder(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_features_of_another_dtype_are_computed_in_the_models_own(dtype):
    autoencoder, x = made(dtype=torch.float32), features().to(dtype)
    assert torch.equal(autoencoder(x), autoencoder(x.float()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_agrees_with_the_host():
    autoencoder, x = made(64, 4096, 32, torch.float32), features(300, 64, torch.float32)
    expected = autoencoder(x)
    torch.testing.assert_close(autoencoder.cuda()(x.cuda()).cpu(), expected, rtol=1e-4, atol=1e-4)


def test_among_equal_activations_any_k_are_picked():
    autoencoder = KSparseAutoencoder(3, 8, 3).double()
    with torch.no_grad():
        autoencoder.encoder[:] = autoencoder.encoder[0]
    x = autoencoder.encoder[:1].detach() * 2
    values, indices = autoencoder.encode(x)
    assert len(indices[0].unique()) == 3
    torch.testing.assert_close(values, torch.full((1, 3), 2.0, dtype=torch.float64))


def test_what_is_not_positive_is_not_active():
    autoencoder, x = made(), features()
    with torch.no_grad():
        autoencoder.encoder_bias -= 100
    values, _ = autoencoder.encode(x)
    assert (values == 0).all()
    assert torch.equal(autoencoder(x), autoencoder.pre_bias.expand_as(x))


def test_it_starts_tied_with_rows_of_length_one():
    one, same, other = KSparseAutoencoder(5, seed=1), KSparseAutoencoder(5, seed=1), KSparseAutoencoder(5, seed=2)
    assert one.latents == 320 and one.k == 32
    assert torch.equal(one.encoder, one.decoder)
    torch.testing.assert_close(one.decoder.norm(dim=1), torch.ones(320))
    assert torch.equal(one.decoder, same.decoder) and not torch.equal(one.decoder, other.decoder)
    assert torch.equal(unit(torch.zeros(1, 3)), torch.zeros(1, 3))


def test_scaling_makes_it_the_autoencoder_of_scaled_features():
    autoencoder, x = made(), features()
    expected = 3 * autoencoder(x)
    torch.testing.assert_close(autoencoder.scale_(3)(3 * x), expected)


def test_it_is_saved_and_loaded_whole(tmp_path):
    autoencoder = made(dtype=torch.float32)
    autoencoder.save(tmp_path / "sae")
    assert sorted(p.name for p in (tmp_path / "sae").iterdir()) == ["autoencoder.json", "autoencoder.safetensors"]
    found = KSparseAutoencoder.load(tmp_path / "sae")
    assert (found.dim, found.latents, found.k) == (6, 20, 4)
    x = features(dtype=torch.float32)
    assert torch.equal(found(x), autoencoder(x)) and all(p.requires_grad for p in found.parameters())


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("autoencoder.json", None, FileNotFoundError, "autoencoder.json does not exist"),
        ("autoencoder.json", "{", ValueError, "not valid JSON"),
        ("autoencoder.json", "{}", ValueError, "not an autoencoder of the format"),
        ("autoencoder.json", '{"format": "bcos_diffusion.sae/1", "dim": 6}', ValueError, "must give dim, latents and k"),
        (
            "autoencoder.json",
            '{"format": "bcos_diffusion.sae/1", "dim": 7, "latents": 20, "k": 4}',
            ValueError,
            "does not fit autoencoder.json",
        ),
        ("autoencoder.safetensors", "cut", ValueError, "not a readable safetensors file"),
    ],
)
def test_a_damaged_one_is_refused(name, text, error, message, tmp_path):
    made().save(tmp_path)
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        KSparseAutoencoder.load(tmp_path)


def test_bad_input_is_refused():
    for arguments in ((0,), (4, 0), (4, 8, 9), (4, 8, 0)):
        with pytest.raises(ValueError, match="must be at least 1 and k at most latents"):
            KSparseAutoencoder(*arguments)
    for x in (torch.ones(3, 5), torch.ones(6), torch.ones(2, 6, dtype=torch.int64), torch.ones(2, 6, 4, 4)):
        with pytest.raises(ValueError, match=r"features must be floating \[N, 6\]"):
            made().encode(x)


class TestMetrics:
    def test_they_are_the_definitions(self):
        autoencoder, x = made().requires_grad_(False), features(50) + 100
        z, y = dense(autoencoder, x)
        found = evaluate(autoencoder, x, batch_size=7)
        total = (x - x.mean(0)).square().sum()
        assert found.normalised_mse == pytest.approx(float((x - y).square().sum() / total))
        residual = (x - y).var(0, correction=0).sum() / x.var(0, correction=0).sum()
        assert found.explained_variance == pytest.approx(float(1 - residual))
        assert found.l0 == pytest.approx(float((z > 0).sum()) / 50)
        assert found.dead_share == pytest.approx(1 - float((z > 0).any(0).double().mean()))

    def test_a_constant_error_costs_no_variance(self):
        autoencoder, x = made(k=20), features(50)
        with torch.no_grad():
            autoencoder.encoder_bias[:] = -100
        found = evaluate(autoencoder, x)
        assert found.explained_variance == pytest.approx(0) and found.l0 == 0 and found.dead_share == 1
        assert found.normalised_mse > 1

    def test_nothing_to_explain_is_refused(self):
        with pytest.raises(ValueError, match="variance is 0"):
            evaluate(made(), torch.zeros(4, 6))
        with pytest.raises(ValueError, match="two rows"):
            evaluate(made(), torch.zeros(1, 6))
