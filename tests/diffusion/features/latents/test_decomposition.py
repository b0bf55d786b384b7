"""A predicted x_0 taken apart at a layer: it adds up, and each part is what the layer's part alone draws."""

import pytest
import torch
from references.around_a_layer import by_forward_mode, x_0_and_features
from references.tiny_dictionary import LAYERS, dictionary_of, tiny_step

from bcos_diffusion.features.latents.decomposition import decompose
from bcos_diffusion.features.latents.step import features_of

KINDS = list(LAYERS)


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_add_up_to_the_prediction(kind: str, spatial: bool) -> None:
    step = tiny_step(kind)
    found = decompose(step, dictionary_of(step), spatial)
    plain = x_0_and_features(step)[0].detach()
    torch.testing.assert_close(found.prediction, plain)
    assert found.completeness < 1e-12
    assert found.rest["structure"].any() != spatial and len(found.latents) and found.rest["bypass"].any()
    shares = found.shares()
    assert list(shares) == ["latents", "other latents", "pre-bias", "error", "structure", "bypass"]
    for kind_of_share in zip(*shares.values(), strict=True):
        assert sum(kind_of_share) == pytest.approx(1)


def test_single_precision_adds_up_too() -> None:
    step = tiny_step("scale", torch.float32)
    assert decompose(step, dictionary_of(step, torch.float32)).completeness < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_pooled_code(kind: str) -> None:
    step = tiny_step(kind)
    dictionary, features = dictionary_of(step), features_of(step)
    found = decompose(step, dictionary, most=2)
    values, indices = dictionary.encode(features.mean(0, keepdim=True))
    pairs = [(v, j) for v, j in zip(values[0].tolist(), indices[0].tolist(), strict=True) if v > 0]
    assert found.latents.tolist() == [j for _, j in pairs[:2]]
    assert found.activation.tolist() == pytest.approx([v for v, _ in pairs[:2]])
    decoded = [v * dictionary.decoder[j] for v, j in pairs]
    spread = torch.ones_like(features)
    for part, row in zip(found.parts, decoded, strict=False):
        torch.testing.assert_close(part, by_forward_mode(step, spread * row))
    other = torch.stack([*decoded[2:], torch.zeros_like(decoded[0])]).sum(0)
    error = features.mean(0) - torch.stack(decoded).sum(0) - dictionary.pre_bias
    expected = {
        "other latents": spread * other,
        "pre-bias": spread * dictionary.pre_bias,
        "error": spread * error,
        "structure": features - features.mean(0),
    }
    for name, tangent in expected.items():
        torch.testing.assert_close(found.rest[name], by_forward_mode(step, tangent))
    bypass = found.prediction - by_forward_mode(step, features)
    torch.testing.assert_close(found.rest["bypass"], bypass)


def test_parts_of_a_spatial_code() -> None:
    step = tiny_step("scale")
    dictionary, features = dictionary_of(step), features_of(step)
    found = decompose(step, dictionary, spatial=True, most=3)
    values, indices = dictionary.encode(features)
    totals: dict[int, float] = {}
    for v, j in zip(values.flatten().tolist(), indices.flatten().tolist(), strict=True):
        totals[j] = totals.get(j, 0.0) + v
    best = sorted((j for j in totals if totals[j] > 0), key=lambda j: -totals[j])[:3]
    assert found.latents.tolist() == best
    assert found.activation.tolist() == pytest.approx([totals[j] for j in best])
    for part, j in zip(found.parts, best, strict=True):
        at = (values * (indices == j)).sum(1)
        torch.testing.assert_close(part, by_forward_mode(step, at[:, None] * dictionary.decoder[j]))
    decoded = (values[:, :, None] * dictionary.decoder[indices]).sum(1)
    error = by_forward_mode(step, features - decoded - dictionary.pre_bias)
    torch.testing.assert_close(found.rest["error"], error)


def test_at_least_one_latent_is_listed() -> None:
    step = tiny_step("scale")
    with pytest.raises(ValueError, match="most must be at least 1"):
        decompose(step, dictionary_of(step), most=0)
