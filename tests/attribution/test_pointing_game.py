"""The grid pointing game: models whose score is known, and every step against loops."""

import pytest
import torch
from references.classifier import Net
from torch import nn

from bcos_kernels import explain, pointing_game
from bcos_kernels.attribution.grids import cell_shares, draw_grids, shrink, stitch

SIDE = 6


class Channels(nn.Module):
    """As many classes as channels; ``mixing`` [K, C] says which channels speak for which class."""

    def __init__(self, mixing, scale=20.0):
        super().__init__()
        self.mixing = nn.Parameter(mixing * scale)

    def forward(self, x):
        return x.mean((2, 3)) @ self.mixing.T - 5


def plain(classes, each=2):
    """``each`` images a class, whose channel alone is 1, with the labels."""
    labels = torch.arange(classes).repeat(each)
    return torch.eye(classes)[labels][:, :, None, None].expand(-1, -1, SIDE, SIDE), labels


@pytest.mark.parametrize("grid", [2, 3])
@pytest.mark.parametrize("smooth", [0, 3])
def test_a_model_that_sees_only_its_own_cell_scores_one(grid, smooth):
    images, labels = plain(grid**2)
    game = pointing_game(Channels(torch.eye(grid**2)), images, labels, grid, smooth=smooth)
    assert game.accuracy == 1 and game.confident == len(labels) and game.chance == 1 / grid**2
    assert game.shares.shape == (2, grid**2)
    if smooth:  # the window reaches over the borders between cells
        assert 0.7 < game.score < 1
    else:
        assert game.score == 1


@pytest.mark.parametrize("grid", [2, 3])
def test_a_model_that_sees_everything_alike_scores_chance(grid):
    images, labels = plain(grid**2)
    alike = Channels(torch.eye(grid**2)).eval()

    class Alike(nn.Module):
        def forward(self, x):
            return alike(x) if x.shape[-1] == SIDE else x.mean((1, 2, 3))[:, None].expand(-1, grid**2)

    game = pointing_game(Alike(), images, labels, grid)
    assert game.score == pytest.approx(game.chance)


