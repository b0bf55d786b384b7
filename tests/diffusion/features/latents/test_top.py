"""Codes turned from images to latents, and their top images, against plain lists."""

import pytest
import torch
from references.sparse_codes import batches, dense, random_codes

from bcos_diffusion.features.latents.activations import Activations, collect, join, stream
from bcos_diffusion.features.latents.top import top_images


@pytest.mark.parametrize("positions", [1, 6])
@pytest.mark.parametrize("at_once", [1, 7, 40])
def test_activations_are_the_largest_over_positions_and_where(positions: int, at_once: int) -> None:
    values, indices = random_codes(40, 12, 3, positions)
    found, places = dense(values, indices, 12, positions)
    activations = collect(batches(values, indices, at_once, positions), 12, positions)
    expected = [(j, i) for j in range(12) for i in range(40) if found[i, j] > 0]
    assert list(zip(activations.latent.tolist(), activations.image.tolist(), strict=True)) == expected
    assert activations.value.tolist() == [found[i, j].item() for j, i in expected]
    assert activations.place.tolist() == [places[i, j].item() for j, i in expected]
    assert activations.images == 40 and activations.active.tolist() == (found > 0).sum(0).tolist()


@pytest.mark.parametrize("positions", [1, 4])
@pytest.mark.parametrize("at_once", [3, 60])
def test_top_images_of_a_stream(positions: int, at_once: int) -> None:
    values, indices = random_codes(60, 30, 2, positions, seed=1)
    indices[indices == 29] = 28  # a dead latent, and twice the same latent in a row
    found, places = dense(values, indices, 30, positions)
    top = top_images(stream(batches(values, indices, at_once, positions), 30, positions), 5)
    for j in range(30):
        ranked = sorted((-found[i, j].item(), i) for i in range(60) if found[i, j] > 0)
        expected = [i for _, i in ranked[:5]]
        padded = expected + [-1] * (5 - len(expected))
        assert top.image[j].tolist() == padded
        assert top.value[j].tolist() == [-v for v, _ in ranked[:5]] + [0.0] * (5 - len(expected))
        assert top.place[j].tolist() == [-1 if i < 0 else places[i, j].item() for i in padded]
        assert top.active[j] == len(ranked)
        assert top.mean[j].item() == pytest.approx(-sum(v for v, _ in ranked) / max(len(ranked), 1))
    assert not top.alive[29] and top.alive.sum() == (found > 0).any(0).sum() and top.images == 60
    order = sorted((j for j in range(30) if top.active[j] > 4), key=lambda j: (-top.mean[j].item(), j))
    assert top.strongest(7, more_than=4).tolist() == order[:7] != []


def test_a_mask_leaves_images_out_and_keeps_their_numbers() -> None:
    values, indices = random_codes(20, 5, 2)
    all_of_them = collect([(values, indices)], 5)
    wanted = torch.arange(20) % 3 == 0
    left = all_of_them.among(wanted)
    assert left.images == 20 and set(left.image.tolist()) <= set(range(0, 20, 3))
    assert len(left) == sum(bool(wanted[i]) for i in all_of_them.image.tolist())
    with pytest.raises(ValueError, match=r"must be \[20\] bool"):
        all_of_them.among(wanted[:3])


def test_codes_without_any_activation() -> None:
    empty = collect([(torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.long))], 3)
    top = top_images([empty], 2)
    assert len(empty) == 0 and not top.alive.any() and top.image.eq(-1).all() and len(top.strongest()) == 0


@pytest.mark.parametrize(
    ("values", "indices", "positions", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(4, 3, dtype=torch.long), 1, r"values and indices \[N, k\]"),
        (torch.zeros(5, 2), torch.zeros(5, 2, dtype=torch.long), 2, "no whole images of 2 positions"),
        (torch.zeros(4, 2), torch.full((4, 2), 9), 1, r"in \[0, 9\), got 9 to 9"),
        (torch.full((4, 2), -1.0), torch.zeros(4, 2, dtype=torch.long), 1, "not negative"),
        (torch.full((4, 2), torch.nan), torch.zeros(4, 2, dtype=torch.long), 1, "finite"),
    ],
)
def test_codes_that_cannot_be(values: torch.Tensor, indices: torch.Tensor, positions: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collect([(values, indices)], 9, positions)


def test_nothing_to_read() -> None:
    none: list[Activations] = []
    with pytest.raises(ValueError, match="no codes"):
        top_images(none)
    with pytest.raises(ValueError, match="no codes"):
        join(none)
    with pytest.raises(ValueError, match="count must be"):
        top_images(none, 0)
