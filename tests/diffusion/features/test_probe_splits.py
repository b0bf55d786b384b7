"""Splits of a probe: disjoint, stratified, repeatable, and refused where they are not."""

import pytest
import torch

from bcos_diffusion.features.probe import Split, majority, stratified_split
from bcos_diffusion.features.probe.baselines import chance


def indices(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


@pytest.mark.parametrize(
    ("train", "validation", "test", "said"),
    [
        ((0, 1, 2), (2, 3), (4,), "train and validation share 1"),
        ((0, 1), (2, 3), (1, 0), "train and test share 2"),
        ((0,), (1, 2), (2,), "validation and test share 1"),
        ((0, 0), (1,), (2,), "train names an image twice"),
        ((0,), (), (2,), "validation must have"),
        ((-1,), (0,), (2,), "none below 0"),
    ],
)
def test_a_split_that_is_not_one_is_refused(train, validation, test, said):
    with pytest.raises(ValueError, match=said):
        Split(indices(*train), indices(*validation), indices(*test))


def test_indices_must_be_integers():
    with pytest.raises(ValueError, match="int64"):
        Split(torch.tensor([0.0]), indices(1), indices(2))


def test_every_class_is_spread_by_the_shares_and_unlabelled_images_are_left_out():
    labels = torch.arange(5).repeat_interleave(20)[torch.randperm(100, generator=torch.Generator().manual_seed(3))]
    labels[::10] = -1
    split = stratified_split(labels, seed=0, shares=(0.6, 0.2, 0.2))
    everything = torch.cat(list(split.parts().values()))
    assert sorted(everything.tolist()) == (labels >= 0).nonzero()[:, 0].tolist()
    for share, part in zip((0.6, 0.2, 0.2), split.parts().values(), strict=True):
        for label in range(5):
            assert abs(int((labels[part] == label).sum()) - share * int((labels == label).sum())) < 1.5


def test_a_seed_gives_one_split():
    labels = torch.arange(4).repeat(25)
    first, again, other = (stratified_split(labels, seed).parts() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["test"], other["test"])


def test_few_images_of_each_class_are_the_first_to_learn_from():
    labels = indices(0, 0, 0, 1, 1, -1, 0, 1)
    split = Split(indices(2, 0, 1, 3, 4, 5), indices(6), indices(7))
    assert split.few(labels, 1).train.tolist() == [2, 3]
    assert split.few(labels, 10).train.tolist() == [2, 0, 1, 3, 4]
    with pytest.raises(ValueError, match="at least 1"):
        split.few(labels, 0)


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.0, 0.0, 0.0)])
def test_shares_must_sum_to_one(shares):
    with pytest.raises(ValueError, match="sum to 1"):
        stratified_split(torch.arange(10), 0, shares)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="too few"):
        stratified_split(torch.tensor([0, 1]), 0)


def test_chance_and_the_commonest_class():
    labels = indices(1, 1, 0, 1, 0, 1, -1)
    said = majority(labels, 3, Split(indices(0, 1, 2), indices(3), indices(4, 5, 6)))
    assert said.predicted.tolist() == [1, 1] and said.top1 == 0.5
    assert chance(4) == 0.25
    with pytest.raises(ValueError, match="at least 1"):
        chance(0)
