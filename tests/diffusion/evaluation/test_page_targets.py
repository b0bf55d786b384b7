"""Targets are reached, missed or not measured as the numbers say."""

from typing import Any

import pytest
from references.evaluation_result import number, result

from bcos_diffusion.evaluation.page.overview import lead
from bcos_diffusion.evaluation.page.targets import Target, targets


def found(values: Any, start: str) -> Target:
    (target,) = [t for t in targets(values) if t.what.startswith(start)]
    return target


def put(values: Any, path: str, value: Any) -> Any:
    *keys, last = path.split("/")
    for key in keys:
        values = values[key]
    values[last] = value
    return values


CASES = [
    ("mIoU of object words, real", "regime_a/methods/exact/miou", number(0.65), True),
    ("mIoU of object words, real", "regime_a/methods/exact/miou", number(0.6499), False),
    ("mIoU of object words above", "regime_a/methods/daam/miou", number(0.79), True),
    ("mIoU of object words above", "regime_a/methods/daam/miou", number(0.81), False),
    ("mIoU of object words above", "regime_a/methods/daam/miou", number(0.79, 0.2), False),
    ("leakage", "regime_a/methods/daam/leakage", number(0.1), True),
    ("leakage", "regime_a/methods/daam/leakage", number(0.09), False),
    ("colour words", "regime_a/methods/exact/colour_mass", number(0.89), False),
    ("Spearman with dropping a word, one step: exact", "faithfulness/one_step/exact/drop/spearman_token",
     number(0.79), False),
    ("Spearman with dropping a word, one step: value", "faithfulness/one_step/value_gradient/drop/spearman_token",
     number(0.80), True),
    ("Spearman above", "faithfulness/one_step/value_gradient/drop/spearman_token", number(0.1), True),
    ("Spearman above", "faithfulness/one_step/gradient/drop/spearman_token", number(0.95), False),
    ("Spearman above", "faithfulness/one_step/leave_one_out/drop/spearman_token", number(1.0), True),
    ("Spearman above", "faithfulness/one_step/gradient_twin", {"drop": {"spearman_token": number(1.0)}}, True),
    ("natural missing concepts, AUROC at the end", "missing/separation/at/25/exact/auroc", number(0.89), False),
    ("natural missing concepts, AUROC at step", "missing/separation/at/10/exact/auroc", number(0.80), True),
    ("natural missing concepts, AUROC above", "missing/separation/at/25/daam_max/auroc", number(0.99), False),
    ("Fréchet distance, features of seg", "quality/model/drawn/frechet/segmenter-0a1b2c3d", number(1.31), False),
    ("Fréchet distance, features of rand", "quality/model/drawn/frechet/random-convnet", number(1.3), True),
    ("named objects", "quality/twin/drawn/objects", number(0.99), False),
    ("the whole protocol", "seconds", 6 * 3600 + 1.0, False),
    ("the whole protocol", "settings/scenes", 100, None),
    ("the whole protocol", "regime_b", {}, True),
]  # fmt: skip


@pytest.mark.parametrize(("start", "path", "value", "reached"), CASES)
def test_a_target_is_what_its_number_says(start: str, path: str, value: Any, reached: bool | None) -> None:
    values = result()
    put(values, path, value)
    assert found(values, start).reached is reached


def test_a_gpu_has_a_bar_of_its_own() -> None:
    values = result()
    values["provenance"]["machine"]["type"] = "cuda"
    assert found(values, "the whole protocol").reached is False
    values["seconds"] = 599.0
    assert found(values, "the whole protocol").reached is True


def test_nothing_measured_reaches_nothing() -> None:
    assert all(target.reached is None and not target.measured for target in targets({}))
    assert lead({})[0] == f"0 of {len(targets({}))} targets reached, 0 missed, {len(targets({}))} not measured."


def test_a_run_that_is_not_finished_says_so_and_does_not_reach_its_time() -> None:
    values = result() | {"complete": False, "shards": {"done": 3, "all": 40}}
    assert found(values, "the whole protocol").reached is None
    assert any("3 of 40 shards are done" in sentence for sentence in lead(values))


def test_the_first_words_name_what_was_missed() -> None:
    values = result()
    put(values, "regime_a/methods/exact/miou", number(0.5))
    said = lead(values)
    assert "2 missed" in said[0] and "mIoU of object words, real scenes (≥ 65%): 50.0 [48.0, 52.0]%" in said[1]
