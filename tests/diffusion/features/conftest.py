"""Features that the commands' tests share."""

from pathlib import Path

import pytest
from references.feature_commands import CELL, DICTIONARY, EXTRACT, said


@pytest.fixture(scope="module")
def features(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spatial features of scenes, with what the command said beside them."""
    out = tmp_path_factory.mktemp("extracted") / "spatial"
    heard = said("extract --model", model, EXTRACT, "--spatial --one-kind --out", out)
    (out.parent / "heard").write_text(heard, encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def pooled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("extracted") / "pooled"
    said("extract --model", model, "--count 12 --layers up_ft1 --out", out)
    return out


@pytest.fixture(scope="module")
def sae(features: Path) -> Path:
    out = features.parent / "sae"
    said("sae", features, CELL, DICTIONARY, "--out", out)
    return out
