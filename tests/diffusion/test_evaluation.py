"""The evaluation protocol on cases whose answers are known, and against slow definitions."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from bcos_diffusion.diffusion import guide, sample
from bcos_diffusion.evaluation import statistics
from bcos_diffusion.evaluation.__main__ import main
from bcos_diffusion.evaluation.faithfulness import WordEffect, faithfulness, measure
from bcos_diffusion.evaluation.full_run import Run, Word, draw_without_each_word
from bcos_diffusion.evaluation.regime_a import (
    Verdict,
    contributions_of_words,
    denoise_scene,
    effects_of_words,
    largest_word,
    regions,
)
from bcos_diffusion.evaluation.statistics import spearman
from bcos_diffusion.evaluation.summaries import localisation, mass_by_group, objects
from bcos_diffusion.evaluation.words import group, without_each_word
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


def test_the_largest_word_of_a_region_is_the_one_that_colours_it() -> None:
    image, mask = painted()
    grey = torch.full_like(image, 5.0)  # far more mass, and no colour
    maps = torch.stack([grey, image * mask, image * ~mask, -image * mask, torch.zeros_like(image)])
    assert largest_word(maps, image, mask) == 1
    assert largest_word(maps, image, ~mask) == 2
    assert largest_word(maps[3:], image, mask) == -1


def test_regions_are_the_visible_objects_and_the_rest() -> None:
    data = Scenes(size=32, split="test")
    seen = {"object": 0, "colour": 0}
    for scene in (data[i] for i in range(60)):
        found = regions(scene, scene.words)
        objects = [r for r in found if r.kind == "object"]
        for region in objects:
            assert group(scene.words[region.word]) == "object"
        for region in found:
            seen[region.kind] += 1
            if region.kind == "colour":
                assert scene.words[region.word] == scene.background
                corner = torch.from_numpy(scene.image)[region.mask].float().median(0).values
                assert corner.tolist() == pytest.approx(COLOURS[scene.background], abs=1)
        if len(objects) == len(scene.objects) and len(found) > len(objects):
            assert torch.stack([r.mask for r in found]).sum(0).eq(1).all()
    assert min(seen.values()) > 20


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
    effects = effects_of_words(pipeline, batch, x_t, t, x_hat)
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
def test_redrawing_in_one_batch_equals_redrawing_word_by_word(guidance: float) -> None:
    pipeline = tiny_pipeline()
    model, tokenizer = pipeline.model, pipeline.model.tokenizer
    batch, null = tokenizer.encode([PROMPT]), model.condition(tokenizer.encode_null(1))
    drawn = draw_without_each_word(pipeline, PROMPT, seed=3, steps=3, guidance=guidance)
    assert len(drawn) == len(PROMPT.split())
    for number in (0, 1, 5):
        text = model.condition(without_one(batch, number))

        def denoise(x_t: torch.Tensor, t: int, text: Conditioning = text) -> torch.Tensor:
            step = torch.tensor([t])
            conditional = model.unet(x_t, step, text)
            return conditional if guidance == 1 else guide(conditional, model.unet(x_t, step, null), guidance)

        alone = sample(denoise, pipeline.initial_noise(3)[None], pipeline.alpha_bar.double(), 3)
        torch.testing.assert_close(drawn[number], alone[0])


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


def run_of(words: list[tuple[str, float, float]]) -> Run:
    total = sum(mass for _, mass, _ in words)
    return Run(
        "", 0, {}, 0.0, 0.0, [Word(t, group(t), 1, m / total, word(t, m, e)) for t, m, e in words],
        torch.zeros(3, 8, 8), None, None,
    )  # fmt: skip


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
def test_localisation_counts_regions_and_chance() -> None:
    scenes = [
        [Verdict("object", 0.2, True, 1), Verdict("object", 0.4, False, 1), Verdict("colour", 0.2, True, 1)],
        [Verdict("object", 0.2, True, 0), Verdict("object", 0.4, True, 0)],
    ]
    found = localisation(scenes, "object")
    assert found["share"]["value"] == pytest.approx(0.75)
    assert found["chance"] == pytest.approx(0.75)
    assert found["share_with_rivals"]["value"] == found["chance_with_rivals"] == pytest.approx(0.5)
    assert found["by_level"]["0.4"]["value"] == pytest.approx(0.5)
    assert math.isnan(found["share_with_two_rivals_or_more"]["value"])


@pytest.mark.usefixtures("few_resamples")
def test_found_objects_are_counted_over_names_and_apart_for_one_name() -> None:
    found = objects([(1, 1, None), (0, 1, None), (1, 2, False), (2, 2, True), (0, 0, None)])
    assert (found["pictures"], found["pictures_with_a_relation"]) == (4, 2)
    assert found["found"]["value"] == pytest.approx(4 / 6)
    assert found["found_when_alone"]["value"] == found["relation_holds"]["value"] == 0.5


@pytest.mark.usefixtures("few_resamples")
def test_the_command_writes_strict_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pipeline(dtype=torch.float32).save_pretrained(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--prompts", "2", "--steps", "2", "--out"]
    files = [tmp_path / "deep" / "a.json", tmp_path / "b.json"]
    for file in files:
        assert main([*arguments, str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    values = json.loads(files[0].read_text(), parse_constant=refuse)
    budget = values["budget"]
    assert sum(budget[k]["value"] for k in ("tokens", "x_T", "time", "other")) == pytest.approx(1, abs=1e-6)
    assert budget["worst_completeness"] < 1e-4
    assert values["mass"]["object_over_function"]["value"] == "infinite"
    assert len(values["provenance"]["model_sha256"]) == 64 and values["seed"] == 0 and values["steps"] == 2
    assert values["quality"]["objects_in_real_scenes"]["found"]["value"] > 0
    assert "Budget of whole runs" in capsys.readouterr().out


@pytest.mark.parametrize("bad", ["missing model", "no prompts", "unwritable"])
def test_bad_input_is_one_line_and_leaves_no_file(bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pipeline(dtype=torch.float32).save_pretrained(tmp_path / "model")
    (tmp_path / "file").write_text("")
    model = tmp_path / ("nothing" if bad == "missing model" else "model")
    out = tmp_path / ("file" if bad == "unwritable" else "out") / "e.json"
    count = "0" if bad == "no prompts" else "1"
    assert main(["--model", str(model), "--out", str(out), "--prompts", count]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("error: ")
    assert not out.exists() and not list(tmp_path.rglob("*.tmp"))


def test_a_scene_is_denoised_at_every_level() -> None:
    step = denoise_scene(tiny_pipeline(), Scenes(size=24, split="test")[0], seed=0)
    assert step.contributions.shape == (len(step.words), 4, 6, 24, 24)
    assert step.effects.shape == (len(step.words), 4) and step.mse.shape == (4,)
