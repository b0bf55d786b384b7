"""From shards to a picture of one of the paper's models, with captions that are cut and images that are mirrored."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from references.clip import save_clip
from references.image_server import encoded
from references.laion import sample, write_shard

from bcos_diffusion import presets
from bcos_diffusion.explain import explain
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.train import TrainConfig, train
from bcos_diffusion.training.config import PaperModel

LONG = "a cat " * 30


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Two steps of a small ``bcos-clip-x0`` on nine images, one of which has a caption longer than CLIP reads."""
    size = dataclasses.replace(presets.SIZES["small"], size=16, channels=(8, 16, 16), head_dim=4, groups=4)
    monkeypatch.setitem(presets.SIZES, "small", size)
    images = [encoded(Image.new("RGB", (24, 20), (25 * number, 90, 7)), "PNG") for number in range(9)]
    samples = {
        f"{n:09d}": sample(image, LONG if n == 4 else f"cat {n}", "png", objects=["cat"])
        for n, image in enumerate(images)
    }
    write_shard(tmp_path / "shards" / "00000.tar", samples)
    clip = save_clip(tmp_path / "clip")
    return TrainConfig(
        tmp_path / "run", paper=PaperModel("bcos-clip-x0", "small", str(clip)), data=str(tmp_path / "shards"), steps=2,
        batch_size=5, flip=True, warmup=1, log_every=1,
    )  # fmt: skip


def test_a_model_of_the_paper_is_trained_on_shards_drawn_and_explained(config: TrainConfig) -> None:
    folder = train(config)
    log = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert [line["samples"] for line in log] == [5, 10] and all(line["denoising"] > 0 for line in log)
    pipeline = BcosDiffusionPipeline.from_pretrained(folder)
    assert pipeline.name == "bcos-clip-x0" and pipeline.model.unet.config.size == 16
    found = explain(pipeline, "two cats", steps=2)
    assert found.completeness < 1e-5
    assert [part.text for part in found.words[:5]] == ["[SOS]", "two", "cats", "[EOS]", "[PAD]"]


def test_training_on_shards_goes_on_where_it_was_cut(config: TrainConfig) -> None:
    steady = dataclasses.replace(config, cooldown=0.0)  # whose learning rate does not depend on the length of the run
    whole = train(steady)
    cut = dataclasses.replace(steady, out=config.out.with_name("cut"))
    train(dataclasses.replace(cut, steps=1))
    resumed = train(cut)
    weights = [BcosDiffusionPipeline.from_pretrained(folder).model.state_dict() for folder in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
