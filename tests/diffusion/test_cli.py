"""The command line as people use it: what every command writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references.commands import PROMPT, content, refused, run
from safetensors.torch import load_file

from bcos_diffusion import cli
from bcos_diffusion.commands import options
from bcos_diffusion.scenes import Scenes

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_explain_writes_everything_and_it_adds_up(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explain", PROMPT, "--model", str(model), "--out", "a/b", "--seed", "4", "--negative-prompt", "red"]
    assert cli.main(arguments) == 0
    out = Path("a/b")
    words = ["two", "broccolis", "left", "of", "a", "cat", ",", "blue", "red"]
    said = json.loads((out / "explanation.json").read_text(encoding="utf-8"))
    assert (said["prompt"], said["seed"], said["steps"], said["model"]) == (PROMPT, 4, 2, "tiny")
    assert [word["text"] for word in said["words"]] == words
    assert [token["text"] for token in said["tokens"]][:4] == ["two", "broc", "col", "is"]
    for parts in (said["words"], said["tokens"]):
        assert {"text", "relevance_signed", "relevance_absolute"} <= parts[0].keys()
        assert sum(p["relevance_absolute"] for p in parts) == pytest.approx(1)
        assert sum(p["relevance_signed"] for p in parts) == pytest.approx(1)
    assert said["budget"].keys() == {"tokens", "x_T", "time", "other"}
    assert sum(said["budget"].values()) == pytest.approx(1)
    assert 0 <= said["completeness"] < 1e-4 and said["reconstruction_mse"] >= 0

    maps = load_file(out / "explanation.safetensors")
    tokens = sum(m for name, m in maps.items() if name.startswith("tokens/"))
    assert isinstance(tokens, torch.Tensor)
    torch.testing.assert_close(tokens + maps["x_T"] + maps["time"] + maps["other"], maps["image"])
    torch.testing.assert_close(tokens, sum(m for name, m in maps.items() if name.startswith("words/")))
    assert (maps["words/03-of"] == 0).all() and maps["words/01-broccolis"].abs().max() > 0

    overlays = sorted(p.name for p in out.glob("word-*.png"))
    assert len(overlays) == len(words) and overlays[1] == "word-01-broccolis.png"
    assert overlays[-1] == "word-08-red-negative.png"
    image = np.asarray(Image.open(out / "image.png"))
    rgb = (maps["image"][:3] / (maps["image"][:3] + maps["image"][3:])).clamp(0, 1)
    assert np.abs(image / 255 - rgb.permute(1, 2, 0).numpy()).max() < 0.6 / 255
    assert Image.open(out / "figure.png").width > 500
    shown = capsys.readouterr().out
    assert "broccolis" in shown and "budget: tokens" in shown and "completeness" in shown and "a/b" in shown


def test_the_same_seed_gives_the_same_bytes(model: Path) -> None:
    for out, seed in (("one", 5), ("two", 5), ("three", 6)):
        assert cli.main(["explain", PROMPT, "--model", str(model), "--out", out, "--seed", str(seed)]) == 0
    one, two, three = (content(Path(name)) for name in ("one", "two", "three"))
    assert len(one) == 13 and one == two
    assert one["image.png"] != three["image.png"]


def test_explaining_into_the_same_folder_replaces_what_was_there(model: Path) -> None:
    Path("out").mkdir()
    Path("out/mine.txt").write_text("keep")
    for prompt in (PROMPT, "cat"):
        assert cli.main(["explain", prompt, "--model", str(model), "--out", "out"]) == 0
    names = set(content(Path("out")))
    assert names == {"mine.txt", "image.png", "reconstruction.png", "word-00-cat.png", "figure.png"} | {
        "explanation.json",
        "explanation.safetensors",
    }


def test_options_reach_the_sampler(model: Path) -> None:
    arguments = ["explain", "cat", "--model", str(model), "--out", "out", "--steps", "3", "--guidance", "1.5"]
    assert cli.main([*arguments, "--update", "standard", "--dtype", "float64", "--device", "cpu"]) == 0
    said = json.loads(Path("out/explanation.json").read_text(encoding="utf-8"))
    assert (said["steps"], said["guidance"], said["update"]) == (3, 1.5, "standard")
    assert said["completeness"] < 1e-9
    maps = load_file("out/explanation.safetensors")
    assert maps["image"].dtype == torch.float64 and maps["other"].abs().max() > 0


def test_demo_needs_no_argument(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "SHIPPED", model)
    assert cli.main(["demo"]) == 0
    assert {"figure.png", "explanation.json", "image.png"} <= content(Path("bcos-demo")).keys()


def test_demo_without_weights_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(options, "SHIPPED", Path("nothing"))
    assert "no weights" in refused(capsys, "demo")


def test_generate_writes_one_png_per_picture(model: Path) -> None:
    command = ["generate", "cat", "A red dog", "--count", "2", "--model", str(model), "--out", "g", "--seed", "7"]
    assert cli.main(command) == 0
    pictures = content(Path("g"))
    assert sorted(pictures) == [f"{n}-seed{s}.png" for n in ("00-cat", "01-a-red-dog") for s in (7, 8)]
    assert len(set(pictures.values())) == 4
    assert all(Image.open(Path("g") / name).size == (24, 24) for name in pictures)
    assert cli.main(["generate", "cat", "--model", str(model), "--out", "h", "--seed", "8"]) == 0
    alone, among = (np.asarray(Image.open(p)).astype(int) for p in ("h/00-cat-seed8.png", "g/00-cat-seed8.png"))
    assert np.abs(alone - among).max() <= 1  # a picture depends on its own seed, not on its neighbours


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (["--help"], ("demo", "generate", "explain", "train", "data", "features")),
        (["features", "--help"], ("layers", "extract", "sae", "latents", "explain", "probe", "pca")),
    ],
)
def test_help_answers_without_importing_torch(asked: list[str], names: tuple[str, ...]) -> None:
    program = (
        "import sys; from bcos_diffusion.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    done = run(program, *asked)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in names)


def test_data_writes_a_page_to_browse(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "--out", "d", "--split", "test", "--count", "4", "--size", "32", "--seed", "2"]) == 0
    assert sorted(content(Path("d"))) == ["index.html", "sheet-000.png"]
    page = Path("d/index.html").read_text(encoding="utf-8")
    expected = Scenes(32, "test", 2)
    assert all(expected[i].caption in page for i in range(4)) and expected[4].caption not in page
    assert "size must be at least 24" in refused(capsys, "data", "--size", "8")


def test_train_goes_on_where_it_was_cut_and_its_model_explains(capsys: pytest.CaptureFixture[str]) -> None:
    shape = "--model.size 24 --model.patch 4 --model.widths 8 16 --model.heads 2 --model.text-dim 8 --model.time-dim 8"
    attention = "--model.self-attention False False --model.cross-attention False True"
    command = ["train", "--out", "run", "--batch-size", "2", "--log-every", "1", *shape.split(), *attention.split()]
    for steps in ("2", "3"):
        assert cli.main([*command, "--steps", steps]) == 0
    log = [json.loads(line) for line in Path("run/log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3]
    assert "run/pipeline" in capsys.readouterr().out
    assert cli.main(["explain", "cat", "--model", "run/pipeline", "--steps", "1", "--out", "e"]) == 0
    capsys.readouterr()
    assert "steps and batch_size" in refused(capsys, "train", "--out", "new", "--steps", "0")
    Path("taken").write_text("a file")
    assert "taken" in refused(capsys, "train", "--out", "taken/run", "--steps", "1")
