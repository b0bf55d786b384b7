"""Each example runs as it stands, small, and leaves what it says."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run an example as a program, in an empty folder, and return what it printed."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", [f"{name}.py", *arguments])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_every_example_has_a_test() -> None:
    text = Path(__file__).read_text(encoding="utf-8") + (
        Path(__file__).parents[1] / "examples" / "test_classify_scenes.py"
    ).read_text(encoding="utf-8")
    assert not [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}"' not in text]


def test_quick_start(run: Callable[..., str], tmp_path: Path) -> None:
    said = run("quick_start", "--steps", "40")
    assert "'input': '100.0%'" in said
    logit, total = said.split("logit ")[1].split("\n")[0].split(" = sum of the contributions ")
    assert float(logit) == pytest.approx(float(total), abs=2e-4)
    for name in ("picture.png", "contributions.png"):
        assert Image.open(tmp_path / "quick-start" / name).size == (256, 256)


def test_explain_prompt(run: Callable[..., str], tmp_path: Path) -> None:
    said = run("explain_prompt", "--steps", "2", "--out", "here")
    assert "the left half is by" in said and "'time': '0.0%'" in said
    found = json.loads((tmp_path / "here" / "explanation.json").read_text())
    assert found["steps"] == 2 and (tmp_path / "here" / "figure.png").exists()


def test_find_missing(run: Callable[..., str], tmp_path: Path) -> None:
    said = run("find_missing", "--steps", "5", "--tries", "2", "--prompt", "owl and duck on red")
    assert said.count("object") == 2 and "still missing:" in said and "try 1: seed 14" in said
    assert (tmp_path / "ensured.png").exists()


def test_train_tiny(run: Callable[..., str], tmp_path: Path) -> None:
    said = run("train_tiny", "--steps", "3", "--batch-size", "2", "--drawing-steps", "2")
    assert "step 3: loss" in said
    assert {"model.safetensors", "config.json"} <= {path.name for path in (tmp_path / "tiny" / "pipeline").iterdir()}
    assert (tmp_path / "tiny" / "explanation" / "figure.png").exists()


def test_compare_daam(run: Callable[..., str], tmp_path: Path) -> None:
    said = run("compare_daam", "--scenes", "2")
    exact, daam = (float(line.split("words ")[1].split("%")[0]) for line in said.splitlines() if "pixel AP" in line)
    assert 0 < daam <= 100 and 0 < exact <= 100 and (tmp_path / "compared.png").exists()


def test_bcosify_models(run: Callable[..., str]) -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[test]'")
    said = run("bcosify_models")
    errors = [
        float(line.split("relative error ")[1].split()[0]) for line in said.splitlines() if "relative error" in line
    ]
    assert len(errors) == 2 and max(errors) < 1e-4
