"""Small pipelines of every kind that attends."""

from pathlib import Path

import pytest
from references.attention import KINDS, pipelines

from bcos_diffusion.pipeline import BcosDiffusionPipeline


@pytest.fixture(scope="session")
def every_pipeline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BcosDiffusionPipeline]:
    folder: Path = tmp_path_factory.mktemp("attention")
    return pipelines(folder)


@pytest.fixture(params=KINDS)
def pipeline(request: pytest.FixtureRequest, every_pipeline: dict[str, BcosDiffusionPipeline]) -> BcosDiffusionPipeline:
    """Each kind in turn."""
    return every_pipeline[request.param]
