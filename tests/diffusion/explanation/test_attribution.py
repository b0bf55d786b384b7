"""The exact method as an attribution: the same numbers that an explanation has, reduced to one per pixel."""

import numpy as np
import pytest
import torch
from references.networks import pipeline_of, states
from references.tiny import tiny_pipeline

from bcos_diffusion.baselines.subject import one_step, whole_run
from bcos_diffusion.diffusion import Guidance
from bcos_diffusion.explain import explain
from bcos_diffusion.explanation.attribution import Exact, contributions_of_words
from bcos_diffusion.explanation.reduction import REDUCTIONS, pixel_values
from bcos_kernels.mode import explanation_mode

PROMPT = "a cat left of broccolis on blue"


def test_reductions_of_a_known_contribution() -> None:
    image = torch.zeros(1, 6, 1, 2)
    image[0, :, 0, 0], image[0, :, 0, 1] = torch.tensor([1.0, 0, 0, 0, 1, 1]), torch.tensor([0.0, 0, 1, 1, 1, 0])
    # A third of the left pixel's colour, and grey mass of 2 in every channel of the right one.
    part = torch.zeros(1, 1, 6, 1, 2)
    part[..., 0] = image[..., 0] / 3
    part[..., 1] = 2
    null = torch.full_like(image, 0.5)
    found = {kind: pixel_values(part, image, kind, null)[0, 0, 0].tolist() for kind in REDUCTIONS}
    assert found["mass"] == pytest.approx([1, 12])
    assert found["mean_free"] == pytest.approx([1 / 3, 0])  # half of (1 and 1) - (0 and 0): red and no blue
    assert found["norm"] == pytest.approx([3**0.5 / 3, 24**0.5])
    assert found["colour"] == pytest.approx([3**0.5 / 6, 0])
    assert found["contrast"] == pytest.approx([0.5, 0])
    assert found["change"] == pytest.approx([1.5**0.5, 0])
    assert found["own_colour"] == pytest.approx([0.9 * 3**0.5 / 12] * 2)  # less a decile, mean of the two neighbours
    for kind in ("contrast", "change"):
        with pytest.raises(ValueError, match=f"'{kind}' needs the image that no words give"):
            pixel_values(part, image, kind)
    with pytest.raises(ValueError, match="reduction must be one of"):
        Exact("loud")


def test_own_colour_by_loops() -> None:
    torch.manual_seed(0)
    parts = torch.randn(3, 2, 6, 5, 4)
    found = pixel_values(parts, torch.zeros(2, 6, 5, 4), "own_colour")
    for n in range(2):
        lengths = (parts[:, n, :3] - parts[:, n, 3:]).div(2).pow(2).sum(1).sqrt()  # [words, H, W]
        above = [np.maximum(g - np.quantile(g, 0.1), 0) for g in lengths.numpy()]
        owned = [a * a**4 / sum(other**4 for other in above) for a in above]
        for word, row, column in np.ndindex(3, 5, 4):
            near = owned[word][max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            assert found[word, n, row, column].item() == pytest.approx(near.mean(), rel=1e-4)


def test_change_by_loops() -> None:
    torch.manual_seed(0)
    parts, image, null = torch.randn(3, 2, 6, 5, 4), torch.rand(2, 6, 5, 4), torch.rand(2, 6, 5, 4)
    parts[1] = 0  # a word that says nothing
    found = pixel_values(parts, image, "change", null)
    for n in range(2):
        lengths = (parts[:, n, :3] - parts[:, n, 3:]).div(2).pow(2).sum(1).sqrt().numpy()  # [words, H, W]
        above = [np.maximum(g - np.quantile(g, 0.3), 0) for g in lengths]
        for word, row, column in np.ndindex(3, 5, 4):
            here, far = [a[row, column] for a in above], (image - null)[n, :, row, column].norm().item()
            expected = far * here[word] / sum(here) if sum(here) else 0.0
            assert found[word, n, row, column].item() == pytest.approx(expected, rel=1e-4)
    assert not found[1].any()
    given = (found > 0).any(0)
    torch.testing.assert_close(found.sum(0)[given], (image - null).norm(dim=1)[given])


def test_a_pixel_without_colour_belongs_to_no_word() -> None:
    for kind in ("own_colour", "change"):
        null = torch.zeros(1, 6, 4, 4)
        assert not pixel_values(torch.ones(2, 1, 6, 4, 4), torch.ones(1, 6, 4, 4), kind, null).any()
        assert pixel_values(torch.ones(0, 1, 6, 4, 4), null, kind, null).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("kind", ["scale", "additive", "dit", "paper", "paper noise"])
def test_contributions_are_rows_of_the_jacobian_with_factors_held(kind: str) -> None:
    pipeline = pipeline_of(kind)
    batch, (x_t, t) = pipeline.model.tokenizer.encode(["cat on blue"]), states(pipeline)
    image, contributions = contributions_of_words(pipeline, batch, x_t, t)
    subject = one_step(pipeline, batch, x_t, t)
    torch.testing.assert_close(image, subject.image())
    values = subject.text.values.clone().requires_grad_()
    with torch.enable_grad(), explanation_mode():
        explained = subject.images(type(subject.text)(values, subject.text.keys, subject.text.mask))[0]
    for place in [(0, 0, 3, 7), (1, 4, 15, 0)]:
        (row,) = torch.autograd.grad(explained[place], values, retain_graph=True)
        by_token = (row * subject.text.values)[0].sum(-1)
        expected = [by_token[positions].sum() for positions in subject.positions]
        torch.testing.assert_close(contributions[(slice(None), *place)], torch.stack(expected))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_run_has_the_maps_of_its_explanation(reduction: str) -> None:
    pipeline = tiny_pipeline()
    job = pipeline.job([PROMPT, "dog"], ["blue", None], [5, 6], steps=2)
    found, other = Exact(reduction).draw(pipeline, job)
    explanation = explain(pipeline, PROMPT, "blue", seed=5, steps=2)
    maps = torch.stack([part.map for part in explanation.words if not part.negative])[:, None]
    null = whole_run(pipeline, job, 0).null_image()
    expected = pixel_values(maps, explanation.trace.image[None], reduction, null).float()
    torch.testing.assert_close(found.maps, expected)
    changes = pixel_values(maps, explanation.trace.image[None], "change", null).float()
    torch.testing.assert_close(found.scores, changes.flatten(2).norm(dim=2))
    assert other.maps.shape == (1, 1, 16, 16) and other.maps.any()


def test_the_null_image_is_that_of_no_prompt() -> None:
    pipeline = tiny_pipeline()
    job = pipeline.job(["cat"], ["dog"], [2], steps=2, guidance=1.0)
    text = pipeline.model.condition(pipeline.model.tokenizer.encode_null(1))
    expected = pipeline._sample(text, 1, job.first, 2, Guidance(), "homogeneous")
    torch.testing.assert_close(whole_run(pipeline, job, 0).null_image(), expected)


def test_a_network_with_biases_has_no_exact_contributions() -> None:
    pipeline = pipeline_of("vanilla")
    batch = pipeline.model.tokenizer.encode(["cat"])
    with pytest.raises(ValueError, match="ordinary layers with biases"):
        Exact().denoise(pipeline, batch, *states(pipeline))
    with pytest.raises(ValueError, match="ordinary layers with biases"):
        Exact().draw(pipeline, pipeline.job(["cat"], [None], [0], steps=1))
