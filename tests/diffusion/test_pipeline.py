"""Pipelines on disk: what is loaded is what was saved, and what is not a pipeline says so in one line."""

import json
from pathlib import Path

import pytest
import torch

from bcos_diffusion.encoding import decode
from bcos_diffusion.explain import explain
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.text import Tokenizer

WORDS = ["a", "cat", "dog", "on", "blue", "left", "of"]
PROMPT = "a cat left of a dog on blue"


def tiny_pipeline(dtype: torch.dtype = torch.float32) -> BcosDiffusionPipeline:
    torch.manual_seed(0)
    config = UNetConfig(
        size=16, widths=(8, 16), heads=2, text_dim=8, time_dim=8,
        self_attention=(False, True), cross_attention=(True, True),
    )  # fmt: skip
    model = TextToImage(config, Tokenizer(WORDS), text_depth=1).to(dtype)
    return BcosDiffusionPipeline(model, Defaults(steps=3, guidance=2.5), name="tiny")


def test_a_saved_pipeline_is_the_same_pipeline(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path / "a")
    loaded = BcosDiffusionPipeline.from_pretrained(tmp_path / "a")
    assert (loaded.name, loaded.defaults) == (pipeline.name, pipeline.defaults)
    assert loaded.model.unet.config == pipeline.model.unet.config
    assert torch.equal(loaded.generate([PROMPT, "dog"], seed=5), pipeline.generate([PROMPT, "dog"], seed=5))
    loaded.save_pretrained(tmp_path / "b")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["config.json", "model.safetensors"]


def test_bfloat16_halves_the_file_and_rounds_once(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path / "full")
    pipeline.save_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    full, half = ((tmp_path / n / "model.safetensors").stat().st_size for n in ("full", "half"))
    assert half < 0.75 * full
    loaded = BcosDiffusionPipeline.from_pretrained(tmp_path / "half")
    assert loaded.dtype == torch.float32
    for (name, rounded), exact in zip(
        loaded.model.state_dict().items(), pipeline.model.state_dict().values(), strict=True
    ):
        assert torch.equal(rounded, exact.bfloat16().float()), name
    assert BcosDiffusionPipeline.from_pretrained(tmp_path / "half", torch.float64).dtype == torch.float64
    loaded.save_pretrained(tmp_path / "again", dtype=torch.bfloat16)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "half" / "model.safetensors"
    ).read_bytes()


def test_a_missing_pipeline_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nor a model"):
        BcosDiffusionPipeline.from_pretrained(tmp_path / "nothing" / "here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        BcosDiffusionPipeline.from_pretrained(tmp_path / "empty")


def spoil_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"format": ')


def make_foreign(folder: Path) -> None:
    (folder / "config.json").write_text('{"_class_name": "StableDiffusionPipeline"}')


def make_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[1, 2]")


def change_format(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": "bcos_diffusion/99"}))


def change_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["unet"]["text_dim"] = 16
    (folder / "config.json").write_text(json.dumps(config))


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def overwrite_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04 this is a pickle")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (spoil_json, "is not valid JSON"),
        (make_foreign, "does not describe a bcos_diffusion pipeline"),
        (make_a_list, "does not describe a bcos_diffusion pipeline"),
        (change_format, "this version reads 'bcos_diffusion/1'"),
        (change_shape, r"does not fit its config\.json"),
        (cut_weights, "not a readable safetensors file"),
        (overwrite_weights, "not a readable safetensors file"),
    ],
)
def test_a_damaged_or_foreign_pipeline_says_what_is_wrong(damage, message, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    tiny_pipeline().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as raised:
        BcosDiffusionPipeline.from_pretrained(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match="cannot write"):
        tiny_pipeline().save_pretrained(tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("update", ["homogeneous", "standard"])
@pytest.mark.parametrize("negative", [None, "dog blue"])
def test_the_explained_image_is_the_generated_one(guidance: float, update: str, negative: str | None) -> None:
    pipeline = tiny_pipeline(torch.float64)
    drawn = pipeline.generate([PROMPT], negative, seed=7, guidance=guidance, update=update)[0]
    explained = explain(pipeline, PROMPT, negative, seed=7, guidance=guidance, update=update)
    torch.testing.assert_close(explained.image, drawn, rtol=0, atol=1e-12)
    trace, _ = pipeline.explain(PROMPT, negative, seed=7, guidance=guidance, update=update)
    torch.testing.assert_close(decode(trace.image[None])[0].clamp(0, 1), drawn, rtol=0, atol=1e-12)


def test_a_batch_draws_what_its_prompts_draw_alone() -> None:
    pipeline = tiny_pipeline(torch.float64)
    together = pipeline.generate([PROMPT, "dog"], seed=3)
    torch.testing.assert_close(together[0], pipeline.generate([PROMPT], seed=3)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(together[1], pipeline.generate(["dog"], seed=4)[0], rtol=0, atol=1e-12)
    assert not torch.equal(together[0], together[1])


def test_initial_noise_is_paired_and_seeded() -> None:
    pipeline = tiny_pipeline()
    x_T = pipeline.initial_noise(1)
    torch.testing.assert_close(x_T[:3] + x_T[3:], torch.ones(3, 16, 16))
    assert torch.equal(x_T, pipeline.initial_noise(1))
    assert not torch.equal(x_T, pipeline.initial_noise(2))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="steps must be between 1 and 1000"):
        tiny_pipeline().generate(["cat"], steps=steps)
