"""Gradient methods against reverse-mode derivatives, against captum and against the whole Jacobian."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from captum.attr import IntegratedGradients as CaptumIntegrated
from references.networks import KINDS, PROMPT, drawn, pipeline_of, states, step
from torch import Tensor

from bcos_diffusion.baselines.gradients import Gradient, InputGradient, IntegratedGradients, ValueGradient
from bcos_diffusion.baselines.subject import one_step
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch
from bcos_diffusion.text.words import word_positions


def read(pipeline: BcosDiffusionPipeline, prompt: str = PROMPT) -> TextBatch:
    return pipeline.model.tokenizer.encode([prompt])


def function_of(
    pipeline: BcosDiffusionPipeline, batch: TextBatch, reduction: str
) -> tuple[Callable[[Tensor, Tensor], Tensor], Conditioning]:
    """The sum of a reduced image over pixels for each of both states, of values and keys ``[R, L, D]``."""
    text, (x_t, t) = pipeline.model.condition(batch), states(pipeline)
    image = step(pipeline, text, x_t, t)
    weight = torch.ones_like(image) if reduction == "mass" else image - image.mean((-2, -1), keepdim=True)

    def total(values: Tensor, keys: Tensor) -> Tensor:
        rows = [
            (step(pipeline, Conditioning(v[None], k[None], text.mask), x_t, t) * weight).sum((1, 2, 3))
            for v, k in zip(values, keys, strict=True)
        ]
        return torch.stack(rows)

    return total, text


def by_word(batch: TextBatch, found: tuple[Tensor, ...]) -> Tensor:
    """Sums of attributions ``[1, L, D]`` to values and keys over the tokens of each word."""
    by_token = sum(part[0].sum(-1) for part in found)
    return torch.stack([by_token[positions].sum() for positions in word_positions(batch)])


@pytest.mark.parametrize("reduction", ["mass", "mean_free"])
@pytest.mark.parametrize("kind", KINDS)
def test_input_gradient_sums_to_what_captum_finds(kind: str, reduction: str) -> None:
    pipeline = pipeline_of(kind)
    batch = read(pipeline)
    total, text = function_of(pipeline, batch, reduction)
    maps = InputGradient(reduction).denoise(pipeline, batch, *states(pipeline)).maps
    assert maps.shape == (len(batch.words[0]), 2, 16, 16) and maps.dtype == torch.float32
    for state in range(2):
        expected = by_word(batch, InputXGradient(total).attribute((text.values, text.keys), target=state))
        assert expected.abs().max() > 0
        torch.testing.assert_close(maps[:, state].double().sum((1, 2)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_value_gradient_is_the_derivative_by_fading_the_word(kind: str) -> None:
    pipeline = pipeline_of(kind)
    batch, (x_t, t) = read(pipeline), states(pipeline)
    text = pipeline.model.condition(batch)
    total, _ = function_of(pipeline, batch, "mass")
    found = ValueGradient("mass").denoise(pipeline, batch, x_t, t)
    (by_values,) = InputXGradient(lambda values: total(values, text.keys)).attribute((text.values,), target=1)
    torch.testing.assert_close(
        found.maps[:, 1].double().sum((1, 2)), by_word(batch, (by_values,)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["scale", "vanilla"])
def test_integrated_gradients_sum_to_what_captum_finds(kind: str) -> None:
    pipeline = pipeline_of(kind)
    batch = read(pipeline)
    total, text = function_of(pipeline, batch, "mass")
    maps = IntegratedGradients(3, "mass").denoise(pipeline, batch, *states(pipeline)).maps
    found = CaptumIntegrated(total).attribute((text.values, text.keys), target=0, n_steps=3)
    torch.testing.assert_close(maps[:, 0].double().sum((1, 2)), by_word(batch, found), rtol=1e-4, atol=1e-5)


def test_integrated_gradients_of_all_words_are_the_change_from_no_conditioning() -> None:
    pipeline = pipeline_of("scale")
    batch, (x_t, t) = read(pipeline), states(pipeline)
    text = pipeline.model.condition(batch)
    nothing = Conditioning(torch.zeros_like(text.values), torch.zeros_like(text.keys), text.mask)
    change = (step(pipeline, text, x_t, t) - step(pipeline, nothing, x_t, t)).sum(1)
    total = IntegratedGradients(12, "mass").denoise(pipeline, batch, x_t, t).maps.sum(0)
    assert (total - change).norm() < 0.1 * change.norm()  # |cos| has kinks, so nodes converge slowly


def test_gradient_is_the_norm_of_the_jacobian_at_each_pixel() -> None:
    pipeline, word = pipeline_of("scale"), 1
    batch, (x_t, t) = read(pipeline, "on blue"), states(pipeline)
    text, positions = pipeline.model.condition(batch), word_positions(batch)[word]

    def image(values: Tensor, keys: Tensor) -> Tensor:
        return step(pipeline, Conditioning(values, keys, text.mask), x_t[:1], t[:1])[0, :, 4:10, 4:10]

    parts = torch.autograd.functional.jacobian(image, (text.values, text.keys))  # [6, 6, 6, 1, L, D] each
    expected = sum(part[..., 0, positions, :].pow(2).sum((0, 3, 4)) for part in parts)  # [6, 6]
    found = Gradient(probes=256).denoise(pipeline, batch, x_t[:1], t[:1])
    squares = found.maps[word, 0, 4:10, 4:10].double().pow(2)
    assert float(squares.sum()) == pytest.approx(float(expected.sum()), rel=0.15)
    # The relative deviation of an estimate is at most sqrt(2 / probes) = 9%; of its mean over pixels far less.
    ratio = squares / expected
    assert float(ratio.mean()) == pytest.approx(1, abs=0.1) and float((ratio - 1).abs().max()) < 0.5


def test_gradient_is_made_of_what_captum_calls_saliency() -> None:
    pipeline = pipeline_of("scale")
    batch, (x_t, t) = read(pipeline, "blue"), states(pipeline)
    text = pipeline.model.condition(batch)

    def channels(values: Tensor, keys: Tensor) -> Tensor:
        rows = [step(pipeline, Conditioning(v[None], k[None], text.mask), x_t[:1], t[:1])[0, :, 5, 9]
                for v, k in zip(values, keys, strict=True)]  # fmt: skip
        return torch.stack(rows)

    found = [Saliency(channels).attribute((text.values, text.keys), target=c) for c in range(6)]
    expected = sum(float(part[0, word_positions(batch)[0]].pow(2).sum()) for parts in found for part in parts)
    seeds = [float(Gradient(64, seed).denoise(pipeline, batch, x_t[:1], t[:1]).maps[0, 0, 5, 9]) for seed in range(8)]
    assert sum(value**2 for value in seeds) / len(seeds) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("kind", ["additive", "vanilla"])
def test_a_whole_run_is_differentiated_to_its_end(kind: str) -> None:
    pipeline = pipeline_of(kind)
    job = pipeline.job([PROMPT, "dog blue"], [None, "cat"], [0, 1], steps=2)
    found = InputGradient("mass").draw(pipeline, job)
    assert [len(one.maps) for one in found] == [len(job.prompts(i).words[0]) for i in range(2)]
    for number in range(2):
        text, null = (
            Conditioning(*(part[row : row + 1] for part in (job.text.values, job.text.keys, job.text.mask)))
            for row in (2 * number, 2 * number + 1)
        )
        values, keys = text.values.clone().requires_grad_(), text.keys.clone().requires_grad_()
        image = drawn(pipeline, Conditioning(values, keys, text.mask), null, job, number)
        by_values, by_keys = torch.autograd.grad(image.sum(), [values, keys])
        expected = by_word(job.prompts(number)[:1], (by_values * text.values, by_keys * text.keys))
        torch.testing.assert_close(found[number].maps.double().sum((1, 2, 3)), expected, rtol=1e-4, atol=1e-5)


def test_integrated_gradients_through_a_run_are_the_change_of_its_image() -> None:
    pipeline = pipeline_of("scale")
    job = pipeline.job(["cat"], [None], [0], steps=2)
    silent = dataclasses.replace(job, text=Conditioning(*(
        part * torch.tensor([0, 1])[:, None, None].to(part) for part in (job.text.values, job.text.keys)
    ), job.text.mask))  # fmt: skip
    change = pipeline.trace(job)[0].image.sum(0) - pipeline.trace(silent)[0].image.sum(0)
    total = IntegratedGradients(24, "mass").draw(pipeline, job)[0].maps[:, 0].sum(0)
    assert (total - change).norm() < 0.1 * change.norm()  # |cos| has kinks, so nodes converge slowly


@pytest.mark.parametrize(
    "method", [InputGradient(), ValueGradient(), IntegratedGradients(2), Gradient(2)], ids=lambda m: m.name
)
def test_words_that_are_not_read_have_maps_of_zero(method: InputGradient) -> None:
    pipeline = pipeline_of("scale")
    found = method.denoise(pipeline, read(pipeline), *states(pipeline))
    spoken = [word in ("cat", "dog", "blue") for word in PROMPT.split()]
    assert found.maps.abs().amax((1, 2, 3)).gt(0).tolist() == spoken
    assert found.scores.amax(1).gt(0).tolist() == spoken
    silent = method.denoise(pipeline, read(pipeline, "on a"), *states(pipeline))
    assert silent.maps.shape == (2, 2, 16, 16) and not silent.maps.any()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="reduction must be one of"):
        InputGradient("size")
    with pytest.raises(ValueError, match="steps must be at least 1"):
        IntegratedGradients(0)
    with pytest.raises(ValueError, match="probes must be at least 1"):
        Gradient(0)
    pipeline = pipeline_of("scale")
    x_t, t = states(pipeline)
    with pytest.raises(ValueError, match="one prompt at a time, got 2"):
        one_step(pipeline, pipeline.model.tokenizer.encode(["cat", "dog"]), x_t, t)
    with pytest.raises(ValueError, match="t must be integers"):
        one_step(pipeline, read(pipeline), x_t, t.double())
