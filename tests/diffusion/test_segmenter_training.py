"""Training the segmenter: it learns, goes on to the same weights after a cut, and tells mistakes."""

from pathlib import Path

import pytest
import torch

from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.evaluation.segmenter.__main__ import main
from bcos_diffusion.evaluation.segmenter.training import Recipe, make_batch, rate_at, train

RECIPE = Recipe(steps=6, batch=8, seed=1)


def test_a_cut_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    told: list[int] = []
    whole = train(RECIPE, tmp_path / "whole", every=3, tell=lambda step, loss: told.append(step))
    train(RECIPE, tmp_path / "cut", until=2)
    resumed = train(RECIPE, tmp_path / "cut")
    assert told == [3, 6]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    with pytest.raises(ValueError, match="seed 1, not 2"):
        train(Recipe(steps=6, batch=8, seed=2), tmp_path / "cut")


def test_batches_depend_on_seed_and_step_alone() -> None:
    for a, b in zip(make_batch(RECIPE, 4), make_batch(RECIPE, 4), strict=True):
        assert torch.equal(a, b)
    x, y = make_batch(Recipe(batch=32), 0)
    assert x.shape == (32, 3, 32, 32) and y.shape == (32, 32, 32) and x.min() >= 0 and x.max() <= 1
    assert not torch.equal(x[:8], make_batch(RECIPE, 0)[0])
    # A batch is the pictures of its numbers, however many there are at once.
    halves = [make_batch(Recipe(batch=16), step)[0] for step in (0, 1)]
    assert torch.allclose(torch.cat(halves), x, atol=1e-6)


def test_the_rate_rises_and_falls_to_zero() -> None:
    rates = [rate_at(Recipe(steps=100), step) for step in range(101)]
    assert max(rates) == rates[3] == pytest.approx(3e-3) and rates[0] < rates[1] and rates[100] == pytest.approx(0)


def test_the_command_trains_scores_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--steps", "2", "--batch", "4", "--scenes", "4"]) == 0
    assert "of 4 test scenes" in capsys.readouterr().out
    card = Segmenter.load(tmp_path).card
    assert card["recipe"] == {"size": 32, "steps": 2, "batch": 4, "rate": 3e-3, "seed": 0}
    assert card["scores"]["scenes"] == 4 and 0 < card["present_share"] < 1 and "OpenMoji" in card["licence"]
    for wrong in (["--steps", "0"], ["--size", "8"], ["--scenes", "0"]):
        assert main(["--out", str(tmp_path / "wrong"), *wrong]) == 1
        assert "error: " in capsys.readouterr().err and not (tmp_path / "wrong").exists()
