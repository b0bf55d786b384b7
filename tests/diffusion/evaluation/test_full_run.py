"""Whole runs and single steps under evaluation, on cases whose answers are known and against slow definitions."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from bcos_diffusion.baselines.subject import one_step
from bcos_diffusion.diffusion import T, guide, sample
from bcos_diffusion.encoding import encode
from bcos_diffusion.evaluation import full_run, statistics
from bcos_diffusion.evaluation.ablations import Ablations
from bcos_diffusion.evaluation.faithfulness import WordEffect, faithfulness, measure
from bcos_diffusion.evaluation.noised import SHARES, noise_scene
from bcos_diffusion.evaluation.setup import Contender, Options, Setup
from bcos_diffusion.evaluation.statistics import spearman
from bcos_diffusion.evaluation.summary.full_run import mass_by_group, objects
from bcos_diffusion.evaluation.truth import regions
from bcos_diffusion.evaluation.words import group, without_each_word
from bcos_diffusion.explain import explain
from bcos_diffusion.explanation.attribution import contributions_of_words
from bcos_diffusion.explanation.trace import signal_tokens, trace
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import COLOURS, Scenes, vocabulary
from bcos_diffusion.text import TextBatch, Tokenizer

PROMPT = "a cat left of three broccolis on blue"


def tiny_pipeline(time_conditioning: str = "scale", dtype: torch.dtype = torch.float64) -> BcosDiffusionPipeline:
    torch.manual_seed(0)
    config = UNetConfig(
        size=24, widths=(8, 16), heads=2, text_dim=8, time_dim=8, time_conditioning=time_conditioning,
        self_attention=(False, True), cross_attention=(True, True),
    )  # fmt: skip
    model = TextToImage(config, Tokenizer(vocabulary()), text_depth=1)
    for name, parameter in model.named_parameters():
        if "time.project" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return BcosDiffusionPipeline(model.to(dtype))


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are not what these tests look at, and most of what they would spend their time on."""
    monkeypatch.setattr(statistics, "RESAMPLES", 20)


def painted() -> tuple[torch.Tensor, torch.Tensor]:
    """A red square on blue, six channels, and its mask."""
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 2:5] = True
    rgb = torch.where(mask, torch.tensor([1.0, 0, 0])[:, None, None], torch.tensor([0, 0, 1.0])[:, None, None])
    return torch.cat([rgb, 1 - rgb]), mask


def test_regions_are_the_visible_objects_and_the_rest() -> None:
    data = Scenes(size=32, split="test")
    seen = {"object": 0, "colour": 0}
    for scene in (data[i] for i in range(60)):
        found = regions(scene.words, scene.masks)
        for region in found:
            seen[region.kind] += 1
            assert group(scene.words[region.word]) == region.kind
            if region.kind == "colour":
                assert scene.words[region.word] == scene.background
                corner = np.median(scene.image[region.mask], axis=0)
                assert corner.tolist() == pytest.approx(COLOURS[scene.background], abs=1)
        if {r.kind for r in found} == {"object", "colour"}:
            assert (np.sum([r.mask for r in found], axis=0) == 1).all()
    assert min(seen.values()) > 20


def test_words_without_a_mask_or_a_place_have_no_region() -> None:
    mask = np.ones((2, 2), bool)
    masks = {"cat": mask, "dog": ~mask, "left": mask, "blue": mask}
    found = regions(["a", "cat", "left", "of", "dog", "cat", "green", "blue"], masks)
    assert [(r.word, r.kind) for r in found] == [(1, "object"), (5, "object"), (7, "colour")]


@pytest.mark.parametrize("time_conditioning", ["scale", "additive"])
def test_contributions_of_words_equal_a_traced_step(time_conditioning: str) -> None:
    pipeline = tiny_pipeline(time_conditioning)
    batch = pipeline.model.tokenizer.encode([PROMPT])
    x_t = torch.stack([pipeline.initial_noise(s) for s in (0, 1)])
    image, contributions = contributions_of_words(pipeline, batch, x_t, torch.tensor([999, 999]))
    text = pipeline.model.condition(batch)
    speaks = contributions.abs().flatten(1).sum(1).gt(0).tolist()
    assert speaks == [w in ("cat", "broccolis", "blue") for w in batch.words[0]]
    for row in range(2):
        # One step of DDIM from the last timestep to ᾱ = 1 returns the predicted x_0 itself.
        whole = trace(pipeline.model.unet, text, signal_tokens(text.mask), x_t[row], pipeline.alpha_bar.double(), 1)
        torch.testing.assert_close(image[row], whole.image)
        expected = torch.zeros_like(contributions[:, row])
        for source, part in zip(whole.sources, whole.tokens, strict=True):
            expected[batch.word_index[0, source.position]] += part
        torch.testing.assert_close(contributions[:, row], expected)


