"""What drives a latent: complete to the precision of the numbers, and equal to forward maps of single sources."""

import pytest
import torch
from references.around_a_layer import pushed_forward
from references.networks import pipeline_of
from references.tiny import tiny_pipeline
from references.tiny_dictionary import LAYERS, RandomDictionary, T, dictionary_of, step_of, tiny_step

from bcos_diffusion.features.latents.attribution import attribute
from bcos_diffusion.features.latents.run import attribute_run, steps_of_run
from bcos_diffusion.features.latents.step import Step, features_of, read_at

CHOSEN = [5, 0, 17]
KINDS = list(LAYERS)


@pytest.mark.parametrize("position", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_add_up_to_the_activation(kind: str, position: int | None) -> None:
    step = tiny_step(kind)
    dictionary = dictionary_of(step)
    found = attribute(step, dictionary, CHOSEN, position)
    read = read_at(features_of(step), position)
    expected = [dictionary.encoder[j] @ (read - dictionary.pre_bias) + dictionary.encoder_bias[j] for j in CHOSEN]
    torch.testing.assert_close(found.activation, torch.stack(expected), rtol=1e-12, atol=1e-14)
    assert ((found.total - found.activation) / found.activation).abs().max() < 1e-10
    assert found.completeness < 1e-10
    assert found.time.any() == (kind not in ("scale", "tokens")) and found.words.any() and found.x_t.any()


@pytest.mark.parametrize("kind", ["scale", "paper"])
def test_single_precision_is_complete_too(kind: str) -> None:
    step = tiny_step(kind, torch.float32)
    found = attribute(step, dictionary_of(step, torch.float32), range(24))
    assert found.completeness < 1e-5


@pytest.mark.parametrize("position", [None, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_what_its_source_alone_gives(kind: str, position: int | None) -> None:
    step = tiny_step(kind)
    dictionary = dictionary_of(step)
    found = attribute(step, dictionary, CHOSEN, position)
    rows, nothing = dictionary.encoder[CHOSEN], torch.zeros_like(step.x_t[None])
    for word in range(len(step.batch.words[0])):
        alone = step.text.values * (step.batch.word_index[0] == word)[None, :, None]
        expected = rows @ read_at(pushed_forward(step, nothing, alone), position)
        torch.testing.assert_close(found.words[:, word], expected)
    for place in [(0, 3, 7), (4, 15, 0)]:
        pixel = torch.zeros_like(nothing)
        pixel[(0, *place)] = step.x_t[place]
        expected = rows @ read_at(pushed_forward(step, pixel, torch.zeros_like(step.text.values)), position)
        torch.testing.assert_close(found.x_t[(slice(None), *place)], expected)
    torch.testing.assert_close(found.pixels, found.x_t.sum(1))


def test_latents_together_are_latents_alone() -> None:
    step = tiny_step("scale")
    dictionary = dictionary_of(step)
    together = attribute(step, dictionary, CHOSEN)
    for i, j in enumerate(CHOSEN):
        alone = attribute(step, dictionary, [j])
        assert torch.equal(alone.x_t[0], together.x_t[i]) and torch.equal(alone.tokens[0], together.tokens[i])


def test_a_prompt_without_words_leaves_the_pixels() -> None:
    pipeline = tiny_pipeline()
    layer = pipeline.model.unet.get_submodule("down.1.0")
    step = Step.of(pipeline, layer, pipeline.model.tokenizer.encode_null(1), pipeline.initial_noise(0), T)
    found = attribute(step, dictionary_of(step), CHOSEN)
    assert not found.tokens.any() and found.completeness < 1e-10


def test_a_layer_before_the_words_hears_none() -> None:
    step = step_of(tiny_pipeline(), "conv_in")
    found = attribute(step, dictionary_of(step), CHOSEN)
    assert not found.words.any() and found.completeness < 1e-10


def test_the_mean_over_a_run() -> None:
    pipeline = tiny_pipeline()
    layer = pipeline.model.unet.get_submodule("down.1.0")
    job = pipeline.job(["cat on blue"], [None], [4], steps=3)
    states = []
    pipeline.trace(job, lambda number, state, _: states.append(state[0, 0]))
    steps = steps_of_run(pipeline, layer, job)
    assert [step.t for step in steps] == [999, 666, 332]
    torch.testing.assert_close(torch.stack([step.x_t for step in steps]), torch.stack([job.first[0], *states[:-1]]))
    dictionary = dictionary_of(steps[0])
    found = attribute_run(steps, dictionary, CHOSEN)
    each = [attribute(step, dictionary, CHOSEN) for step in steps]
    torch.testing.assert_close(found.words, sum(one.words for one in each) / 3)
    assert found.completeness < 1e-10
    with pytest.raises(ValueError, match="of one picture"):
        steps_of_run(pipeline, layer, pipeline.job(["cat", "dog"], [None] * 2, [0, 1]))


def test_what_cannot_be_attributed() -> None:
    vanilla = pipeline_of("vanilla")
    with pytest.raises(ValueError, match="ordinary layers with biases"):
        step_of(vanilla, "middle.1")
    pipeline = tiny_pipeline()
    unet, batch = pipeline.model.unet, pipeline.model.tokenizer.encode(["cat", "dog"])
    noise = pipeline.initial_noise(0)
    with pytest.raises(ValueError, match="no module of the network"):
        Step.of(pipeline, torch.nn.Identity(), batch[:1], noise, T)
    with pytest.raises(ValueError, match="one prompt, got 2"):
        Step.of(pipeline, unet.get_submodule("conv_in"), batch, noise, T)
    with pytest.raises(ValueError, match=r"t must be in \[0, 1000\)"):
        Step.of(pipeline, unet.get_submodule("conv_in"), batch[:1], noise, 1000)
    step = step_of(pipeline, "down.1.0")
    dictionary = dictionary_of(step)
    with pytest.raises(ValueError, match="one or more of 0 to 23"):
        attribute(step, dictionary, [24])
    with pytest.raises(ValueError, match="positions, counted from 0, got 99"):
        attribute(step, dictionary, [1], position=99)
    with pytest.raises(ValueError, match="of width 3, the layer's have 16"):
        attribute(step, RandomDictionary(3), [1])
    with pytest.raises(ValueError, match="must be a tensor"):
        attribute(step_of(pipeline, "time"), dictionary, [1])
    with pytest.raises(ValueError, match="it ran 0 times"):
        attribute(step_of(pipeline, "down"), dictionary, [1])
