"""Training: what it finds, that it repeats and resumes to the last bit, and what it refuses."""

import json
import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from bcos_diffusion.features.sae import KSparseAutoencoder, SAEConfig, evaluate, train
from bcos_diffusion.features.sae.autoencoder import unit
from bcos_diffusion.features.sae.centre import centre_of, geometric_median
from bcos_diffusion.features.sae.start import generator, revive_, start_
from bcos_diffusion.features.sae.training import _Run


def planted(count=3000, dim=24, atoms=40, active=3, seed=77):
    """Sparse sums of unit directions about a middle: features ``[count, dim]`` and directions ``[atoms, dim]``."""
    random = torch.Generator().manual_seed(seed)
    directions = unit(torch.randn(atoms, dim, generator=random))
    which = torch.rand(count, atoms, generator=random).argsort(1)[:, :active]
    amounts = 1 + torch.rand(count, active, generator=random)
    return (amounts[:, :, None] * directions[which]).sum(1) * 7 + 30, directions


SMALL = SAEConfig(k=4, latents=64, steps=60, batch_size=128, warmup=20, log_every=10, checkpoint_every=20)


class Streamed:
    """Features that are read by rows, and are nowhere whole."""

    def __init__(self, x):
        self.x, self.most = x, 0

    def __len__(self):
        return len(self.x)

    def rows(self, indices):
        self.most = max(self.most, len(indices))
        return self.x[indices]


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_it_recovers_a_planted_dictionary(tmp_path):
    x, directions = planted()
    config = SAEConfig(k=3, latents=80, steps=1500, batch_size=256, learning_rate=3e-3, warmup=100)
    found = train(x, config, tmp_path)
    metrics = evaluate(found, x)
    assert metrics.explained_variance > 0.9 and metrics.l0 <= 3
    likeness = directions @ found.decoder.detach().T
    rows, columns = linear_sum_assignment(-likeness.numpy())
    matched = likeness[rows, columns]
    start = KSparseAutoencoder(24, 80, 3)
    untrained = directions @ start.decoder.detach().T
    chance = untrained[linear_sum_assignment(-untrained.numpy())].mean()
    assert matched.mean() > 0.9 > chance + 0.2


def test_features_go_in_as_they_are_and_rows_stay_of_length_one(tmp_path):
    x, _ = planted()
    found = train(x, SMALL, tmp_path)
    torch.testing.assert_close(found.decoder.detach().norm(dim=1), torch.ones(64))
    near, far = evaluate(found, x), evaluate(found, x + 5)
    assert near.explained_variance > 0.3 > far.explained_variance or near.normalised_mse < far.normalised_mse
    scaled = train(100 * x, SMALL, tmp_path / "scaled")
    assert evaluate(scaled, 100 * x).normalised_mse == pytest.approx(near.normalised_mse, rel=0.02)