def test_effects_equal_one_forward_pass_per_word() -> None:
    pipeline = tiny_pipeline()
    batch = pipeline.model.tokenizer.encode([PROMPT])
    x_t, t = torch.stack([pipeline.initial_noise(s) for s in (0, 1)]), torch.tensor([100, 700])
    repeated = type(batch).concatenate([batch, batch])
    x_hat = pipeline.model(x_t, t, repeated)
    changes = Ablations(one_step(pipeline, batch, x_t, t), "drop").of_words()
    effects = changes.flatten(2).norm(dim=2)
    for number in range(len(batch.words[0])):
        hidden = without_one(repeated, number)
        changed = pipeline.model(x_t, t, hidden)
        expected = [float((changed[row] - x_hat[row]).norm()) for row in range(2)]
        assert effects[number].tolist() == pytest.approx(expected, rel=1e-9)
    assert effects.min() > 0


def without_one(batch: TextBatch, number: int) -> TextBatch:
    mask = batch.mask.clone()
    for row in range(len(mask)):
        for position in range(mask.shape[1]):
            if batch.word_index[row, position] == number:
                mask[row, position] = False
    return dataclasses.replace(batch, mask=mask)


def test_each_row_hides_all_tokens_of_one_word() -> None:
    batch = tiny_pipeline().model.tokenizer.encode([PROMPT])
    dropped = without_each_word(batch)
    assert len(dropped.mask) == len(PROMPT.split())
    for number in range(len(dropped.mask)):
        assert torch.equal(dropped.mask[number], without_one(batch, number).mask[0])
    assert (batch.mask.sum() - dropped.mask.sum(1)).max() == 3  # broccolis is three tokens


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_effects_on_whole_runs_equal_redrawing_word_by_word(guidance: float) -> None:
    pipeline = tiny_pipeline()
    model, tokenizer = pipeline.model, pipeline.model.tokenizer
    batch, null = tokenizer.encode([PROMPT]), model.condition(tokenizer.encode_null(1))
    job = pipeline.job([PROMPT], [None], [3], 3, guidance)
    effects = full_run.effects_of_words(pipeline, job)
    assert len(effects) == len(PROMPT.split())

    def draw(text: Conditioning) -> torch.Tensor:
        def denoise(x_t: torch.Tensor, t: int) -> torch.Tensor:
            step = torch.tensor([t])
            conditional = model.unet(x_t, step, text)
            return conditional if guidance == 1 else guide(conditional, model.unet(x_t, step, null), guidance)

        return sample(denoise, pipeline.initial_noise(3)[None], pipeline.alpha_bar.double(), 3)[0]

    whole = draw(model.condition(batch))
    for number in (0, 1, 5):
        alone = draw(model.condition(without_one(batch, number)))
        assert effects[number] == pytest.approx(float((alone - whole).norm()), rel=1e-6)


def test_a_record_of_a_whole_run_says_what_its_explanation_says() -> None:
    pipeline = tiny_pipeline()
    setup = Setup(Contender(pipeline, {}), Options(1, 1, steps=2, seed=5))
    kept = full_run.record(setup, "test", 2)
    explanation = explain(pipeline, kept["prompt"], seed=7, steps=2, guidance=2.0)
    assert [w["text"] for w in kept["words"]] == kept["prompt"].split()
    for said, part in zip(kept["words"], explanation.words, strict=True):
        assert said["share"] == part.relevance_absolute and said["mass"] == abs(part.mass)
        assert said["norm"] == pytest.approx(float(part.map.norm()))
    assert kept["budget"] == explanation.budget and kept["completeness"] < 1e-10
    assert kept["real"]["named"] >= kept["real"]["found"] >= 0


