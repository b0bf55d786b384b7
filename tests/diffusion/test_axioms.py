"""What any explanation worth the name obeys, on the model in the package: exact, stable, and of these very weights."""

import pytest
import torch
from torch import Tensor

from bcos_diffusion.baselines.gradients import InputGradient
from bcos_diffusion.baselines.subject import Subject, one_step
from bcos_diffusion.diffusion import T, add_noise, paired_noise
from bcos_diffusion.encoding import encode
from bcos_diffusion.evaluation.randomisation import blocks_in_order, cascade
from bcos_diffusion.evaluation.sensitivity import max_sensitivity
from bcos_diffusion.evaluation.statistics import mean, spearman
from bcos_diffusion.explanation.attribution import Exact, contributions_of_words
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes
from bcos_diffusion.text import TextBatch
from bcos_kernels.mode import explanation_mode, stacked


@pytest.fixture(scope="module")
def pipeline() -> BcosDiffusionPipeline:
    return BcosDiffusionPipeline.from_pretrained("scenes-32")


@pytest.fixture(scope="module")
def states(pipeline: BcosDiffusionPipeline) -> tuple[TextBatch, Tensor, Tensor]:
    """A caption of several words and its scene at two levels of noise."""
    scene = next(s for s in map(Scenes(split="validation").__getitem__, range(50)) if len(s.masks) == 3)
    x_0 = encode(torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255)
    t = torch.tensor([T // 5 - 1, 4 * T // 5 - 1])
    noise = paired_noise((2, 6, *x_0.shape[2:]), torch.Generator().manual_seed(0))
    return pipeline.model.tokenizer.encode([scene.caption]), add_noise(x_0, t, noise, pipeline.alpha_bar), t


def explained(subject: Subject, values: Tensor) -> Tensor:
    with explanation_mode():
        return subject.images(Conditioning(values, subject.text.keys, subject.text.mask))[0]


def test_completeness(pipeline: BcosDiffusionPipeline, states: tuple[TextBatch, Tensor, Tensor]) -> None:
    batch, x_t, t = states
    image, contributions = contributions_of_words(pipeline, batch, x_t, t)
    text = pipeline.model.condition(batch)
    both = Conditioning(*(part.expand(2, -1, -1) for part in (text.values, text.keys)), text.mask.expand(2, -1))
    values = torch.cat([both.values, torch.zeros_like(both.values)])
    with torch.no_grad(), stacked(2):
        of_x_t = pipeline.model.unet(x_t.repeat(2, 1, 1, 1), t, Conditioning(values, both.keys, both.mask))[2:]
    assert (contributions.sum(0) + of_x_t - image).norm() < 1e-5 * image.norm()


def test_a_masked_word_has_exactly_nothing(
    pipeline: BcosDiffusionPipeline, states: tuple[TextBatch, Tensor, Tensor]
) -> None:
    batch, x_t, t = states
    hidden = TextBatch(
        batch.ids, batch.mask & (batch.word_index != 0), batch.value_mask, batch.word_index, batch.words, batch.texts
    )
    for method in (Exact(), InputGradient()):
        found = method.denoise(pipeline, hidden, x_t, t)
        assert not found.maps[0].any() and found.maps[1:].any()
    assert Exact().denoise(pipeline, batch, x_t, t).maps[0].any()


def test_forward_and_backward_agree(pipeline: BcosDiffusionPipeline, states: tuple[TextBatch, Tensor, Tensor]) -> None:
    batch, x_t, t = states
    subject = one_step(pipeline, batch, x_t, t)
    _, contributions = contributions_of_words(pipeline, batch, x_t, t)
    g = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
    values = subject.text.values.clone().requires_grad_()
    with torch.enable_grad():
        (pulled,) = torch.autograd.grad((explained(subject, values) * g).sum(), values)
    by_token = (pulled * subject.text.values)[0].sum(-1).double()
    backward = torch.stack([by_token[positions].sum() for positions in subject.positions])
    forward = (contributions.double() * g).flatten(1).sum(1)
    torch.testing.assert_close(forward, backward, rtol=1e-3, atol=1e-3)


def test_explanation_changes_no_bit_of_the_image(
    pipeline: BcosDiffusionPipeline, states: tuple[TextBatch, Tensor, Tensor]
) -> None:
    subject = one_step(pipeline, *states)
    with torch.no_grad():
        assert torch.equal(explained(subject, subject.text.values), subject.image())


def test_maps_are_of_these_very_weights(
    pipeline: BcosDiffusionPipeline, states: tuple[TextBatch, Tensor, Tensor]
) -> None:
    blocks = blocks_in_order(pipeline)
    assert blocks[-2:] == ["norm_out", "conv_out"] and "conv_in" in blocks and "down.2.0" in blocks
    maps = Exact().denoise(pipeline, *states).maps
    spoken = maps.abs().sum((1, 2, 3)) > 0

    def alike(other: BcosDiffusionPipeline) -> float:
        pairs = zip(maps[spoken].flatten(0, 1), Exact().denoise(other, *states).maps[spoken].flatten(0, 1), strict=True)
        return mean([spearman(a.flatten(), b.flatten()) for a, b in pairs])

    assert alike(pipeline) == pytest.approx(1)
    kept = {name: alike(randomised) for name, randomised in cascade(pipeline)}
    assert list(kept)[:2] == ["conv_out", "norm_out"] and list(kept)[-1] == "text"
    assert abs(kept["text"]) < 0.3 and abs(kept["down.0.0"]) < 0.3
    assert alike(pipeline) == pytest.approx(1)  # and the pipeline itself is as it was


def test_exact_maps_move_less_than_gradients(
    pipeline: BcosDiffusionPipeline, states: tuple[TextBatch, Tensor, Tensor]
) -> None:
    exact = max_sensitivity(Exact(), pipeline, *states, draws=3)
    gradient = max_sensitivity(InputGradient(), pipeline, *states, draws=3)
    assert exact.min() > 0 and exact.max() < 0.05
    assert (exact < gradient).all()