def test_against_loops():
    torch.manual_seed(0)
    net = Net().double().eval()
    images = torch.rand(12, 6, SIDE, SIDE).double()
    labels = net(images).argmax(1)  # what it says is the truth
    if len(labels.unique()) < 4:
        labels = torch.arange(12) % 5
        net = Memory(net, images, labels)
    game = pointing_game(net, images, labels, 2, confidence=0.0, smooth=3)
    for row, classes, shares in zip(game.images.tolist(), game.classes.tolist(), game.shares.tolist(), strict=True):
        whole = torch.zeros(1, 6, 2 * SIDE, 2 * SIDE).double()
        for cell, number in enumerate(row):
            top, left = cell // 2 * SIDE, cell % 2 * SIDE
            whole[0, :, top : top + SIDE, left : left + SIDE] = images[number]
            assert int(labels[number]) == classes[cell]
        for cell, label in enumerate(classes):
            contributions = explain(net, whole, label, images=False).contribution_maps[0]
            smoothed = torch.zeros_like(contributions)
            for i in range(2 * SIDE):
                for j in range(2 * SIDE):
                    window = contributions[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
                    smoothed[i, j] = max(float(window.sum()) / 9, 0)
            top, left = cell // 2 * SIDE, cell % 2 * SIDE
            own = smoothed[top : top + SIDE, left : left + SIDE].sum() / smoothed.sum()
            assert shares[cell] == pytest.approx(float(own), rel=1e-9)


class Memory(nn.Module):
    """A network that is right about the images it is asked about, by a constant on their labels."""

    def __init__(self, net, images, labels):
        super().__init__()
        self.net, self.images, self.labels = net, images, labels

    def forward(self, x):
        logits = self.net(x)
        if x.shape[1:] != self.images.shape[1:]:
            return logits
        same = (x[:, None] == self.images[None]).flatten(2).all(2).to(x.dtype)  # [N, M]
        return logits + 10 * same @ nn.functional.one_hot(self.labels, logits.shape[1]).to(x.dtype)


def test_grids_share_no_image_and_fall_in_confidence():
    ranked = {label: list(range(10 * label, 10 * label + 3 + label)) for label in range(6)}
    grids = draw_grids(ranked, 4, 100, seed=0)
    used = [number for grid in grids for number in grid]
    assert len(used) == len(set(used)) and len(grids) >= 3
    assert all(len({number // 10 for number in grid}) == 4 for grid in grids)
    for label in range(6):
        mine = [number for number in used if number // 10 == label]
        assert mine == sorted(mine)
    assert grids == draw_grids(ranked, 4, 100, seed=0) != draw_grids(ranked, 4, 100, seed=1)
    assert draw_grids(ranked, 4, 2, seed=0) == grids[:2]
    assert len(draw_grids(ranked, 6, 100, seed=0)) == 3  # as many grids as the rarest class has images
    assert draw_grids(ranked, 7, 100, seed=0) == []


def test_only_the_sure_and_right_take_part():
    images, labels = plain(4, each=3)
    images = images * torch.tensor([1.0, 0.5, 0.1]).repeat_interleave(4)[:, None, None, None]  # logits 15, 5 and -3
    labels[3] = 0  # wrong
    game = pointing_game(Channels(torch.eye(4)), images, labels, 2)
    assert game.confident == 7 and game.accuracy == pytest.approx(11 / 12)
    assert sorted(game.images.flatten().tolist()) == [0, 1, 2, 7]  # one grid: the sure of class 3 is its second
    softmax = pointing_game(Channels(torch.eye(4)), images, labels, 2, probability="softmax")
    assert softmax.confident == 11 and len(softmax.shares) == 2


def test_batches_and_sequences_make_no_difference():
    images, labels = plain(9, each=3)
    images = images + 0.1 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    model = Channels(torch.eye(9) + 0.1)
    done = []
    whole = pointing_game(model, images, labels, advance=done.append)
    assert sum(done) == len(labels) + whole.images.numel()
    for size in (1, 10, 100):
        other = pointing_game(model, list(images), labels.tolist(), batch_size=size)
        assert torch.equal(other.images, whole.images)
        torch.testing.assert_close(other.shares, whole.shares)
    reseeded = pointing_game(model, images, labels, seed=1)
    assert not torch.equal(reseeded.images, whole.images)


def test_rescaled_grids_have_the_size_of_an_image():
    images, labels = plain(9)
    sizes = set()
    model = Channels(torch.eye(9))
    model.register_forward_hook(lambda _, inputs, __: sizes.add(inputs[0].shape[-1]))
    game = pointing_game(model, images, labels, 3, rescale=True)
    assert sizes == {SIDE} and game.score == pytest.approx(1)
    with pytest.raises(ValueError, match="4 times smaller"):
        shrink(images, 4)


def test_stitched_row_by_row():
    tiles = torch.arange(8 * 2 * 3 * 5).view(2, 4, 2, 3, 5)
    whole = stitch(tiles, 2)
    assert whole.shape == (2, 2, 6, 10)
    for cell in range(4):
        top, left = cell // 2 * 3, cell % 2 * 5
        assert torch.equal(whole[:, :, top : top + 3, left : left + 5], tiles[:, cell])


def test_shares_of_a_map_without_anything_positive_are_zero():
    shares = cell_shares(torch.stack([-torch.ones(4, 4), torch.ones(4, 4)]), 2, 0)
    assert shares.tolist() == [[0] * 4, [0.25] * 4]


def test_the_model_gets_its_own_dtype():
    images, labels = plain(4)
    assert pointing_game(Channels(torch.eye(4)).bfloat16(), images, labels, 2).score == 1


def test_results_for_machines():
    images, labels = plain(4, each=1)
    found = pointing_game(Channels(torch.eye(4)), images, labels, 2).to_dict()
    assert found["score"] == 1 and found["percentiles"] == {"25": 1, "50": 1, "75": 1}
    assert [sorted(grid["classes"]) for grid in found["grids"]] == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"labels": torch.arange(3)}, "as many"),
        ({"images": [], "labels": []}, "as many"),
        ({"labels": torch.arange(1, 5)}, r"\[0, 3\]"),
        ({"labels": torch.arange(-1, 3)}, r"\[0, 3\]"),
        ({"images": [torch.rand(4, 6, 6), *[torch.rand(4, 5, 6)] * 3]}, "one size"),
        ({"images": torch.rand(4, 4, 6)}, r"\[C, H, W\]"),
        ({"grid": 1}, "grid"),
        ({"grid": 3}, "9 classes .* images of 4 classes"),
        ({"confidence": 1.0}, "images of 0 classes"),
        ({"count": 0}, "count"),
        ({"batch_size": 0}, "batch_size"),
        ({"probability": "logit"}, "sigmoid, softmax"),
        ({"smooth": 2}, "odd"),
        ({"model": nn.Flatten(2)}, "logits"),
    ],
)
def test_what_does_not_fit_is_refused(options, says):
    images, labels = plain(4, each=1)
    given = {"model": Channels(torch.eye(4)), "images": images, "labels": labels, "grid": 2} | options
    with pytest.raises(ValueError, match=says):
        pointing_game(**given)
