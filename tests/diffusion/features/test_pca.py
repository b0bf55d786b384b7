"""PCA maps against scikit-learn, and colours that mean the same in every image and timestep."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bcos_diffusion.features.pca import fit_components, upsampled


def maps(images: int = 12, dim: int = 7, size: tuple[int, int] = (4, 5), offset: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mix = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q * torch.logspace(1, -1, dim)
    return torch.einsum("ndhw,de->nehw", torch.randn(images, dim, *size, generator=generator), mix.T) + offset


def places(features: Tensor) -> np.ndarray:
    return features.movedim(1, -1).flatten(0, 2).double().numpy()


def test_components_are_scikit_learns():
    decomposition = pytest.importorskip("sklearn.decomposition")
    features = maps()
    fitted = fit_components(features)
    reference = decomposition.PCA(3).fit(places(features))
    expected = torch.from_numpy(reference.components_)
    signs = (fitted.directions * expected).sum(1).sign()
    assert torch.allclose(fitted.directions, expected * signs[:, None], atol=1e-9)
    assert fitted.explained.tolist() == pytest.approx(reference.explained_variance_ratio_.tolist(), rel=1e-9)
    scores = places(fitted.scores(features)) * signs.numpy()
    assert np.allclose(scores, reference.transform(places(features)), atol=1e-4)


def test_batches_give_what_the_whole_gives():
    features = maps(images=13)
    whole, parts = fit_components(features), fit_components(list(features.split(3)))
    for name in ("mean", "directions", "explained", "low", "high"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name), rtol=1e-9, atol=1e-9)
    again = fit_components(features)
    assert torch.equal(whole.directions, again.directions) and torch.equal(whole.low, again.low)


def test_the_largest_weight_of_a_component_is_above_0():
    fitted = fit_components(maps())
    assert bool((fitted.directions.gather(1, fitted.directions.abs().argmax(1, keepdim=True)) > 0).all())
    mirrored = fit_components(-maps())
    assert torch.allclose(mirrored.directions, fitted.directions)


def test_colours_have_one_range_for_all_images_and_heed_no_outlier():
    features = maps(images=40)
    fitted = fit_components(features)
    colours = fitted.colours(features)
    assert float(colours.min()) >= 0 and float(colours.max()) <= 1
    for channel in range(3):
        black, full = (float((colours[:, channel] == end).double().mean()) for end in (0, 1))
        assert black == pytest.approx(0.01, abs=0.003) and full == pytest.approx(0.01, abs=0.003)
    assert torch.equal(fitted.colours(features[5:6])[0], colours[5])
    low, high = np.percentile(places(fitted.scores(features)), [1, 99], axis=0)
    assert fitted.low.tolist() == pytest.approx(low.tolist(), rel=1e-5)
    assert fitted.high.tolist() == pytest.approx(high.tolist(), rel=1e-5)


def test_another_fit_is_turned_to_the_same_colours():
    """A timestep whose features are turned and whose components swap: aligned, its colours are the first's."""
    features = maps(images=30, size=(4, 4), offset=0.0)
    first = fit_components(features)
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(7, 7, generator=generator)).Q
    scores = torch.einsum("kd,ndhw->nkhw", first.directions.float(), features)
    swapped = scores * torch.tensor([1.0, 4.0, 1.0])[:, None, None]
    other = torch.einsum("nkhw,ke->nehw", swapped, turn[:3])
    second = fit_components(other)
    assert not torch.allclose(second.colours(other), first.colours(features), atol=0.05)
    aligned = second.aligned(second.scores(other), first.scores(features))
    assert torch.allclose(aligned.colours(other), first.colours(features), atol=0.02)
    assert sorted(aligned.explained.tolist()) == sorted(second.explained.tolist())
    assert bool((aligned.low < aligned.high).all())


def test_maps_of_another_size_are_averaged_to_be_aligned():
    features = maps(images=30, size=(4, 4), offset=0.0)
    first = fit_components(features)
    finer = -features.repeat_interleave(2, 2).repeat_interleave(2, 3)
    second = fit_components(finer)
    aligned = second.aligned(second.scores(finer), first.scores(features))
    assert torch.allclose(aligned.scores(finer), upsampled(first.scores(features), (8, 8)), atol=1e-4)
    assert bool((aligned.low < 0).all()) and bool((aligned.high > 0).all())


def test_fewer_channels_than_colours_and_features_that_do_not_vary():
    two = maps(dim=2)
    fitted = fit_components(two)
    assert fitted.directions.shape == (3, 2) and fitted.explained.sum() == pytest.approx(1)
    assert bool((fitted.colours(two)[:, 2] == 0.5).all())
    line = torch.randn(9, 1, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.ones(5)[:, None, None] + 0.1
    fitted = fit_components(line)
    assert fitted.explained.tolist() == pytest.approx([1, 0, 0], abs=1e-12)
    assert bool((fitted.colours(line)[:, 1:] == 0.5).all()) and float(fitted.colours(line)[:, 0].std()) > 0.1
    constant = torch.full((7, 4, 3, 3), 0.1)
    parts = fit_components([constant[:2], constant[2:]])
    assert bool((parts.colours(constant) == 0.5).all()) and parts.explained.tolist() == [0, 0, 0]
    assert fit_components(maps(images=3, size=(1, 1))).directions.shape == (3, 7)


def test_bad_features_are_refused():
    features = maps()
    broken = features.clone()
    broken[2, 1, 0, 0] = float("nan")
    cases = [
        (features.flatten(2), r"\[N, D, H, W\]"),
        (features.long(), "floats"),
        (broken, "not finite"),
        ([features, features[:, :4]], "7 channels as the first, got 4"),
        (iter([features]), "read twice"),
        ([], "at least two places, got 0"),
        (features[:1, :, :1, :1], "at least two places, got 1"),
    ]
    for given, said in cases:
        with pytest.raises(ValueError, match=said):
            fit_components(given)
    fitted = fit_components(features)
    with pytest.raises(ValueError, match=r"\[N, 7, H, W\]"):
        fitted.scores(features[:, :3])
    with pytest.raises(ValueError, match="same images"):
        fitted.aligned(fitted.scores(features), fitted.scores(features)[:3])


def test_half_precision_features_are_read():
    features = maps(offset=0.0).half()
    assert torch.equal(fit_components(features).directions, fit_components(features.float()).directions)
