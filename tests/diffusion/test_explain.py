"""What an explanation reports: shares that sum to one, a complete budget, words from their tokens."""

import json
import math

import pytest
import torch
from references.tiny import NETWORKS, tiny_pipeline

from bcos_diffusion.explain import Explanation, explain, mean_free, relevance

PROMPT = "a cat left of broccolis on blue"


def explained(
    negative: str | None = None,
    time_conditioning: str = "scale",
    update: str = "homogeneous",
    network: str = "unet",
) -> Explanation:
    pipeline = tiny_pipeline(time_conditioning=time_conditioning, network=network)
    return explain(pipeline, PROMPT, negative, seed=3, steps=4, guidance=2.5, update=update)


@pytest.mark.parametrize("negative", [None, "dog on blue"])
@pytest.mark.parametrize("time_conditioning", ["scale", "additive"])
@pytest.mark.parametrize("update", ["homogeneous", "standard"])
@pytest.mark.parametrize("network", NETWORKS)
def test_shares_budget_and_completeness(
    negative: str | None, time_conditioning: str, update: str, network: str
) -> None:
    explanation = explained(negative, time_conditioning, update, network)
    assert explanation.completeness <= 1e-9
    assert sum(explanation.budget.values()) == pytest.approx(1, abs=1e-12)
    assert explanation.budget["other"] == pytest.approx(0, abs=1e-9) or update == "standard"
    assert (explanation.budget["time"] == 0) == (time_conditioning == "scale")
    for parts in (explanation.tokens, explanation.words):
        assert sum(part.relevance_signed for part in parts) == pytest.approx(1, abs=1e-12)
        assert sum(part.relevance_absolute for part in parts) == pytest.approx(1, abs=1e-12)
        assert all(part.relevance_absolute >= 0 for part in parts)
        torch.testing.assert_close(sum(part.map for part in parts), explanation.trace.tokens.sum(0))


def test_the_json_has_every_value_and_its_names() -> None:
    values = json.loads(json.dumps(explained().to_dict(), allow_nan=False))
    assert set(values) == {
        "prompt", "negative_prompt", "seed", "steps", "guidance", "unguided_below", "update", "model", "completeness",
        "budget", "reconstruction_mse", "raw_reconstruction_mse", "size", "start", "tokens", "words",
    }  # fmt: skip
    assert set(values["budget"]) == {"tokens", "x_T", "time", "other"}
    assert (values["prompt"], values["seed"], values["steps"], values["model"]) == (PROMPT, 3, 4, "tiny")
    assert [word["text"] for word in values["words"]] == PROMPT.split()
    assert "".join(token["text"] for token in values["tokens"]) == PROMPT.replace(" ", "")
    assert len(values["tokens"]) == len(PROMPT.split()) + 2  # broccolis is three tokens
    for part in values["tokens"] + values["words"]:
        assert set(part) == {"text", "relevance_signed", "relevance_absolute"}


def test_words_are_the_sum_of_their_tokens_and_function_words_are_exactly_0() -> None:
    explanation = explained()
    pieces = [token.map for token in explanation.tokens if token.text in ("broc", "col", "is")]
    (word,) = [word for word in explanation.words if word.text == "broccolis"]
    assert len(pieces) == 3
    torch.testing.assert_close(word.map, sum(pieces))
    speaking = {w.text for w in explanation.words if w.map.abs().sum() > 0}
    assert speaking == {"cat", "broccolis", "blue"}
    assert all(w.relevance_absolute == 0 for w in explanation.words if w.text not in speaking)


def test_a_negative_prompt_is_marked_and_carries_its_own_part() -> None:
    without, with_negative = explained(), explained("dog")
    assert not any(part.negative for part in without.tokens + without.words)
    (negative,) = [word for word in with_negative.words if word.negative]
    assert negative.text == "dog" and negative.map.abs().sum() > 0
    assert not torch.equal(without.image, with_negative.image)
    described = with_negative.to_dict()
    assert described["negative_prompt"] == "dog"
    assert [word.get("negative", False) for word in described["words"]] == [False] * 7 + [True]


def test_relevance_of_known_maps() -> None:
    one = torch.ones(6, 2, 2)
    assert relevance([3 * one, -one, 0 * one]) == [(1.5, 0.75), (-0.5, 0.25), (0.0, 0.0)]
    assert relevance([0 * one]) == [(0.0, 0.0)]
    cancelling = relevance([one, -one])
    assert cancelling == [(0.0, 0.5), (0.0, 0.5)]


def test_mean_free_ignores_brightness_and_sees_colour() -> None:
    image = torch.zeros(6, 4, 4)
    image[:3, 0] = image[3:, 1:] = 1.0
    grey = torch.full_like(image, 7.0)
    assert mean_free(grey, image).sum().abs() < 1e-4
    own = mean_free(image, image)
    slow = torch.zeros(4, 4)
    for c in range(6):
        for i in range(4):
            for j in range(4):
                slow[i, j] += image[c, i, j] * (image[c, i, j] - image[c].mean())
    torch.testing.assert_close(own, slow)
    assert own[0].min() > 0


def test_the_same_seed_gives_the_same_explanation() -> None:
    first, second = explained(), explained()
    assert torch.equal(first.trace.tokens, second.trace.tokens)
    assert first.to_dict() == second.to_dict()
    assert math.isfinite(first.reconstruction_mse) and first.reconstruction_mse > 0


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("", "empty"), ("a unicorn", "unicorn"), ("cat " * 30, "at most 24"), ("!", "empty|unknown")],
)
def test_bad_prompts_are_refused(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(tiny_pipeline(), prompt)
