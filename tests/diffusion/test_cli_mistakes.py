"""What users get wrong, in arguments, folders and checkpoints, ends in one line and no files."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from references.commands import SHAPE, refused
from safetensors.torch import load_file

from bcos_kernels import files

pytestmark = pytest.mark.usefixtures("elsewhere")


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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "nowhere"], "data must be 'scenes' or a folder of shards; nowhere is not a folder"),
        (["--micro-batch", "0"], "micro_batch must be at least 1, got 0"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
        (["--word-dropout", "1"], r"word_dropout must be in \[0, 1\), got 1"),
        (["--shard"], "shard needs at least two processes; start them with accelerate launch or torchrun"),
    ],
)
def test_a_run_that_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert re.search(says, refused(capsys, "train", "--out", "new/run", *arguments))


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
