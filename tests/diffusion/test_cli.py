"""The command line as people use it: what it writes, and that mistakes end in one line and no files."""

import errno
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bcos_diffusion import cli
from bcos_diffusion.model import TextToImage
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.scenes import Scenes, vocabulary
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.unet import UNetConfig
from bcos_kernels import files

SHAPE = UNetConfig(24, 4, (8, 16), 1, (False, True), (True, True), heads=2, text_dim=8, time_dim=8)
PROMPT = "two broccolis left of a cat , blue"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    whole = TextToImage(SHAPE, Tokenizer(vocabulary()), text_depth=1)
    BcosDiffusionPipeline(whole, Defaults(steps=2), "tiny").save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, by path: the bytes of files, None for folders."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail without leaving a trace; returns its one line."""
    before = content(Path.cwd())
    assert cli.main([str(a) for a in arguments]) != 0
    assert content(Path.cwd()) == before
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and output.err.startswith("bcos-diffusion: error: ")
    assert "Traceback" not in output.err and ".bcos-" not in output.err
    return output.err


# ---- explain, demo, generate ----


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
    monkeypatch.setattr(cli, "SHIPPED", model)
    assert cli.main(["demo"]) == 0
    assert {"figure.png", "explanation.json", "image.png"} <= content(Path("bcos-demo")).keys()


