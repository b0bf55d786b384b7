"""The classifier example, small: it learns, goes on where it was cut, and leaves numbers and pictures."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from bcos_kernels import explain
from bcos_kernels.files import read_tensors

PATH = Path(__file__).parents[2] / "examples" / "classify_scenes.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("classify_scenes", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["classify_scenes"] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["classify_scenes"]


def config(example, out, **changes):
    values = {
        "steps": 6, "batch_size": 8, "size": 24, "widths": (8, 16), "log_every": 2, "save_every": 3,
        "test_scenes": 24, "grids": 2, "seed": 1,
    }  # fmt: skip
    return example.Config(out=out, **(values | changes))


def test_leaves_numbers_and_pictures(example, tmp_path, capsys):
    example.main(config(example, tmp_path))
    found = json.loads((tmp_path / "results.json").read_text())
    assert {"accuracy", "pointing_game_2x2", "pointing_game_3x3", "settings"} <= found.keys()
    assert found["scenes"] == 24 and 0 <= found["accuracy"]["low"] <= found["accuracy"]["value"]
    assert "accuracy" in capsys.readouterr().out
    with Image.open(tmp_path / "explanations.png") as opened:
        assert opened.size == (8 * 24 * 4, 3 * 24 * 4)
    model = example.Classifier((8, 16), len(example.CLASSES)).eval()
    model.load_state_dict(read_tensors(tmp_path / "model.safetensors"))
    images, _ = example.scenes(config(example, tmp_path), example.TEST_STREAM, 0, 2)
    explained = explain(model, images)
    assert float(explained.error.max()) < 1e-5 and set(explained.remainder) == {"logit_bias", "rest"}


def test_a_cut_and_resumed_run_is_bit_identical(example, tmp_path):
    whole = example.train(config(example, tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patched:
        taken = []

        def cut(ema, model, decay, step):
            taken.append(step)
            if step == 4:
                raise KeyboardInterrupt
            return original(ema, model, decay, step)

        original = example.update_ema
        patched.setattr(example, "update_ema", cut)
        with pytest.raises(KeyboardInterrupt):
            example.train(config(example, tmp_path / "cut"))
    assert taken == [0, 1, 2, 3, 4]
    resumed = example.train(config(example, tmp_path / "cut"))
    for (name, expected), found in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name
    lines = (tmp_path / "cut" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6]


def test_scenes_show_their_class(example, tmp_path):
    images, labels = example.scenes(config(example, tmp_path), 0, 10, 4)
    assert images.shape == (4, 6, 24, 24) and torch.allclose(images[:, :3] + images[:, 3:], torch.ones(4, 3, 24, 24))
    again, same = example.scenes(config(example, tmp_path), 0, 12, 2)
    assert torch.equal(again, images[2:]) and torch.equal(same, labels[2:])
    assert not torch.equal(example.scenes(config(example, tmp_path), example.TEST_STREAM, 10, 4)[0], images)


def test_the_picture_of_a_grid(example, tmp_path):
    settings = config(example, tmp_path)
    torch.manual_seed(0)
    model = example.Classifier((8, 16), len(example.CLASSES)).eval()
    images, _ = example.scenes(settings, example.TEST_STREAM, 0, 9)
    game = example.PointingGame(3, torch.rand(1, 9), torch.arange(9)[None], torch.arange(9)[None], 1.0, 9)
    example.draw_grid(settings, model, images, game)
    with Image.open(tmp_path / "grid.png") as opened:
        assert opened.size == (5 * 72 * 2, 2 * 72 * 2)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"size": 8}, {"widths": ()}, {"grids": 0}])
def test_refused(example, tmp_path, wrong):
    with pytest.raises(ValueError, match="must be"):
        example.main(config(example, tmp_path / "none", **wrong))
    assert not (tmp_path / "none").exists()
