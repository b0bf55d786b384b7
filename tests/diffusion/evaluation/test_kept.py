"""Parts that were measured are not measured again, unless what they depend on has changed."""

import math
from pathlib import Path
from typing import Any

import pytest

from bcos_diffusion.evaluation import kept as keeping


def test_a_part_is_measured_once_for_its_settings(tmp_path: Path) -> None:
    calls = []

    def work() -> dict[str, Any]:
        calls.append(1)
        return {"value": len(calls), "unknown": math.nan}

    path = tmp_path / "deep" / "part.json"
    first = keeping.kept(path, {"count": 8, "weights": "a"}, work)
    assert first["found"] == {"value": 1, "unknown": None} and first["seconds"] >= 0
    assert keeping.kept(path, {"weights": "a", "count": 8}, work) == first and len(calls) == 1
    assert keeping.kept(path, {"weights": "b", "count": 8}, work)["found"]["value"] == 2
    assert keeping.kept(path, {"weights": "b", "count": 8}, work)["found"]["value"] == 2 and len(calls) == 2


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "part.json").write_text("{")
    with pytest.raises(ValueError, match=r"part\.json"):
        keeping.kept(tmp_path / "part.json", {}, dict)


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def work() -> dict[str, Any]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        keeping.kept(tmp_path / "part.json", {}, work)
    assert not list(tmp_path.iterdir())