def test_demo_without_weights_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "SHIPPED", Path("nothing"))
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


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", ""], "prompt is empty"),
        (["explain", "   "], "prompt is empty"),
        (["explain", "a zzyzx catt"], "unknown words: 'zzyzx'.*did you mean cat"),
        (["explain", "cat " * 25], "25 tokens, at most 24"),
        (["explain", "cat", "--negative-prompt", "zzyzx"], "unknown word: 'zzyzx'"),
        (["explain", "cat", "--negative-prompt", ""], "negative prompt is empty"),
        (["explain", "cat", "--steps", "0"], "steps must be between 1 and 1000, got 0"),
        (["explain", "cat", "--steps", "1001"], "steps must be between 1 and 1000, got 1001"),
        (["explain", "cat", "--seed", "-1"], "seed must be in"),
        (["explain", "cat", "--guidance", "nan"], "guidance must be a finite number"),
        (["explain", "cat", "--device", "toaster"], "device 'toaster' cannot be used here"),
        (["generate"], "at least one prompt"),
        (["generate", "cat", "--count", "0"], "count of at least 1"),
        (["generate", "cat", "zzyzx"], "unknown word: 'zzyzx'"),
        (["generate", "cat", "--steps", "1001"], "steps must be"),
        (["demo", "--steps", "0"], "steps must be"),
    ],
)
def test_bad_input_is_one_line(
    model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert re.search(says, refused(capsys, *arguments, "--model", model, "--out", "new/out"))


@pytest.mark.parametrize("out", ["taken", "taken/below", "/proc/nowhere/out", "/dev/full"])
@pytest.mark.parametrize("command", [["explain", "cat"], ["generate", "cat"], ["data"]])
def test_an_unwritable_folder_is_found_before_the_model_is_loaded(
    capsys: pytest.CaptureFixture[str], command: list[str], out: str
) -> None:
    Path("taken").write_text("a file")
    model = [] if command == ["data"] else ["--model", "never-read"]
    line = refused(capsys, *command, *model, "--out", out)
    assert "cannot write into" in line and out in line


def spoil_text(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def spoil_config(**changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")

    return spoil


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def poison(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    files.write_tensors(folder / "model.safetensors", {k: v * float("nan") for k, v in tensors.items()})


SPOILERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda folder: shutil.rmtree(folder), "neither a folder nor a model"),
    "empty": (lambda folder: [p.unlink() for p in folder.iterdir()], "config.json does not exist"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors does not exist"),
    "no json": (spoil_text("config.json", '{"format": '), "not valid JSON"),
    "binary json": (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), "not valid JSON"),
    "a list": (spoil_text("config.json", "[1, 2]"), "config.json does not describe"),
    "foreign": (spoil_text("config.json", '{"model_type": "clip_text_model"}'), "config.json does not describe"),
    "future": (spoil_config(format="bcos_diffusion/9"), "bcos_diffusion/9"),
    "unet list": (spoil_config(unet=[1]), "config.json does not describe"),
    "unet words": (spoil_config(unet=SHAPE.to_dict() | {"widths": "abc"}), "config.json does not describe"),
    "unet zero": (spoil_config(unet=SHAPE.to_dict() | {"heads": 0}), "config.json does not describe"),
    "unet negative": (spoil_config(unet=SHAPE.to_dict() | {"text_dim": -8}), "config.json does not describe"),
    "tokenizer": (spoil_config(tokenizer={"length": 24, "pieces": {"cat": 3}}), "config.json does not describe"),
    "tokenizer list": (spoil_config(tokenizer=[]), "config.json does not describe"),
    "other shape": (spoil_config(unet=SHAPE.to_dict() | {"widths": [16, 16]}), "does not fit its config.json"),
    "truncated": (truncate, "not a readable safetensors file"),
    "garbage": (spoil_text("model.safetensors", "version https://git-lfs"), "not a readable safetensors file"),
    "nan": (poison, "not finite"),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_a_missing_corrupt_or_foreign_checkpoint_is_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spoil, says = SPOILERS[name]
    copy = tmp_path / "copied" / "model"
    shutil.copytree(model, copy)
    spoil(copy)
    assert says in refused(capsys, "explain", "cat", "--model", copy, "--out", "out")


# ---- full disks ----


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("victim", ["picture", "figure", "tensors", "json"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_disk_that_fills_while_saving_leaves_nothing_new(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, victim: str, exists: bool
) -> None:
    if exists:
        assert cli.main(["explain", "dog", "--model", str(model), "--out", "out"]) == 0
        capsys.readouterr()
    target = {
        "picture": "PIL.Image.Image.save",
        "figure": "matplotlib.figure.Figure.savefig",
        "tensors": "bcos_kernels.files.save_file",
        "json": "pathlib.Path.write_text",
    }[victim]
    monkeypatch.setattr(target, full)
    line = refused(capsys, "explain", "cat", "--model", model, "--out", "out")
    assert "No space left on device" in line and str(Path("out").absolute()) in line


@pytest.mark.parametrize("command", [["generate", "cat"], ["data", "--count", "3"]])
def test_other_commands_on_a_full_disk(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr("PIL.Image.Image.save", full)
    options = [] if command[0] == "data" else ["--model", model]
    assert "No space left on device" in refused(capsys, *command, *options, "--out", "new/out")


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)


def test_a_real_limit_on_file_size_leaves_nothing(model: Path) -> None:
    """The system itself refuses the write, in the middle of a file."""
    program = (
        "import resource, sys; from bcos_diffusion.cli import main\n"
        "import bcos_diffusion.figure, bcos_diffusion.explain  # imports may write caches\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); sys.exit(main())"
    )
    done = run(program, "explain", PROMPT, "--model", model, "--out", "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("bcos-diffusion: error: ") and "File too large" in done.stderr
    assert content(Path.cwd()) == {}


def test_ending_the_process_leaves_nothing(model: Path) -> None:
    program = "import sys; from bcos_diffusion.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "explain", PROMPT, "--model", model, "--steps", 1000, "--out", "out"]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not content(Path.cwd()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert content(Path.cwd()), "it never began to write"
    process.terminate()
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert content(Path.cwd()) == {}


# ---- help, data, train ----


def test_help_answers_without_importing_torch() -> None:
    program = (
        "import sys; from bcos_diffusion.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    done = run(program, "--help")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("demo", "generate", "explain", "train", "data"))


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
