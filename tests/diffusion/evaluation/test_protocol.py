"""The protocol from end to end: what it finds of methods whose answers are known, and that a stop changes nothing."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from references.attributions import Guesses, Knows, Refuses, Stripes, truth
from references.tiny_evaluation import OPTIONS, SHARD, pipeline

from bcos_diffusion.evaluation import protocol, shards, statistics
from bcos_diffusion.evaluation.drawn_objects import usual_area
from bcos_diffusion.evaluation.json_values import for_json
from bcos_diffusion.evaluation.plan import plan
from bcos_diffusion.evaluation.regime_b import drawn_masks
from bcos_diffusion.evaluation.setup import Contender, Options, Setup
from bcos_diffusion.evaluation.words import group
from bcos_diffusion.many import Share
from bcos_diffusion.scenes import Scenes

METHODS = {
    "exact": Knows(name="exact"),
    "daam": Knows(1.0, 0.5, "daam"),
    "guesses": Guesses(),
    "gradient": Knows(0.0, 1.0, "gradient"),
}


@pytest.fixture(scope="module", autouse=True)
def small_shards_and_few_resamples() -> Iterator[None]:
    """Intervals are not what these tests look at, and few scenes are enough for several shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 20)
        patch.setattr(shards, "SIZE", SHARD)
        yield


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory, small_shards_and_few_resamples: None
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("evaluation")
    methods = METHODS | {"refuses": Refuses()}
    return out, protocol.run(out, pipeline(), OPTIONS, methods, pipeline("twin"), Stripes())


def without_seconds(out: Path) -> dict[str, Any]:
    """All records below a folder, but for the time that they took."""

    def cleaned(values: Any) -> Any:
        if isinstance(values, dict):
            return {key: cleaned(value) for key, value in values.items() if key != "seconds"}
        return [cleaned(value) for value in values] if isinstance(values, list) else values

    return {path.name: cleaned(json.loads(path.read_text())) for path in sorted(out.glob("shards/*.json"))}


def test_numbers_of_methods_whose_answers_are_known(found: tuple[Path, dict[str, Any]]) -> None:
    _, result = found
    methods = result["regime_a"]["methods"]
    assert methods.keys() == {*METHODS, *(f"{name}_twin" for name in METHODS)}
    for name in ("ap", "miou", "miou_04", "pointing", "mass_inside", "colour_mass", "largest", "mask_ap"):
        assert methods["exact"][name]["value"] == 1, name
        assert methods["exact"]["by_level"]["0.8"].get(name, {"value": 1})["value"] == 1
    assert methods["exact"]["leakage"]["value"] == methods["exact"]["function_mass"]["value"] == 0
    assert methods["gradient"]["miou"]["value"] == 0 and methods["gradient"]["pointing"]["value"] == 0
    assert methods["daam"]["threshold"] > 0.5 and methods["daam"]["miou"]["value"] == 1
    assert methods["daam"]["miou_04"]["value"] < 0.5  # where all of the picture is above the threshold
    assert result["regime_a"]["differences"]["daam"]["miou_04"]["value"] == pytest.approx(
        1 - methods["daam"]["miou_04"]["value"]
    )
    assert result["regime_a"]["differences"]["daam"]["leakage_ratio"]["value"] == 0
    assert result["left_out"] == {
        "refuses": "this network has no attention", "refuses_twin": "this network has no attention"
    }  # fmt: skip
    assert result["complete"] and result["settings"]["scenes"] == OPTIONS.scenes


def test_numbers_equal_loops_over_scenes(found: tuple[Path, dict[str, Any]]) -> None:
    result, data = found[1], Scenes(24, "test")
    inside, leaked = [], []
    for scene in (data[i] for i in range(OPTIONS.scenes)):
        objects = {word: mask for word, mask in truth(scene.caption, 24).items() if group(word) == "object"}
        for word, mask in objects.items():
            map_ = np.where(mask, 1.0, 0.5)
            inside.append(map_[mask].sum() / map_.sum())
            others = [m for other, m in objects.items() if other != word]
            if others:
                leaked.append(map_[np.any(others, axis=0) & ~mask].sum() / map_.sum())
    assert len(leaked) > 1
    methods = result["regime_a"]["methods"]
    assert methods["daam"]["mass_inside"]["value"] == pytest.approx(np.mean(inside), rel=1e-5)
    assert methods["daam"]["leakage"]["value"] == pytest.approx(np.mean(leaked), rel=1e-5)


def test_costly_methods_run_on_the_first_scenes_and_say_so(found: tuple[Path, dict[str, Any]]) -> None:
    methods = found[1]["regime_a"]["methods"]
    assert methods["gradient"]["scenes"] == OPTIONS.costly_scenes < methods["exact"]["scenes"] == OPTIONS.scenes
    assert found[1]["regime_a"]["differences"]["gradient"]["scenes"] == OPTIONS.costly_scenes
    assert found[1]["regime_b"]["methods"]["gradient"]["scenes"] == OPTIONS.costly_runs == 1
    assert found[1]["faithfulness"]["one_step"]["gradient"]["scenes"] == OPTIONS.costly_scenes


def test_words_that_were_not_drawn_are_left_out_and_counted(tmp_path: Path) -> None:
    words = {word for i in range(OPTIONS.scenes) for word in Scenes(24, "test")[i].words if group(word) == "object"}
    named = sum(word in words for i in range(OPTIONS.scenes) for word in Scenes(24, "test")[i].words)
    blind = min(words)
    times = sum(Scenes(24, "test")[i].words.count(blind) for i in range(OPTIONS.scenes))
    result = protocol.run(tmp_path, pipeline(), OPTIONS, {"guesses": Guesses()}, segmenter=Stripes(blind))
    found = result["regime_b"]["objects"]["model"]
    assert (found["named"], found["drawn"]) == (named, named - times)
    assert 0 < result["regime_b"]["methods"]["guesses"]["ap"]["value"] < 0.5


