"""Figures 1, 2, 5 and 6: their numbers against independent computation, their files, and mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references.commands import refused

from bcos_diffusion import cli
from bcos_diffusion.explain import Explanation, explain
from bcos_diffusion.paper import edits, epsilon, reconstruction
from bcos_diffusion.pipeline import BcosDiffusionPipeline

PROMPT = "two broccolis left of a cat on blue"


@pytest.fixture(scope="module")
def explanation(model: Path) -> Explanation:
    return explain(BcosDiffusionPipeline.from_pretrained(model), PROMPT, seed=1)


def told(folder: str, name: str) -> dict:
    result = json.loads(Path(folder, f"{name}.json").read_text())
    with Image.open(Path(folder, f"{name}.png")) as picture:
        assert min(picture.size) > 200 and len(np.unique(np.asarray(picture.convert("RGB")))) > 8
    return result


def run(*arguments: object) -> None:
    assert cli.main(["paper", *map(str, arguments)]) == 0


def test_the_reconstructions_errors_are_those_of_equations_6_and_7(explanation: Explanation) -> None:
    image, raw = (part.double().numpy() for part in (explanation.trace.image, explanation.trace.tokens.sum(0)))
    found = reconstruction.numbers(explanation)
    assert found["mse_raw"] == pytest.approx(((raw[:3] - image[:3]) ** 2).mean())
    normalised = raw[:3] / (raw[:3] + raw[3:])
    assert found["mse_normalised"] == pytest.approx(((normalised - image[:3]) ** 2).mean(), rel=1e-4)
    assert found["brightness_ratio"] == pytest.approx(raw[:3].mean() / image[:3].mean())


@pytest.mark.usefixtures("elsewhere")
def test_figure_2_states_both_relevances_of_every_token(model: Path, explanation: Explanation) -> None:
    run("reconstruction", PROMPT, "--model", model, "--seed", 1, "--count", 2, "--out", "two")
    result = told("two", "reconstruction")
    assert [token["text"] for token in result["tokens"]] == [part.text for part in explanation.tokens]
    assert sum(token["signed"] for token in result["tokens"]) == pytest.approx(1)
    assert sum(token["absolute"] for token in result["tokens"]) == pytest.approx(1)
    assert result["over_prompts"]["count"] == 2 and result["provenance"]["model_sha256"]


def test_a_fit_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    picture = rng.standard_normal((3, 8, 8))
    image = 0.5 + 0.1 * picture + 0.02 * rng.standard_normal((3, 8, 8))
    shown, values = epsilon.fitted(torch.from_numpy(picture), torch.from_numpy(image))
    gain, offset = np.polyfit(picture.ravel(), image.ravel(), 1)
    assert values["gain"] == pytest.approx(gain) and values["offset"] == pytest.approx(offset)
    np.testing.assert_allclose(shown.numpy(), np.clip(gain * picture + offset, 0, 1))
    assert values["correlation"] == pytest.approx(np.corrcoef(picture.ravel(), image.ravel())[0, 1], abs=1e-3)


def test_special_tokens_are_summed_by_their_text(explanation: Explanation) -> None:
    count = len(explanation.tokens)
    tokens = epsilon.token_shares(explanation, ["[PAD]", "[PAD]", *["cat"] * (count - 2)])
    tokens[0]["text"] = tokens[1]["text"] = "[PAD]"
    found = epsilon.groups(tokens)
    assert found["[PAD]"]["tokens"] == 2 and found["prompt"]["tokens"] == count - 2
    assert found["[PAD]"]["absolute"] == pytest.approx(tokens[0]["absolute"] + tokens[1]["absolute"])
    for measure in epsilon.MEASURES:
        assert sum(group[measure] for group in found.values()) == pytest.approx(1)


@pytest.mark.usefixtures("elsewhere")
def test_figure_5_compares_tokens_alone_with_tokens_and_noise(model: Path) -> None:
    run("epsilon", PROMPT, "--model", model, "--out", "five")
    result = told("five", "epsilon")
    with_noise = result["reconstructions"]["tokens and x_T"]
    # A network without a bias that predicts x_0 is its tokens and x_T.
    assert with_noise["mse_unfitted"] < 1e-9 and with_noise["gain"] == pytest.approx(1, abs=1e-3)
    assert result["groups"].keys() == {"prompt"}


@pytest.mark.parametrize(
    ("before", "after", "taken", "given"),
    [
        ("a cat on red", "a dog on red", (1,), (1,)),
        ("a cat on red", "a big cat on red", (), (1,)),
        ("a cat and a dog", "a cat", (2, 3, 4), ()),
        ("red cat", "red cat", (), ()),
    ],
)
def test_changed_words_are_those_of_the_shortest_edit(
    before: str, after: str, taken: tuple[int, ...], given: tuple[int, ...]
) -> None:
    assert edits.changed_words(before.split(), after.split()) == (taken, given)


@pytest.mark.parametrize("number", range(6))
def test_random_edits_swap_one_word_of_the_kind_they_say(number: int) -> None:
    prompt, variants = edits.random_edits(number)
    assert list(variants) == list(edits.KINDS)
    for kind in ("noun", "colour", "article"):
        taken, given = edits.changed_words(prompt.split(), variants[kind].split())
        assert len(taken) == len(given) == 1
    taken, _ = edits.changed_words(prompt.split(), variants["relation"].split())
    assert {prompt.split()[i] for i in taken} <= {"left", "right", "above", "below"}


@pytest.mark.usefixtures("elsewhere")
def test_figure_6_measures_change_from_one_seed(model: Path) -> None:
    prompts = "a cat on blue", "a dog on blue", "a cat on the blue"
    run("edits", *prompts, "--model", model, "--count", 2, "--seed", 3, "--out", "six")
    result = told("six", "edits")
    pipeline = BcosDiffusionPipeline.from_pretrained(model)
    first, second = (pipeline.generate([prompt], seed=3)[0].double() for prompt in prompts[:2])
    assert result["edits"][0]["rms"] == pytest.approx(float((first - second).pow(2).mean().sqrt()), rel=1e-4)
    before = explain(pipeline, prompts[0], seed=3)
    assert result["edits"][0]["relevance_of_changed_words"] == pytest.approx(before.words[1].relevance_absolute)
    assert result["edits"][1]["relevance_of_changed_words"] == 0
    assert len(result["measured"]) == 8 and result["over_prompts"]["prompts"] == 2


@pytest.mark.usefixtures("elsewhere")
def test_figure_1_draws_every_model_from_the_same_noise(model: Path) -> None:
    run("samples", "a cat", "dog , red", "--model", model, "--model", model, "--out", "one", "--seed", 5)
    result = told("one", "samples")
    assert len(result["models"]) == 2 and result["seeds"] == [5, 6] and result["prompts"] == ["a cat", "dog , red"]
    assert {head["sampling"]["seed"] for head in result["models"].values()} == {5}


@pytest.mark.usefixtures("elsewhere")
def test_mistakes_are_told_in_one_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'zebra'" in refused(capsys, "paper", "samples", "a zebra", "--model", model)
    assert "gone" in refused(capsys, "paper", "samples", "--model", "./gone")
    assert "at least 1" in refused(capsys, "paper", "samples", "--count", 0, "--model", model)
    assert "empty" in refused(capsys, "paper", "reconstruction", " ", "--model", model)
    assert "at least two prompts" in refused(capsys, "paper", "edits", "a cat", "--model", model)
    assert "unknown" in refused(capsys, "paper", "epsilon", "qwertz", "--model", model)
