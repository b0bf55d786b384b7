"""Features against windows summed pixel by pixel, and what they must and must not depend on."""

import math

import torch
from torch import Tensor

from bcos_diffusion.missing.features import NAMES, colour_share, energies, object_features


def _maps(words: int = 3, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.3 * torch.randn(words, 6, size, size, generator=generator)


def _mean(x: Tensor, i: int, j: int, share: float) -> Tensor:
    half = round(share * min(x.shape[-2:]) / 2)
    return x[..., max(i - half, 0) : i + half + 1, max(j - half, 0) : j + half + 1].mean((-2, -1))


def _slow_energy(map: Tensor) -> Tensor:
    colour = (map[:3] - map[3:]).double() / 2
    rows, columns = range(colour.shape[1]), range(colour.shape[2])
    contrast = torch.stack([torch.stack([colour[:, i, j] - _mean(colour, i, j, 0.53) for j in columns]) for i in rows])
    square = contrast.pow(2).sum(-1)  # [H, W]
    return torch.tensor([[float(_mean(square, i, j, 0.34)) for j in columns] for i in rows])


def test_features_equal_windows_summed_one_by_one() -> None:
    maps = _maps()
    found = object_features(maps, [0, 2])
    slow = {n: _slow_energy(maps[n]).double() for n in (0, 2)}
    colour = (maps[[0, 2], :3] - maps[[0, 2], 3:]) / 2
    masses = maps.double().sum((1, 2, 3)).abs()
    assert torch.allclose(energies(colour), torch.stack(list(slow.values())), atol=1e-6)
    for row, own, other in ((0, 0, 2), (1, 2, 0)):
        place = int(slow[own].argmax())
        peak, rival = float(slow[own].flatten()[place]), float(slow[other].flatten()[place])
        share = float((slow[own] / (slow[own] + slow[other] + 0.01)).max())
        expected = [2.0, share, math.sqrt(peak) - math.sqrt(rival), math.log(peak + 1e-6), masses[own] / masses.sum()]
        assert torch.allclose(found[row], torch.tensor(expected, dtype=torch.float64), atol=1e-5)


def test_maps_are_not_scaled_by_their_own_maximum() -> None:
    maps = _maps()
    weak = maps.clone()
    weak[1] *= 0.1
    before, after = (dict(zip(NAMES, object_features(m, [0, 1, 2])[1].tolist(), strict=True)) for m in (maps, weak))
    assert after["push"] < before["push"] - 4 and after["share"] < 0.5 * before["share"] and after["lead"] < 0


def test_a_masked_word_and_a_tint_have_nothing() -> None:
    maps = _maps()
    maps[0] = 0
    maps[1] = torch.rand(6, 1, 1).expand(6, 16, 16)
    found = object_features(maps, [0, 1, 2])
    assert float(found[:2, 1].max()) < 1e-6 and float(found[2, 1]) > 0.5
    assert torch.isfinite(object_features(maps, [0])).all()


def test_colour_share_counts_the_border() -> None:
    maps = torch.zeros(2, 6, 8, 8)
    maps[0, :, :, :4], maps[1, :, :, 4:] = 1.0, 1.0
    maps[1, :, 2:6, 2:6] = 5.0
    assert colour_share(maps, 0) == 0.5 and colour_share(maps, 1) == 0.5
    assert colour_share(maps + torch.tensor([2.0, 0.0])[:, None, None, None], 0) == 1.0
