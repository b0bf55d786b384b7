"""``--ensure`` on the command line."""

import json
from pathlib import Path

import pytest
from references.commands import refused
from references.missing_words import calibration

from bcos_diffusion import cli
from bcos_diffusion.missing.calibration import FILE
from bcos_diffusion.pipeline import BcosDiffusionPipeline

pytestmark = pytest.mark.usefixtures("elsewhere")
PROMPT = "cat and dog"  # a random model gives a colour to no background


@pytest.mark.parametrize("bias", [9.0, -9.0])
def test_pictures_and_warnings(model: Path, bias: float, capsys: pytest.CaptureFixture[str]) -> None:
    calibration(BcosDiffusionPipeline.from_pretrained(model), bias).write(model / FILE)
    options = ("--model", str(model), "--ensure", "--tries", "2", "--steps", "3", "--seed", "5")
    assert cli.main(["generate", PROMPT, "--count", "2", *options]) == 0
    assert sorted(p.name for p in Path("bcos-images").iterdir()) == [f"00-cat-and-dog-seed{s}.png" for s in (5, 6)]
    warned = capsys.readouterr().err
    assert ("still missing after 2 tries: cat, dog" in warned) == (bias < 0)
    assert cli.main(["explain", PROMPT, *options]) == 0
    said = json.loads(Path("bcos-explanation/explanation.json").read_text())
    assert said["completeness"] < 1e-4 and ("still missing" in capsys.readouterr().err) == (bias < 0)
    (model / FILE).unlink()


def test_mistakes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing fit --model" in refused(capsys, "generate", PROMPT, "--model", model, "--ensure")
    assert "tries must be at least 1" in refused(capsys, "generate", PROMPT, "--model", model, "--tries", 0)
    assert "not those of a file" in refused(capsys, "generate", "--file", "some.txt", "--ensure")
    calibration(BcosDiffusionPipeline.from_pretrained(model)).write(model / FILE)
    assert "names no object" in refused(capsys, "explain", "blue", "--model", model, "--ensure")
    (model / FILE).unlink()
