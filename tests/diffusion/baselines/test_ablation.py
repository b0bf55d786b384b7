"""Words taken out in three ways, against one plain pass for each of them."""

import dataclasses

import pytest
import torch
from references.networks import pipeline_of, states, step

from bcos_diffusion.baselines.ablation import LeaveOneOut
from bcos_diffusion.baselines.removal import replacements
from bcos_diffusion.diffusion import Guidance
from bcos_diffusion.evaluation.words import group
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.scenes.kinds import stand_ins
from bcos_diffusion.text import Tokenizer

PROMPT = "a cat left of three broccolis on blue"


def pipeline_of_scenes() -> BcosDiffusionPipeline:
    torch.manual_seed(0)
    config = UNetConfig(24, 2, (8, 16), 1, (False, True), (True, True), heads=2, text_dim=8, time_dim=8)
    return BcosDiffusionPipeline(TextToImage(config, Tokenizer(vocabulary()), text_depth=1).double())


def text_without(pipeline: BcosDiffusionPipeline, number: int, how: str, seed: int) -> Conditioning:
    """What the network reads without one word, made anew from the definition."""
    tokenizer, model = pipeline.model.tokenizer, pipeline.model
    batch = tokenizer.encode([PROMPT])
    own = batch.word_index == number
    if how == "drop":
        return model.condition(dataclasses.replace(batch, mask=batch.mask & ~own))
    if how == "null":
        text = model.condition(batch)
        return dataclasses.replace(text, values=text.values.masked_fill(own[:, :, None], 0))
    words = PROMPT.split()
    words[number] = replacements(words, seed)[number]
    return model.condition(tokenizer.encode([" ".join(words)]))


@pytest.mark.parametrize("how", ["drop", "null", "swap"])
def test_a_map_is_what_changes_without_the_word(how: str) -> None:
    pipeline = pipeline_of_scenes()
    batch, (x_t, t) = pipeline.model.tokenizer.encode([PROMPT]), states(pipeline)
    found = LeaveOneOut(how, seed=4).denoise(pipeline, batch, x_t, t)
    whole = step(pipeline, pipeline.model.condition(batch), x_t, t)
    for number, word in enumerate(PROMPT.split()):
        change = (step(pipeline, text_without(pipeline, number, how, 4), x_t, t) - whole).float()
        torch.testing.assert_close(found.maps[number], change.pow(2).sum(1).sqrt(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.scores[number], change.flatten(1).norm(dim=1), rtol=1e-4, atol=1e-6)
        speaks = word in ("cat", "broccolis", "blue")
        assert bool(found.maps[number].any()) == (speaks or how != "null"), word


def drawn_without(pipeline: BcosDiffusionPipeline, number: int, seed: int, guidance: float) -> torch.Tensor:
    """The image ``[6, H, W]`` of two steps from a seed without one word."""
    text = text_without(pipeline, number, "drop", seed)
    null = pipeline.model.condition(pipeline.model.tokenizer.encode_null(1))
    pairs = [text] if guidance == 1 else [text, null]
    read = Conditioning(*(torch.cat([getattr(row, name) for row in pairs]) for name in ("values", "keys", "mask")))
    first = pipeline.initial_noise(seed)[None]
    return pipeline._sample(read, len(pairs), first, 2, Guidance(guidance), "homogeneous")[0]


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_a_run_without_a_word_starts_from_the_same_noise(guidance: float) -> None:
    pipeline = pipeline_of_scenes()
    job = pipeline.job([PROMPT, "dog"], [None, None], [3, 4], steps=2, guidance=guidance)
    found, other = LeaveOneOut().draw(pipeline, job)
    image = pipeline.trace(job)[0].image
    redrawn = torch.stack([drawn_without(pipeline, number, 3, guidance) for number in range(len(PROMPT.split()))])
    expected = (redrawn - image).float().norm(dim=1)
    torch.testing.assert_close(found.maps[:, 0], expected, rtol=1e-4, atol=1e-6)
    assert other.maps.shape == (1, 1, 24, 24)


def test_clip_words_are_taken_out_where_the_layout_stays() -> None:
    pipeline = pipeline_of("vanilla")
    batch, (x_t, t) = pipeline.model.tokenizer.encode(["cat on blue"]), states(pipeline)
    for how in ("drop", "null", "swap"):
        found = LeaveOneOut(how).denoise(pipeline, batch, x_t, t)
        changed = found.scores.gt(1e-9).all(1).tolist()
        assert changed == [how != "swap", True, True, True, *[how != "swap"] * 2], how
    with pytest.raises(ValueError, match="could stand in for 'dragon'"):
        LeaveOneOut("swap").denoise(pipeline, pipeline.model.tokenizer.encode(["a dragon"]), x_t, t)


@pytest.mark.parametrize("size", [32, 64])
def test_every_word_of_a_scene_has_others_of_its_kind(size: int) -> None:
    for word in vocabulary(size):
        others = stand_ins(word, size)
        assert word not in others and set(others) <= set(vocabulary(size))
        assert {group(other) for other in others} == {group(word)}, word


def test_replacements_are_seeded_and_new_to_the_prompt() -> None:
    words = "red cat left of a dog".split()
    drawn = [replacements(words, seed) for seed in range(30)]
    assert drawn == [replacements(words, seed) for seed in range(30)]
    assert len({tuple(row) for row in drawn}) > 20
    for row in drawn:
        assert all(a != b and group(a) == group(b) for a, b in zip(row, words, strict=True))
        assert row[2] == "right" and not {"cat", "dog"} & {row[1], row[5]}
    assert replacements(["left", "right"], 0) == ["right", "left"]


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="removal must be one of"):
        LeaveOneOut("forget")
