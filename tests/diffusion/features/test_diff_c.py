"""Diff-C: the paper's shape, learning, and results that a seed repeats."""

import json

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.features.probe import PAPER, DiffC, Recipe, Split, fit_linear, stratified_split, train_diff_c

TINY = Recipe(width=8, epochs=3, batch=16)


def bars(images: int = 120, side: int = 4, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Noise with a bar across (class 0) or upright (class 1): alike in the mean over places."""
    generator = torch.Generator().manual_seed(0)
    x = 0.3 * torch.randn(images, channels, side, side, generator=generator)
    labels = torch.arange(images) % 2
    for image, where in enumerate(torch.randint(side, (images,), generator=generator).tolist()):
        bar = x[image, 0, where] if labels[image] == 0 else x[image, 0, :, where]
        bar += 2
    return x, labels


def test_the_papers_network_has_forty_million_parameters():
    with torch.device("meta"):
        network = DiffC(1280, 37)
    convolutions = 9 * 1024 * (1280 + 3 * 1024) + 4 * 1024
    assert sum(p.numel() for p in network.parameters()) == convolutions + 4 * 2 * 1024 + 1024 * 37 + 37
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == 40


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 4), (5, 7), (16, 16)])
def test_the_network_is_table_10(size):
    """Written out: each convolution by patches, batch norms by their statistics, then the mean over places."""
    torch.manual_seed(0)
    network = DiffC(6, 3, width=4)
    x = torch.randn(20, 6, *size)
    network.train()
    got = network(x)

    def normalised(h: Tensor) -> Tensor:
        flat = h.movedim(1, -1).flatten(0, 2)
        flat = (flat - flat.mean(0)) / (flat.var(0, correction=0) + 1e-5).sqrt()
        return flat.unflatten(0, (len(h), *h.shape[2:])).movedim(-1, 1)

    h = normalised(x)
    convolutions = [m for m in network.convolutions if isinstance(m, torch.nn.Conv2d)]
    for layer, stride in zip(convolutions, (1, 2, 2, 2), strict=True):
        patches = F.unfold(h, 3, padding=1, stride=stride)
        side = [-(-length // stride) for length in h.shape[2:]]
        h = (layer.weight.flatten(1) @ patches + layer.bias[:, None]).unflatten(2, side)
        h = normalised(h).relu()
    expected = h.flatten(2).mean(2) @ network.classify.weight.T + network.classify.bias
    assert torch.allclose(got, expected, atol=1e-4)


def test_it_learns_what_a_mean_over_places_does_not_say():
    x, labels = bars(400)
    split = stratified_split(labels, 0, (0.5, 0.25, 0.25))
    result = train_diff_c(x, labels, 2, split, 0, Recipe(width=16, epochs=10, batch=16, rate=3e-3))
    assert result.test.top1 > 0.9 > 0.75 > fit_linear(x.mean((2, 3)), labels, 2, split).test.top1
    assert torch.equal(result.network.predict(x[split.test]), result.test.predicted)
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("side", [1, 2])
def test_tiny_maps_and_a_last_batch_of_one(side):
    """17 images in batches of 16: batch normalisation of one place of one image has no variance."""
    x, labels = bars(40, side)
    split = Split(torch.arange(17), torch.arange(17, 25), torch.arange(25, 40))
    result = train_diff_c(x, labels, 2, split, 0, TINY)
    assert result.test.count == 15 and len(result.epochs) == 3


def test_a_seed_repeats_to_the_last_digit_and_leaves_the_callers_random_state():
    x, labels = bars(60)
    split = stratified_split(labels, 0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = train_diff_c(x, labels, 2, split, 1, TINY, views=[x.flip(3)])
    assert torch.equal(torch.rand(3), expected)
    second = train_diff_c(x, labels, 2, split, 1, TINY, views=[x.flip(3)])
    assert first.epochs == second.epochs
    weights = zip(first.network.state_dict().values(), second.network.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    assert train_diff_c(x, labels, 2, split, 2, TINY).epochs != first.epochs


def test_the_epoch_is_chosen_on_validation_alone():
    x, labels = bars(80)
    split = stratified_split(labels, 0, (0.4, 0.3, 0.3))
    recipe = Recipe(width=8, epochs=6, batch=8, rate=1e-2)
    result = train_diff_c(x, labels, 2, split, 0, recipe)
    keys = [(epoch["validation_top1"], -epoch["validation_loss"]) for epoch in result.epochs]
    assert result.chosen_epoch == keys.index(max(keys)) + 1
    assert result.validation.top1 == max(keys)[0]
    poisoned = labels.clone()
    poisoned[split.test] = 1 - labels[split.test]
    again = train_diff_c(x, poisoned, 2, split, 0, recipe)
    assert again.epochs == result.epochs
    assert again.test.top1 == pytest.approx(1 - result.test.top1)


def test_views_are_seen_in_training_and_nowhere_else(monkeypatch):
    x, labels = bars(40)
    split = stratified_split(labels, 0)
    marked = torch.full_like(x, 7.0)
    seen: dict[bool, set[float]] = {True: set(), False: set()}
    forward = DiffC.forward

    def watched(self, features):
        seen[self.training] |= {float(image.amax() == 7.0) for image in features}
        return forward(self, features)

    monkeypatch.setattr(DiffC, "forward", watched)
    train_diff_c(x, labels, 2, split, 0, TINY, views=[marked])
    assert seen == {True: {0.0, 1.0}, False: {0.0}}


def test_the_papers_rates(monkeypatch):
    """From 1e-4 towards 5e-5 along half a cosine, a step an epoch."""
    used = []

    class Watched(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            used.append(self.param_groups[0]["lr"])
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    x, labels = bars(20, 2)
    split = Split(torch.arange(8), torch.arange(8, 14), torch.arange(14, 20))
    recipe = Recipe(4, PAPER.epochs, PAPER.batch, PAPER.rate, PAPER.last_rate, PAPER.weight_decay)
    train_diff_c(x, labels, 2, split, 0, recipe)
    turns = torch.arange(30, dtype=torch.float64) / 30
    expected = 5e-5 + 2.5e-5 * (1 + torch.cos(torch.pi * turns))
    assert (PAPER.width, PAPER.epochs, PAPER.batch) == (1024, 30, 16)
    assert used == pytest.approx(expected.tolist(), rel=1e-9)


def test_images_without_a_label_are_left_out():
    x, labels = bars(60)
    labels[::5] = -1
    split = Split(torch.arange(30), torch.arange(30, 45), torch.arange(45, 60))
    result = train_diff_c(x, labels, 2, split, 0, TINY)
    assert result.test.count == 12
    assert train_diff_c(x, labels, 2, split.labelled(labels), 0, TINY).epochs == result.epochs


def test_what_cannot_be_learned_from_is_refused():
    x, labels = bars(30)
    split = stratified_split(labels, 0)
    broken = x.clone()
    broken[4, 0, 1, 1] = float("nan")
    cases = [
        (x.mean((2, 3)), labels, r"\[N, D, H, W\]"),
        (x, torch.zeros(30, dtype=torch.int64), "only class 0"),
        (broken, labels, "features of 1 images"),
        (x, labels * 2, "labels must be -1 or from 0 to 1"),
    ]
    for features, own, said in cases:
        with pytest.raises(ValueError, match=said):
            train_diff_c(features, own, 2, split, 0, TINY)
    with pytest.raises(ValueError, match="views must be"):
        train_diff_c(x, labels, 2, split, 0, TINY, views=[x[:, :, :2]])
    with pytest.raises(ValueError, match="not finite"):
        train_diff_c(x, labels, 2, split, 0, TINY, views=[broken])
    with pytest.raises(ValueError, match=r"features must be \[N, 3, H, W\]"):
        DiffC(3, 2, 4)(torch.ones(1, 4, 2, 2))
    with pytest.raises(ValueError, match="at least 1"):
        DiffC(3, 0)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"epochs": 0}, {"rate": 1e-5}, {"last_rate": 0.0}])
def test_a_recipe_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Recipe(**wrong)
