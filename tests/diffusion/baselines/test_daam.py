"""Heat maps equal the published ones where those are installed, and always the formula written out by loops."""

from pathlib import Path

import pytest
import torch
from references.attention import slow_bicubic
from references.published_daam import published, published_heat_maps
from torch import Tensor

from bcos_diffusion.baselines.daam import Daam, HeatMaps, draw_heat_maps, hard_map, heat_maps
from bcos_diffusion.job import Job
from bcos_diffusion.networks.paper_unet import PaperUNet
from bcos_diffusion.pipeline import BcosDiffusionPipeline

PROMPT = "a cat left of broccolis cat"
PROMPTS = [PROMPT, "dog on blue background"]


def job(pipeline: BcosDiffusionPipeline, steps: int = 2, size: tuple[int, int] = (16, 16)) -> Job:
    return pipeline.job(PROMPTS, [None, None], [0, 1], steps, 2.5, size=size)


def drawn(pipeline: BcosDiffusionPipeline, size: tuple[int, int] = (16, 16)) -> list[HeatMaps]:
    return heat_maps(pipeline, PROMPTS, [0, 1], steps=2, guidance=2.5, size=size, each_step=True)


def slow_map(found: HeatMaps, position: int, size: tuple[int, int]) -> Tensor:
    """Eq. 7 for one token: every layer's and head's sum over steps, upscaled, without its undershoot, and summed."""
    total = torch.zeros(size, dtype=torch.float64)
    for name, layer in found.layers.items():
        if "middle" in name:
            continue
        for head in range(layer.probabilities.shape[2]):
            summed = torch.zeros(layer.grid, dtype=torch.float64)
            for step in range(len(layer.probabilities)):
                summed += layer.probabilities[step, 0, head, :, position].reshape(layer.grid)
            total += torch.maximum(slow_bicubic(summed, size), torch.zeros(()))
    return total


@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_heat_maps_by_loops(pipeline: BcosDiffusionPipeline, size: tuple[int, int]) -> None:
    for found in drawn(pipeline, size):
        assert found.steps == (0, 1) and found.maps.shape == (len(found.words), *size)
        for number, word in enumerate(found.words):
            tokens = [p for p, w in enumerate(found.batch.word_index[0].tolist()) if w == number]
            slow = sum((slow_map(found, p, size) for p in tokens), torch.zeros(())) / len(tokens)
            torch.testing.assert_close(found.maps[number], slow)
            if found.words.count(word) == 1:
                torch.testing.assert_close(found.word(word), slow)


def test_a_word_is_all_its_tokens_wherever_it_is(pipeline: BcosDiffusionPipeline) -> None:
    found = drawn(pipeline)[0]
    pieces = dict(enumerate(found.batch.texts[0]))
    parts = [p for p, text in pieces.items() if found.words[int(found.batch.word_index[0, p])] == "broccolis"]
    cats = [p for p, text in pieces.items() if text == "cat"]
    assert len(parts) > 1 and len(cats) == 2
    torch.testing.assert_close(found.word("Broccolis"), found.tokens[parts].mean(0))
    torch.testing.assert_close(found.word("cat"), found.tokens[cats].mean(0))
    torch.testing.assert_close(found.word("broccolis cat"), found.tokens[[*parts, cats[1]]].mean(0))
    # In its place, a word is itself alone.
    first, second = (n for n, word in enumerate(found.words) if word == "cat")
    torch.testing.assert_close(found.maps[[first, second]], found.tokens[cats])
    assert not torch.allclose(found.maps[first], found.maps[second])


