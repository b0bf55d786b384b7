"""Repair, attention and files: what a page asks beside drawing."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bcos_diffusion.app.attention import attention_maps
from bcos_diffusion.app.drawing import Drawing
from bcos_diffusion.app.export import export
from bcos_diffusion.app.studio import Looking, Studio
from bcos_diffusion.baselines.daam import heat_maps
from bcos_diffusion.missing.scoring import score


def test_attention_is_daams_of_the_same_picture(studio: Studio, drawing: Drawing) -> None:
    ask = drawing.ask
    (expected,) = heat_maps(
        studio.pipeline, [ask.prompt], [ask.seed], [ask.negative_prompt], ask.steps, ask.guidance, each_step=True
    )
    found = dict(attention_maps(studio.pipeline, drawing))
    torch.testing.assert_close(found[3], expected.maps)
    torch.testing.assert_close(found[2], expected.select(steps=[0, 1]).maps)
    messages = [message for message in studio.attention(drawing) if message]
    assert len(messages) == 1 and [frame["step"] for frame in messages[0]["frames"]] == [1, 2, 3]


def test_words_are_judged_as_by_the_library(studio: Studio) -> None:
    *_, (whole, drawing) = studio.picture(studio.read("cat and dog on blue", "", 0, 3, 2.0))
    assert drawing is not None
    expected = {s.position: s for s in score(drawing.explanation, studio.calibration)}
    told = {i: word for i, word in enumerate(whole["words"]) if "drawn" in word}
    assert told.keys() == expected.keys() == {0, 2, 4}
    for position, word in told.items():
        assert word["probability"] == expected[position].probability
    assert not told[0]["drawn"] and told[0]["group"] == "object"


def test_repair_finds_what_ensure_finds(studio: Studio) -> None:
    ask = studio.read("cat and dog on blue", "", 0, 3, 2.0)
    *_, (_, drawing) = studio.picture(ask)
    assert drawing is not None
    said = list(studio.repair(drawing))
    ensured = studio.pipeline.generate(
        [ask.prompt], seed=0, steps=3, guidance=2.0, ensure=True, calibration=studio.calibration
    )
    chosen = ensured.pictures[0].chosen
    repaired = [found[1] for found in said if isinstance(found, tuple) and found[1]]
    if chosen.seed == 0 and not chosen.strength:
        assert not repaired and "this picture stays" in str(said[-1])
    else:
        assert repaired[-1].ask.seed == chosen.seed and repaired[-1].strength == dict(chosen.strength)
        torch.testing.assert_close(repaired[-1].explanation.image, ensured.images[0])
        assert "still missing" in str(said[-1])
    assert said[:4] == [Looking(number) for number in (1, 2, 3, 4)]


def test_a_repaired_picture_is_the_one_that_was_found(studio: Studio) -> None:
    ask = studio.read("cat and dog on blue", "", 7, 3, 2.0)
    *_, (message, drawing) = studio.picture(ask, {0: 1.5})
    *_, (_, plain) = studio.picture(ask)
    assert drawing is not None and plain is not None and message["strengthened"] == {"0": 1.5}
    assert not torch.equal(drawing.explanation.image, plain.explanation.image)
    assert drawing.explanation.completeness < 1e-5
    assert studio.region(drawing, [0, 0, 24, 24], 3)["error"] < 1e-5


def test_without_a_calibration_nothing_is_judged(studio: Studio) -> None:
    silent = Studio(studio.pipeline)
    *_, (whole, drawing) = silent.picture(silent.read("cat", "", 0, 2, 2.0))
    assert drawing is not None and not any("drawn" in word for word in whole["words"])
    with pytest.raises(ValueError, match="no calibration"):
        next(silent.repair(drawing))


def test_exports_read_back_equal(drawing: Drawing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    found = drawing.explanation
    files = {kind: export(drawing, kind) for kind in ("png", "json", "safetensors")}
    for path in files.values():
        assert path.is_relative_to(tmp_path) and path.stem == "a-cat-left-of-a-dog-on-blue-seed1"
    numbers = json.loads(files["json"].read_text())
    assert numbers == json.loads(json.dumps(found.to_dict() | {"strengthened": {}}))
    tensors = load_file(files["safetensors"])
    torch.testing.assert_close(tensors["image"], found.trace.image, rtol=0, atol=0)
    for i, part in enumerate(found.words):
        torch.testing.assert_close(tensors[f"words/{i:02d}-{part.text}"], part.map, rtol=0, atol=0)
    with Image.open(files["png"]) as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 400
    with pytest.raises(ValueError, match="kind must be one of"):
        export(drawing, "../../etc/passwd")


def test_old_exports_are_removed(drawing: Drawing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    old, young = export(drawing, "json"), export(drawing, "json")
    os.utime(old.parent, (0, 0))
    export(drawing, "json")
    assert not old.exists() and young.exists()


def test_a_drawing_that_is_left_takes_no_more_steps(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    unet = studio.pipeline.model.unet
    hook = unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        pictures: Iterator[object] = studio.picture(studio.read("cat", "", 0, 50, 2.0))
        next(pictures)
        after_one = len(calls)
        pictures.close()  # type: ignore[attr-defined]
    finally:
        hook.remove()
    assert after_one == len(calls) <= 2