def word(text: str, mass: float, effect: float) -> WordEffect:
    return WordEffect(text, mass, mass, mass, effect)


@pytest.mark.usefixtures("few_resamples")
def test_faithfulness_of_known_words() -> None:
    true = [word("cat", 1, 10), word("dog", 2, 20), word("blue", 3, 30), word("on", 0, 0)]
    false = [word("cat", 3, 10), word("dog", 2, 20), word("blue", 1, 30), word("on", 0, 0)]
    assert faithfulness([[true]] * 3)["mass"]["mean_over_images_content"]["value"] == pytest.approx(1)
    both = faithfulness([[true], [false], [[word("cat", 1, 1)]]])
    assert both["units_with_3_content_words"] == 2
    assert both["norm"]["mean_over_images_content"]["value"] == pytest.approx(0)
    found = faithfulness([[false]])["mean_free"]
    assert found["pooled_content"]["value"] == pytest.approx(-1)
    assert found["pooled_objects"]["value"] == pytest.approx(-1)
    assert found["pooled_all"]["value"] == pytest.approx(spearman([3, 2, 1, 0], [10, 20, 30, 0]))


def test_measures_of_a_known_contribution() -> None:
    image, mask = painted()
    found = measure("cat", -image * mask, image, 4.0)
    assert (found.mass, found.norm, found.effect) == pytest.approx((27.0, math.sqrt(27), 4.0))
    grey = measure("on", torch.ones_like(image), image, 0.0)
    assert grey.mass == 384 and grey.mean_free < 1e-12 * grey.norm + 1e-5


def run_of(words: list[tuple[str, float, float]]) -> dict[str, object]:
    total = sum(mass for _, mass, _ in words)
    described = [
        dataclasses.asdict(word(t, m, e)) | {"group": group(t), "tokens": 1, "share": m / total} for t, m, e in words
    ]
    return {"words": described}


@pytest.mark.usefixtures("few_resamples")
def test_masses_of_groups() -> None:
    silent = run_of([("a", 0, 1), ("cat", 6, 4), ("left", 0, 3), ("of", 0, 0), ("blue", 2, 4)])
    found = mass_by_group([silent])
    assert found["object"]["share_per_word"]["value"] == pytest.approx(0.75)
    assert found["colour"]["mass_per_word"]["value"] == pytest.approx(2)
    assert found["relation"]["words"] == 1 and found["function"]["words"] == 2
    assert found["object_over_function"]["value"] == math.inf
    assert found["object_over_function_effect"]["value"] == pytest.approx(3)
    assert found["function_words_carry_exactly_0"]
    speaking = mass_by_group([run_of([("a", 1, 1), ("cat", 6, 4), ("on", 2, 1)])])
    assert speaking["object_over_function"]["value"] == pytest.approx(4)
    assert not speaking["function_words_carry_exactly_0"]


@pytest.mark.usefixtures("few_resamples")
def test_found_objects_are_counted_over_names_and_apart_for_one_name() -> None:
    found = objects([(1, 1, None), (0, 1, None), (1, 2, False), (2, 2, True), (0, 0, None)])
    assert (found["pictures"], found["pictures_with_a_relation"]) == (4, 2)
    assert found["found"]["value"] == pytest.approx(4 / 6)
    assert found["found_when_alone"]["value"] == found["relation_holds"]["value"] == 0.5


def test_a_scene_is_noised_to_every_level_by_its_seed_alone() -> None:
    pipeline, scene = tiny_pipeline(), Scenes(size=24, split="test")[0]
    found = noise_scene(pipeline, scene, seed=4)
    rgb = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255
    assert torch.equal(found.x_0, encode(rgb).to(found.x_0))
    assert found.batch.words == [scene.caption.split()]
    noise = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(4))
    for row, share in enumerate(SHARES):
        t = round(share * T) - 1
        a = float(pipeline.alpha_bar[t])
        expected = a**0.5 * rgb[0] + (1 - a**0.5) / 2 + (1 - a) ** 0.5 / 2 * noise[row]
        assert found.t[row] == t
        torch.testing.assert_close(found.x_t[row, :3].float(), expected)
        torch.testing.assert_close(found.x_t[row, :3] + found.x_t[row, 3:], torch.ones_like(found.x_t[row, :3]))