def test_a_run_repeats_to_the_last_bit_from_memory_or_a_stream(tmp_path):
    x, _ = planted(1000)
    streamed = Streamed(x)
    train(x, SMALL, tmp_path / "one")
    train(streamed, SMALL, tmp_path / "two")
    train(x, SAEConfig(**{**vars(SMALL), "seed": 1}), tmp_path / "other")
    one, two, other = (files_of(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two and one["autoencoder.safetensors"] != other["autoencoder.safetensors"]
    assert sorted(one) == ["autoencoder.json", "autoencoder.safetensors", "curve.jsonl", "training.json"]


class Cut(Exception):
    pass


@pytest.mark.parametrize("at", [10, 20, 50])
def test_a_run_that_was_cut_goes_on_to_the_same_bits(at, tmp_path):
    x, _ = planted(600)  # passes of 4 steps, in which latents die and are revived
    config = SAEConfig(**{**vars(SMALL), "latents": 256, "learning_rate": 5e-3})
    seen = []
    train(x, config, tmp_path / "whole", lambda step, values: seen.append((step, values)))
    assert seen[-1][1]["revived"] > 0

    def cut(step, values):
        if step == at:
            raise Cut

    with pytest.raises(Cut):
        train(x, config, tmp_path / "cut", cut)
    assert not (tmp_path / "cut" / "autoencoder.json").exists()
    again = []
    train(x, config, tmp_path / "cut", lambda step, values: again.append((step, values)))
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
    assert again == [report for report in seen if report[0] > at // 20 * 20]
    lines = [json.loads(line) for line in (tmp_path / "cut" / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60]


def test_a_finished_run_is_read_and_another_refused(tmp_path):
    x, _ = planted(600)
    found = train(x, SMALL, tmp_path)
    before = files_of(tmp_path)
    again = train(x, SMALL, tmp_path, lambda *report: pytest.fail("trained again"))
    assert torch.equal(again.decoder, found.decoder)
    with pytest.raises(ValueError, match="steps 60, not 61.*another folder"):
        train(x, SAEConfig(**{**vars(SMALL), "steps": 61}), tmp_path)
    with pytest.raises(ValueError, match="rows 600, not 599"):
        train(x[:599], SMALL, tmp_path)
    with pytest.raises(ValueError, match="variance .*, not "):
        train(x * 2, SMALL, tmp_path)
    assert files_of(tmp_path) == before


def test_a_damaged_checkpoint_is_named(tmp_path):
    x, _ = planted(600)
    with pytest.raises(Cut):
        train(x, SMALL, tmp_path, lambda step, values: (_ for _ in ()).throw(Cut) if step == 30 else None)
    (tmp_path / "checkpoint.safetensors").write_text("cut")
    with pytest.raises(ValueError, match="checkpoint.safetensors is not a checkpoint.*remove it"):
        train(x, SMALL, tmp_path)


def test_the_loss_is_the_normalised_mse_and_the_warm_up_linear():
    x, _ = planted(600)
    run = _Run(x, SMALL, torch.device("cpu"))
    rates = []
    for _ in range(25):
        batch = run._batch()
        with torch.no_grad():
            expected = float((run.autoencoder(batch) - batch).square().sum(1).mean()) / run.scale**2
        assert run.advance()["loss"] == pytest.approx(expected / run.centre.variance, rel=1e-5)
        rates.append(run.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([4e-4 * min(1, (step + 1) / 20) for step in range(25)])
    assert run.centre.variance == pytest.approx(float((x - x.mean(0)).square().sum(1).mean()), rel=1e-5)


def test_a_step_turns_decoder_rows_and_does_not_stretch_them():
    x, _ = planted(600)
    run = _Run(x, SMALL, torch.device("cpu"))
    run.advance()
    decoder = run.autoencoder.decoder
    assert decoder.grad.abs().max() > 0
    values, indices = run.autoencoder.encode(run._batch())
    loss = (run.autoencoder.decode(values, indices) - run._batch()).square().sum()
    assert (torch.autograd.grad(loss, decoder)[0] * decoder).sum(1).abs().max() > 1  # it would
    run.advance()
    torch.testing.assert_close(decoder.norm(dim=1), torch.ones(64))


def test_a_planted_dead_latent_comes_back(tmp_path):
    x, _ = planted(600)
    run = _Run(x, SMALL, torch.device("cpu"))
    with torch.no_grad():
        run.autoencoder.encoder_bias[7] = -1e6
        run.autoencoder.decoder[7] = unit(torch.ones(1, 24))[0]
    scaled = x * run.scale

    def active():
        values, indices = run.autoencoder.encode(scaled)
        return bool((values[indices == 7] > 0).any())

    assert not active()
    reports = [run.advance() for _ in range(5)]
    assert reports[3]["dead_share"] == 0 and run.revived >= 1  # a pass has 4 steps: dead from its end on
    assert active()
    torch.testing.assert_close(run.autoencoder.decoder.detach().norm(dim=1), torch.ones(64))


def test_revival_leaves_living_latents_and_their_moments_alone():
    x, _ = planted(600)
    run = _Run(x, SMALL, torch.device("cpu"))
    for _ in range(3):
        run.advance()
    dead = torch.zeros(64, dtype=torch.bool)
    dead[[3, 9]] = True
    before = {name: p.detach().clone() for name, p in run.autoencoder.named_parameters()}
    moments = run.optimiser.state[run.autoencoder.encoder]["exp_avg"].clone()
    revive_(run.autoencoder, run.optimiser, dead, x * run.scale, generator(0, 1))
    for name, parameter in run.autoencoder.named_parameters():
        if name != "pre_bias":
            assert torch.equal(parameter[~dead], before[name][~dead])
            assert not torch.equal(parameter[dead], before[name][dead])
    after = run.optimiser.state[run.autoencoder.encoder]["exp_avg"]
    assert torch.equal(after[~dead], moments[~dead]) and (after[dead] == 0).all()
    lengths = run.autoencoder.encoder.detach().norm(dim=1)
    torch.testing.assert_close(lengths[dead], lengths[~dead].mean().expand(2), rtol=1e-4, atol=0)


def test_it_starts_tied_up_to_the_number_that_fits_best():
    x, _ = planted(600)
    autoencoder = KSparseAutoencoder(24, 200, 8)
    factor = start_(autoencoder, x, x.mean(0), generator(0))
    torch.testing.assert_close(autoencoder.encoder, factor * autoencoder.decoder)
    with torch.no_grad():
        errors = []
        for off in (0.9, 1.0, 1.1):
            autoencoder.encoder.copy_(factor * off * autoencoder.decoder)
            errors.append(float((autoencoder(x) - x).square().sum()))
    assert errors[1] < min(errors[0], errors[2])
    assert len(autoencoder.decoder.unique(dim=0)) == 200


def test_the_geometric_median_has_the_least_sum_of_distances():
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points[:40] += 50
    found = geometric_median(points)

    def total(point):
        return float((points - point).norm(dim=1).sum())

    for direction in torch.eye(3, dtype=torch.float64):
        assert total(found) <= min(total(found + 1e-3 * direction), total(found - 1e-3 * direction))
    assert found.norm() < 2 < points.mean(0).norm()
    assert math.isclose(centre_of(points).variance, float((points - points.mean(0)).square().sum(1).mean()))


def test_more_latents_than_samples_and_fewer_samples_than_a_batch(tmp_path):
    x, _ = planted(50)
    found = train(x, SAEConfig(k=2, latents=200, steps=20, batch_size=64, warmup=0), tmp_path)
    assert evaluate(found, x).normalised_mse < 1


def test_bad_features_are_refused(tmp_path):
    x, _ = planted(100)
    holed = x.clone()
    holed[3, 2] = torch.nan
    for bad, message in (
        (x[0], r"features must be floating \[N, D\]"),
        (x.long(), r"features must be floating \[N, D\]"),
        (x[:, :, None, None], r"flattened to \[N \* H \* W, D\]"),
        (x[:1], "two rows at least, got 1"),
        (holed, "must be finite"),
        (torch.ones(100, 4), "are the same"),
        ([1, 2], "must be a tensor"),
        (Streamed(x.long()), "rows of features must be floating"),
    ):
        with pytest.raises(ValueError, match=message):
            train(bad, SMALL, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="k 32 must be at most"):
        train(x, SAEConfig(latents=16), tmp_path / "run")


@pytest.mark.parametrize(
    "wrong",
    [{"k": 0}, {"steps": 0}, {"latents": 0}, {"batch_size": -1}, {"learning_rate": 0.0}, {"warmup": -1}, {"seed": -1}],
    ids=str,
)
def test_bad_configs_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*"):
        SAEConfig(**wrong)


def test_a_folder_with_another_autoencoder_is_left_alone(tmp_path):
    KSparseAutoencoder(4, 8, 2).save(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match="was not trained here"):
        train(planted(100)[0], SMALL, tmp_path)
    assert files_of(tmp_path) == before
