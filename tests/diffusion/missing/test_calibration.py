"""Calibrations on disk, whose weights they belong to, and the one in the package."""

from pathlib import Path

import pytest
import torch
from references.missing_words import calibration

from bcos_diffusion.explain import explain
from bcos_diffusion.missing import Calibration, score
from bcos_diffusion.missing.calibration import FILE, fingerprint
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import read_json, write_json


def test_written_and_read(model: Path, tmp_path: Path) -> None:
    pipeline = BcosDiffusionPipeline.from_pretrained(model)
    made = calibration(pipeline)
    made.write(tmp_path / FILE)
    read = Calibration.of(pipeline, tmp_path)
    assert read == made and read.early.share == 0.4 and read.at(0.9).share == 1.0 and read.at(0.25).share == 0.2
    assert read.checkpoints[0].probability([[2.0, 0.5, 0.0, 0.0, 0.0]])[0] == pytest.approx(1 / (1 + 2.718281828**-2))


def test_weights_are_known_in_any_type(model: Path, tmp_path: Path) -> None:
    pipeline = BcosDiffusionPipeline.from_pretrained(model)
    pipeline.save_pretrained(tmp_path / "half", torch.bfloat16)
    read = [BcosDiffusionPipeline.from_pretrained(tmp_path / "half", t) for t in (torch.float32, torch.float64)]
    assert len({fingerprint(p.model) for p in (pipeline, *read)}) == 1
    with torch.no_grad():
        next(read[0].model.parameters()).mul_(1.1)
    calibration(pipeline).write(tmp_path / FILE)
    with pytest.raises(ValueError, match=r"fitted for other weights.*missing fit --model"):
        Calibration.of(read[0], tmp_path)


def test_mistakes(model: Path, tmp_path: Path) -> None:
    pipeline = BcosDiffusionPipeline.from_pretrained(model)
    with pytest.raises(FileNotFoundError, match="missing fit --model"):
        Calibration.of(pipeline, tmp_path)
    calibration(pipeline).write(tmp_path / FILE)
    values = read_json(tmp_path / FILE)
    for broken in (values | {"format": "other"}, values | {"checkpoints": values["checkpoints"][:1]}, {"a": 1}, []):
        write_json(tmp_path / "broken.json", broken)
        with pytest.raises(ValueError, match=r"broken\.json is no calibration"):
            Calibration.read(tmp_path / "broken.json")
    with pytest.raises(ValueError, match=r"of scenes-32.*, not of tiny"):
        score(explain(pipeline, "cat blue"))


def test_the_package_tells_what_is_drawn() -> None:
    pipeline = BcosDiffusionPipeline.from_pretrained()
    assert Calibration.of(pipeline).checkpoints[-1].share == 1.0
    cat, blue = score(explain(pipeline, "cat blue", seed=1))
    assert (cat.word, cat.group, blue.word, blue.group) == ("cat", "object", "blue", "colour")
    assert cat.drawn and blue.drawn and cat.probability > 0.8
    assert score(explain(pipeline, "the blue", steps=2))[0].group == "colour"