@pytest.mark.parametrize("how", [{}, {"layer_idx": 0}, {"head_idx": 1}, {"layer_idx": 5, "head_idx": 0}])
def test_heat_maps_are_the_published_ones(
    every_pipeline: dict[str, BcosDiffusionPipeline],
    how: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daam = published(monkeypatch)
    pipeline, states = every_pipeline["vanilla"], list[tuple[Tensor, int]]()
    network = pipeline.model.unet
    assert isinstance(network, PaperUNet)
    made = pipeline.job([PROMPT], [None], [0], 2, 2.5)
    hook = network.register_forward_pre_hook(lambda _, args: states.append((args[0][:1].clone(), int(args[1][0]))))
    found = draw_heat_maps(pipeline, made)[0]
    hook.remove()
    theirs, count = published_heat_maps(daam, network, made.text, PROMPT, states, tmp_path, **how)
    # The package numbers its layers from the way up to the way down.
    names = sorted(found.chosen, key=lambda name: not name.startswith("up"))
    layers = [names[how["layer_idx"]]] if "layer_idx" in how else None
    found = found.select(layers, [how["head_idx"]] if "head_idx" in how else None)
    assert len(states) == 2 and count == sum(found.layers[name].probabilities.shape[2] for name in found.chosen)
    for word in ("a", "cat", "left", "broccolis"):
        torch.testing.assert_close(found.word(word) / count, theirs.compute_word_heat_map(word).value)


def test_selections_add_up(pipeline: BcosDiffusionPipeline) -> None:
    found = drawn(pipeline)[0]
    by_layer = sum(found.select(layers=[name]).tokens for name in found.chosen)
    torch.testing.assert_close(by_layer, found.tokens)
    most = max(found.layers[name].probabilities.shape[2] for name in found.chosen)
    torch.testing.assert_close(sum(found.select(heads=[head]).tokens for head in range(most)), found.tokens)
    first = found.select(steps=[0])
    once = draw_heat_maps(pipeline, job(pipeline), steps=[0])[0]
    assert first.steps == once.steps == (0,)
    torch.testing.assert_close(first.tokens, once.tokens)
    torch.testing.assert_close(found.select(steps=(1, 0)).tokens, found.tokens)


def test_the_middle_block_is_left_out_unless_asked_for(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    found = drawn(every_pipeline["vanilla"])[0]
    name = "middle.0.transformer.tokens"
    assert name in found.layers and set(found.layers) - set(found.chosen) == {name}
    assert found.select(layers=[name]).tokens.any()


def test_maps_without_value_are_zero_in_the_scenes_model(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    found = drawn(every_pipeline["unet"])[0]
    silent = [not any(map.any() for map in [found.word(word)]) for word in found.words]
    assert dict(zip(found.words, silent, strict=True)) == {
        "a": True, "cat": False, "left": True, "of": True, "broccolis": False,
    }  # fmt: skip
    assert not found.hard("left", 0.0).any()


def test_hard_maps_are_relative_to_their_own_maximum() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]], [[-1.0, -3.0], [-2.0, -1.0]]])
    assert hard_map(maps, 0.4).tolist() == [
        [[False, False], [True, True]], [[False, False], [False, False]], [[False, False], [False, False]],
    ]  # fmt: skip
    assert hard_map(maps, 1.0)[0].sum() == 1 and hard_map(maps, 0.0)[0].all()
    with pytest.raises(ValueError, match=r"tau must be between 0 and 1, got 1\.5"):
        hard_map(maps, 1.5)


def test_as_a_method_it_gives_the_same_maps(pipeline: BcosDiffusionPipeline) -> None:
    plain = pipeline.draw(job(pipeline))
    for image, found, method in zip(plain, drawn(pipeline), Daam().draw(pipeline, job(pipeline)), strict=True):
        assert torch.equal(found.image, image)
        assert method.maps.dtype == torch.float32 and method.maps.shape[1] == 1
        torch.testing.assert_close(method.maps[:, 0], found.maps.float())
        torch.testing.assert_close(method.scores[:, 0], found.maps.float().mean((-2, -1)))


def test_a_run_is_the_sum_of_its_steps_alone(pipeline: BcosDiffusionPipeline) -> None:
    made, states = job(pipeline), list[tuple[Tensor, Tensor]]()
    network = pipeline.model.unet
    hook = network.register_forward_pre_hook(lambda _, args: states.append((args[0][::2].clone(), args[1][::2])))
    found = draw_heat_maps(pipeline, made, each_step=True)
    hook.remove()
    for row, maps in enumerate(found):
        for step, (x_t, t) in enumerate(states):
            # The cut at zero comes after the sum over steps, so steps are compared one by one.
            alone = Daam().denoise(pipeline, made.prompts(row)[:1], x_t, t)
            torch.testing.assert_close(maps.select(steps=[step]).maps.float(), alone.maps[:, row])


def test_a_picture_in_a_batch_is_as_alone(pipeline: BcosDiffusionPipeline) -> None:
    alone = heat_maps(pipeline, PROMPTS[1:], [1], steps=2, guidance=2.5)[0]
    torch.testing.assert_close(drawn(pipeline)[1].maps, alone.maps)


def test_mistakes_are_named(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    pipeline = every_pipeline["unet"]
    summed = heat_maps(pipeline, [PROMPT], [0], steps=2)[0]
    with pytest.raises(ValueError, match=f"the prompt does not have 'dog'; its words: {PROMPT}"):
        summed.word("dog")
    with pytest.raises(ValueError, match=r"each layer must be one of down\.0\.0\.tokens\.attend, .*; got \['up'\]"):
        summed.select(layers=["up"])
    with pytest.raises(ValueError, match=r"each head must be one of 0, 1; got \[2\]"):
        summed.select(heads=[2])
    with pytest.raises(ValueError, match="draw with each_step=True to choose among them"):
        summed.select(steps=[0])
    with pytest.raises(ValueError, match=r"each step must be one of 0, 1; got \[2\]"):
        draw_heat_maps(pipeline, job(pipeline), steps=[2])
    with pytest.raises(ValueError, match="one prompt is explained at a time, got 2"):
        Daam().denoise(pipeline, job(pipeline).batch[:2], job(pipeline).first, torch.tensor([1, 1]))
