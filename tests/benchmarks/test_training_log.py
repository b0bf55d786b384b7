"""The log that is kept of a training of several runs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import training_log


def test_runs_count_on_and_repeated_steps_stand_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_log, "RESULTS", tmp_path)
    logged = {"first": [1, 2, 3, 2, 3, 4], "second": [1, 2]}  # the first was stopped after step 3 and went on from 1
    for name, steps in logged.items():
        (tmp_path / name).mkdir()
        lines = [json.dumps({"step": s, "samples": 64 * s, "line": i}) for i, s in enumerate(steps)]
        (tmp_path / name / "log.jsonl").write_text("\n".join(lines) + "\n")
    reports = training_log.keep([tmp_path / name for name in logged], "twin")
    assert [r["step"] for r in reports] == [1, 2, 3, 4, 5, 6]
    assert [r["samples"] for r in reports] == [64 * step for step in range(1, 7)]
    assert [r["line"] for r in reports] == [0, 3, 4, 5, 0, 1]
    kept = json.loads((tmp_path / "training_twin.json").read_text())
    assert kept == {"model": "twin", "reports": [reports[0], reports[5]]}
