"""python -m bcos_kernels pointing-game: what it writes, and that mistakes end in one line and no file."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bcos_kernels import __main__ as command

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.colours = nn.Parameter(torch.zeros(classes, 6))

    def forward(self, x):
        return x.mean((2, 3)) @ self.colours.T - 5

def build():
    return Net()

def needs(argument):
    return Net()

def text():
    return "a model"

number = 3
"""
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0), "white": (255, 255, 255)}
TEMPLATES = torch.tensor(
    [[-9, -9, 9, 0, 0, 0], [-9, 9, -9, 0, 0, 0], [9, -9, -9, 0, 0, 0], [6, 6, 6, -9, -9, -9]]
).float()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A factory, its weights, and a folder with two pictures a class, one upright and one wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "colour_factory", raising=False)
    (tmp_path / "colour_factory.py").write_text(FACTORY)
    save_file({"colours": TEMPLATES}, tmp_path / "weights.safetensors")
    for name, colour in COLOURS.items():
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number, size in enumerate([(8, 12), (20, 9)]):
            Image.new("RGB", size, colour).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path


def arguments(**changes):
    options = {
        "model": "colour_factory:build", "weights": "weights.safetensors", "images": "pictures",
        "out": "found/game.json", "grid": 2, "size": 8,
    } | changes  # fmt: skip
    given = [str(part) for name, value in options.items() if value is not None for part in (f"--{name}", value)]
    return ["pointing-game", *given]


def refused(capsys, **changes):
    assert command.main(arguments(**changes)) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and printed.err.startswith("bcos_kernels: error: ")
    return printed.err


def test_a_folder_of_pictures(folder, capsys):
    assert command.main(arguments()) == 0
    found = json.loads((folder / "found" / "game.json").read_text())
    assert found["score"] > 0.3 and found["accuracy"] == 1 and len(found["grids"]) == 2
    assert found["class_names"] == sorted(COLOURS) and found["settings"]["seed"] == 0
    assert f"score {found['score']:.4f}" in capsys.readouterr().out
    assert [file.name for file in (folder / "found").iterdir()] == ["game.json"]


@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32], ids=str)
def test_a_file_of_tensors_gives_the_same(folder, channels, kind):
    assert command.main(arguments()) == 0
    rgb = torch.tensor(list(COLOURS.values()), dtype=torch.uint8).repeat_interleave(2, 0)
    images = rgb[:, :, None, None].expand(-1, -1, 8, 8)
    if channels == 6:
        images = torch.cat([images, 255 - images], 1)
    images = images if kind == torch.uint8 else images / 255
    save_file({"images": images.contiguous(), "labels": torch.arange(4).repeat_interleave(2)}, "data.safetensors")
    assert command.main(arguments(images="data.safetensors", out="second.json")) == 0
    first, second = (json.loads((folder / name).read_text()) for name in ("found/game.json", "second.json"))
    assert first | {"class_names": []} == second


def test_as_a_command(folder):
    done = subprocess.run(
        [sys.executable, "-m", "bcos_kernels", *arguments()], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "found" / "game.json").is_file() and done.stderr == ""


def test_pictures_are_cut_to_the_middle(folder):
    from bcos_kernels.attribution.labelled_images import load_images

    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = 255
    Image.fromarray(pixels).save(folder / "pictures" / "blue" / "0.png")
    images, labels, names = load_images(folder / "pictures", "six", 8)
    assert len(images) == 8 and labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and names == sorted(COLOURS)
    assert torch.equal(images[0], torch.cat([torch.ones(3, 8, 8), torch.zeros(3, 8, 8)]))
    assert load_images(folder / "pictures", "rgb", 8)[0][0].shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "colour_factory"}, "module:function"),
        ({"model": "no_such_module:build"}, "no_such_module"),
        ({"model": "colour_factory:absent"}, "no function 'absent'"),
        ({"model": "colour_factory:number"}, "no function 'number'"),
        ({"model": "colour_factory:needs"}, "without arguments"),
        ({"model": "colour_factory:text"}, "torch module, got str"),
        ({"weights": "absent.safetensors"}, "absent.safetensors does not exist"),
        ({"weights": "colour_factory.py"}, "not a readable safetensors"),
        ({"images": "absent"}, "absent does not exist"),
        ({"images": "weights.safetensors"}, "no tensor images and no labels"),
        ({"images": "pictures/red"}, "one folder of images a class"),
        ({"grid": 3}, "9 classes"),
        ({"grid": 1}, "grid must be"),
        ({"size": 0}, "size must be"),
        ({"device": "nowhere"}, "nowhere"),
        ({"out": "pictures"}, "is a folder"),
        ({"out": "weights.safetensors/game.json"}, "cannot write"),
    ],
)
def test_mistakes_end_in_one_line(capsys, folder, changes, says):
    assert says in refused(capsys, **changes)
    assert not (folder / "found").exists()


def test_weights_of_another_model(capsys):
    save_file({"colours": torch.zeros(3, 6), "more": torch.zeros(1)}, "other.safetensors")
    line = refused(capsys, weights="other.safetensors")
    assert "colours is [3, 6], the model has [4, 6]" in line and "more is not in the model" in line


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"images": torch.zeros(4, 3, 8), "labels": torch.arange(4)}, "[M, C, H, W]"),
        ({"images": torch.zeros(4, 3, 8, 8), "labels": torch.rand(4)}, "integer labels"),
        ({"images": torch.zeros(4, 3, 8, 8, dtype=torch.int64), "labels": torch.arange(4)}, "float or uint8"),
        ({"images": torch.zeros(4, 3, 8, 8), "labels": torch.arange(5)}, "as many"),
        ({"images": torch.zeros(5, 3, 8, 8), "labels": torch.arange(5)}, "labels must be in [0, 3]"),
    ],
)
def test_tensors_that_do_not_fit(capsys, tensors, says):
    save_file(tensors, "data.safetensors")
    assert says in refused(capsys, images="data.safetensors")


def test_pictures_that_cannot_be_read(capsys, folder):
    (folder / "pictures" / "red" / "0.png").write_bytes(b"not a picture")
    assert "red/0.png is not a readable image" in refused(capsys)
    for file in (folder / "pictures").rglob("*.png"):
        file.unlink()
    assert "no images" in refused(capsys)


def test_a_failed_run_leaves_the_old_result(capsys, folder, monkeypatch):
    assert command.main(arguments()) == 0
    before = (folder / "found" / "game.json").read_bytes()
    capsys.readouterr()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    assert "No space left on device" in refused(capsys)
    assert (folder / "found" / "game.json").read_bytes() == before
    assert [file.name for file in (folder / "found").iterdir()] == ["game.json"]