def test_a_few_stray_pixels_are_no_object() -> None:
    words, image = ["a", "cat", "on", "blue"], torch.zeros(3, 32, 32)
    area = usual_area("cat", 1, 32)
    assert area > 4 * 32  # what a stripe has
    for share, expected in ((0.9 * 4 * 32 / area, {"cat", "blue"}), (1.1 * 4 * 32 / area, {"blue"})):
        assert drawn_masks(Stripes(present_share=share), image, words).keys() == expected


def test_whole_runs_are_part_of_it(found: tuple[Path, dict[str, Any]]) -> None:
    budget = found[1]["budget"]
    assert sum(budget[k]["value"] for k in ("tokens", "x_T", "time", "other")) == pytest.approx(1, abs=1e-5)
    assert budget["worst_completeness"] < 1e-4
    assert found[1]["mass"]["object_over_function"]["value"] == math.inf
    assert found[1]["axioms"]["mass_of_function_words"] == 0
    assert found[1]["objects_in_real_scenes"]["found"]["value"] > 0
    json.dumps(for_json(found[1]), allow_nan=False)


def test_neither_workers_nor_shares_nor_a_stop_change_a_record(
    found: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    methods = METHODS | {"refuses": Refuses()}
    arguments: Any = (pipeline(), OPTIONS, methods, pipeline("twin"), Stripes())
    expected = without_seconds(found[0])
    assert protocol.run(tmp_path / "workers", *arguments, workers=2)["complete"]
    assert without_seconds(tmp_path / "workers") == expected
    first = protocol.run(tmp_path / "shares", *arguments, share=Share(1, 2))
    assert not first["complete"] and 0 < first["shards"]["done"] < first["shards"]["all"]
    seen: list[tuple[int, int]] = []
    second = protocol.run(
        tmp_path / "shares", *arguments, share=Share(0, 2), progress=lambda done, total, _: seen.append((done, total))
    )
    total = second["shards"]["all"]
    assert second["complete"] and seen == [(k, total) for k in range(first["shards"]["done"], total + 1)]
    assert without_seconds(tmp_path / "shares") == expected
    for name in ("regime_a", "regime_b", "budget", "mass"):
        assert for_json(second[name]) == for_json(found[1][name])


def test_more_scenes_go_on_with_what_is_there(found: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    methods = {"guesses": Guesses()}
    few = Options(**{**vars(OPTIONS), "scenes": SHARD})
    protocol.run(tmp_path, pipeline(), few, methods)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("shards/*.json")}
    result = protocol.run(tmp_path, pipeline(), OPTIONS, methods)
    assert result["regime_a"]["scenes"] == OPTIONS.scenes
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


def test_a_folder_of_other_settings_is_refused_with_what_differs(tmp_path: Path) -> None:
    methods = {"guesses": Guesses()}
    protocol.run(tmp_path, pipeline(), Options(1, 1, seed=0, steps=2), methods)
    kept = without_seconds(tmp_path)
    with pytest.raises(ValueError, match=r"steps was 2, now 3"):
        protocol.run(tmp_path, pipeline(), Options(1, 1, seed=0, steps=3), methods)
    with pytest.raises(ValueError, match=r"model.methods.guesses was .*, now None"):
        protocol.run(tmp_path, pipeline(), Options(1, 1, seed=0, steps=2), {"knows": Knows()})
    assert without_seconds(tmp_path) == kept


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"scenes": 0}, "number of scenes must be at least 1"),
        ({"validation": 0}, "number of validation must be at least 1"),
        ({"costly_scenes": -1}, "must not be negative"),
        ({"runs": -1}, "must not be negative"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_bad_options_are_refused(bad: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Options(**bad)


def test_whole_runs_may_be_fewer_than_scenes() -> None:
    setup = Setup(Contender(pipeline(), {}), Options(scenes=40, validation=20, runs=10), segmenter=Stripes())
    planned = [(shard.part, shard.split, shard.end - shard.first) for shard in plan(setup)]
    counts = {(part, split): 0 for part, split, _ in planned}
    for part, split, count in planned:
        counts[part, split] += count
    assert counts == {
        ("regime_a", "validation"): 20, ("regime_b", "validation"): 5,
        ("regime_a", "test"): 40, ("regime_b", "test"): 10, ("full_run", "test"): 10,
    }  # fmt: skip


@pytest.mark.slow
def test_a_killed_run_leaves_whole_shards_and_no_process(found: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "references.tiny_evaluation", str(tmp_path)]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths})
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("shards/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    started = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = without_seconds(tmp_path)
    expected = without_seconds(found[0])
    assert 0 < len(left) <= len(expected)
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    arguments: Any = (pipeline(), OPTIONS, METHODS | {"refuses": Refuses()}, pipeline("twin"), Stripes())
    assert protocol.run(tmp_path, *arguments)["complete"]
    assert without_seconds(tmp_path) == expected
    assert not list(tmp_path.rglob(".*.json"))


def test_the_random_numbers_of_the_caller_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    protocol.run(tmp_path, pipeline(), Options(1, 1, seed=0, steps=2), {"guesses": Guesses()})
    assert torch.equal(torch.rand(2), expected)
