"""A picture traced while it is drawn is the picture that the library explains."""

import base64

import numpy as np
import pytest
import torch

from bcos_diffusion.app import payload
from bcos_diffusion.app.ask import LARGEST_SEED, LONGEST, read
from bcos_diffusion.app.drawing import MOST_FRAMES, Drawing, draw, shown_steps
from bcos_diffusion.app.studio import Studio
from bcos_diffusion.app.vocabulary import examples, known_words
from bcos_diffusion.explain import explain
from bcos_diffusion.pipeline import BcosDiffusionPipeline

PROMPT = "a cat left of a dog on blue background"


@pytest.mark.parametrize("steps", [1, 2, 25, 29, 30, 31, 77, 100])
def test_shown_steps_are_few_and_end_at_the_picture(steps: int) -> None:
    shown = shown_steps(steps)
    assert shown == sorted(set(shown)) and shown[0] >= 1 and shown[-1] == steps
    assert len(shown) == min(steps, MOST_FRAMES)


@pytest.mark.parametrize("negative", ["", "dog blue"])
def test_the_last_frame_is_what_explain_says(exact: BcosDiffusionPipeline, negative: str) -> None:
    ask = read(exact, PROMPT, negative, 3, 4, 2.5)
    *_, last = draw(exact, ask)
    expected = explain(exact, PROMPT, negative or None, seed=3, steps=4, guidance=2.5)
    torch.testing.assert_close(last.explanation.image, expected.image, rtol=0, atol=1e-12)
    for found, word in zip(last.explanation.words, expected.words, strict=True):
        torch.testing.assert_close(found.map, word.map, rtol=0, atol=1e-12)
        assert found.relevance_signed == pytest.approx(word.relevance_signed, abs=1e-12)
    assert last.explanation.budget == pytest.approx(expected.budget, abs=1e-12)


def test_every_frame_is_the_sum_of_its_parts(exact: BcosDiffusionPipeline) -> None:
    frames = list(draw(exact, read(exact, PROMPT, None, 0, 4, 2.5)))
    assert [frame.step for frame in frames] == [1, 2, 3, 4]
    assert all(frame.explanation.completeness < 1e-12 for frame in frames)
    assert len({frame.explanation.words[1].mass for frame in frames}) == 4


def test_words_that_do_not_speak_give_nothing(drawing: Drawing) -> None:
    words = drawing.explanation.words
    assert [words[i].text for i in drawing.spoken] == ["cat", "dog", "blue", "red"]
    assert not any(bool(part.map.any()) for i, part in enumerate(words) if i not in drawing.spoken)


def test_what_the_browser_gets_is_the_explanation(studio: Studio) -> None:
    ask = studio.read(PROMPT, "red", 1, 3, 2.0)
    *previews, (whole, drawing) = studio.picture(ask)
    assert drawing is not None and [message["kind"] for message, _ in previews] == ["preview"] * 2
    found, frame = drawing.explanation, whole["frames"][-1]
    assert frame["relevance"] == [part.relevance_signed for part in found.words]
    assert sum(share for _, share in frame["budget"]) == pytest.approx(1)
    speak = [word["text"] for word in whole["words"] if word["speaks"]]
    assert whole["size"] == [24, 24] and speak == ["cat", "dog", "blue", "red"]
    image = np.frombuffer(base64.b64decode(frame["image"]), np.uint8).reshape(24, 24, 3)
    np.testing.assert_allclose(image / 255, found.image.permute(1, 2, 0).numpy(), atol=0.5 / 255 + 1e-6)
    masses = np.frombuffer(base64.b64decode(frame["mass"]["values"]), np.int16).reshape(-1, 24, 24)
    masses = masses * frame["mass"]["scale"]
    for place, word in enumerate(drawing.spoken):
        expected = found.words[word].map.double().sum(0).numpy()
        np.testing.assert_allclose(masses[place], expected, atol=frame["mass"]["scale"])
    total = found.trace.image.double().sum(0).numpy()
    np.testing.assert_allclose(masses.sum(0), total, atol=5 * frame["mass"]["scale"])


def test_a_constant_of_the_sampler_is_a_part_of_its_own(exact: BcosDiffusionPipeline) -> None:
    *_, frame = draw(exact, read(exact, "cat", None, 0, 2, 2.5))
    assert [name for name, _ in payload.others(frame.explanation)] == ["noise"]
    standard = explain(exact, "cat", steps=2, update="standard")
    assert [name for name, _ in payload.others(standard)] == ["noise", "time and constants"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("", "", 0, 3, 2.0), "the prompt is empty"),
        (("zebra cat", "", 0, 3, 2.0), "unknown word: 'zebra'"),
        (("cat " * 40, "", 0, 3, 2.0), "tokens, at most"),
        (("x" * 10_000, "", 0, 3, 2.0), f"10000 characters, at most {LONGEST}"),
        ((["cat"], "", 0, 3, 2.0), "the prompt must be text"),
        (("cat", "y" * 10_000, 0, 3, 2.0), "the negative prompt has 10000 characters"),
        (("cat", "", -1, 3, 2.0), "seed must be between"),
        (("cat", "", LARGEST_SEED + 1, 3, 2.0), "seed must be between"),
        (("cat", "", None, 3, 2.0), "seed must be a number"),
        (("cat", "", 0, 100_000, 2.0), "steps must be between"),
        (("cat", "", 0, True, 2.0), "steps must be a number"),
        (("cat", "", 0, 3, float("nan")), "guidance must be a number"),
        (("cat", "", 0, 3, 1e9), "guidance must be between"),
    ],
)
def test_what_cannot_be_drawn_is_said(studio: Studio, values: tuple[object, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        studio.read(*values)


def test_examples_and_words_are_the_models_own(studio: Studio, exact: BcosDiffusionPipeline) -> None:
    assert len(studio.examples) == 5
    for pipeline in (studio.pipeline, exact):
        assert examples(pipeline)
        for prompt in examples(pipeline):
            pipeline.tokenize(prompt)
    known = known_words(studio.pipeline)
    assert {"cat", "fish", "cherry"} <= set(known["things"]) and not {"cats", "cherries", "blue"} & set(known["things"])
    assert "blue" in known["colours"] and "left" in known["others"]
