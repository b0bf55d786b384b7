"""Sums over scenes as the protocol reports them, against loops and plain bootstraps."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from bcos_diffusion.evaluation import statistics
from bcos_diffusion.evaluation.localisation import GRID, RECALLS
from bcos_diffusion.evaluation.mask_ap import average_precision_of_masks, hits
from bcos_diffusion.evaluation.statistics import (
    bootstrap,
    bootstrap_ratio,
    bootstrap_ratios,
    bootstrap_spearman,
    ratio,
    spearman,
)
from bcos_diffusion.evaluation.summary.columns import column
from bcos_diffusion.evaluation.summary.faithfulness import ceiling, differences, faithfulness
from bcos_diffusion.evaluation.summary.localisation import localisation
from bcos_diffusion.evaluation.summary.models import drawn, seconds

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 50)


def test_ratios_of_all_resamples_at_once_equal_those_one_by_one() -> None:
    pairs = [(float(a), float(b)) for a, b in rng.integers(0, 5, (30, 2))]
    expected = bootstrap(pairs, ratio)
    assert bootstrap_ratio(*np.array(pairs).T) == pytest.approx(expected)
    second = [(float(a), float(b)) for a, b in rng.integers(0, 5, (30, 2))]
    both = list(zip(pairs, second, strict=True))
    expected = bootstrap(both, lambda units: ratio([a for a, _ in units]) - ratio([b for _, b in units]))
    above, below = np.array(both).transpose(2, 0, 1)
    assert bootstrap_ratios(above, below, lambda r: r[..., 0] - r[..., 1]) == pytest.approx(expected)


def test_pooled_correlations_of_all_resamples_at_once_equal_those_one_by_one() -> None:
    units = [rng.integers(0, 6, (int(rng.integers(0, 5)), 2)).astype(float) for _ in range(12)]

    def slow(drawn: Any) -> float:
        return spearman(*np.concatenate(drawn).T)

    assert bootstrap_spearman(units) == pytest.approx(bootstrap(units, slow))
    few = [np.array([[1.0, 2.0], [2.0, 2.0]]), np.array([[2.0, 3.0]])]  # in some resamples a side does not vary
    assert bootstrap_spearman(few) == pytest.approx(bootstrap(few, slow))
    assert math.isnan(bootstrap_spearman([np.ones((3, 2))])["value"]) and math.isnan(bootstrap_spearman([])["low"])


def test_ratios_of_nothing_are_undefined() -> None:
    assert all(math.isnan(v) for v in bootstrap_ratio([], []).values())
    assert all(math.isnan(v) for v in bootstrap_ratio([0.0, 0.0], [0.0, 0.0]).values())


def region(kind: str, levels: int, **numbers: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """A region and what a record says of it, the same at every level, all of it random unless given."""
    names = ("ap", "pointing", "mass_inside", "leakage", "largest")
    said: dict[str, Any] = {name: [numbers.get(name, rng.random())] * levels for name in names}
    curve = sorted(rng.random(len(GRID)), reverse=True)
    said["iou"] = [curve] * levels
    said["precision"] = [sorted(rng.random(len(RECALLS)), reverse=True)] * levels
    return {"word": 0, "kind": kind, "pixels": 9}, said


def records(count: int, methods: dict[str, int], levels: int = 2) -> list[dict[str, Any]]:
    """Scenes of no to three objects and a colour; each method on its first scenes."""
    made = []
    for number in range(count):
        kinds = ["object"] * (number % 4) + ["colour"]
        kept: dict[str, Any] = {}
        for method, scenes in methods.items():
            pairs = [region(kind, levels) for kind in kinds]
            if number < scenes:
                kept[method] = {"regions": [said for _, said in pairs], "function_mass": [0.5] * levels, "seconds": 2.0}
        made.append({"scene": number, "model": {"regions": [where for where, _ in pairs], "methods": kept}})
        made[-1]["model"]["content_words"] = number % 4 + 1
    return made


def values(made: list[dict[str, Any]], method: str, kind: str, name: str) -> list[list[float]]:
    """A measure by scene: of all its words of a kind, one level."""
    found = []
    for record in made:
        model = record["model"]
        if method in model["methods"]:
            pairs = zip(model["regions"], model["methods"][method]["regions"], strict=True)
            found.append([said[name][0] for where, said in pairs if where["kind"] == kind])
    return found


def test_localisation_equals_loops_with_thresholds_from_validation() -> None:
    validation, test = records(9, {"exact": 9, "daam": 9}), records(12, {"exact": 12, "daam": 12})
    found = localisation(validation, test, (0.2, 0.8))
    for method in ("exact", "daam"):
        curves = [curve for scene in values(validation, method, "object", "iou") for curve in scene]
        at = int(np.mean(curves, axis=0).argmax())
        said = found["methods"][method]
        assert said["threshold"] == GRID[at]
        ious = [[curve[at] for curve in scene] for scene in values(test, method, "object", "iou")]
        expected = bootstrap([(sum(scene), float(len(scene))) for scene in ious], ratio)
        assert said["miou"] == pytest.approx(expected)
        assert said["by_level"]["0.2"]["miou"]["value"] == pytest.approx(expected["value"])
        for key, kind, name in (("ap", "object", "ap"), ("colour_mass", "colour", "mass_inside")):
            flat = [v for scene in values(test, method, kind, name) for v in scene]
            assert said[key]["value"] == pytest.approx(np.mean(flat))
        at_04 = [curve[15] for scene in values(test, method, "object", "iou") for curve in scene]
        assert said["miou_04"]["value"] == pytest.approx(np.mean(at_04))
        assert said["mask_ap_04"]["value"] == pytest.approx(float(average_precision_of_masks(hits(at_04).mean(0))))
        three = [said[f"mask_ap_{tau}"]["value"] for tau in ("03", "04", "05")]
        assert said["mask_ap"]["value"] == pytest.approx(np.mean(three))
    rivals = [i % 4 for i in range(12) for _ in range(i % 4)]
    assert found["chance_of_largest_with_rivals"] == pytest.approx(np.mean([1 / (n + 1) for n in rivals]))
    gap = found["differences"]["daam"]["ap"]
    assert gap["value"] == pytest.approx(
        found["methods"]["exact"]["ap"]["value"] - found["methods"]["daam"]["ap"]["value"]
    )
    assert gap["low"] <= gap["value"] <= gap["high"]


def test_a_method_on_fewer_scenes_is_compared_on_those() -> None:
    test = records(12, {"exact": 12, "gradient": 5})
    found = localisation(test, test, (0.2, 0.8))
    assert found["methods"]["gradient"]["scenes"] == found["differences"]["gradient"]["scenes"] == 5
    shared = [np.mean([v for s in values(test, m, "object", "ap")[:5] for v in s]) for m in ("exact", "gradient")]
    assert found["differences"]["gradient"]["ap"]["value"] == pytest.approx(shared[0] - shared[1])


def test_undefined_numbers_are_left_out_of_means() -> None:
    test = records(4, {"exact": 4})
    said = test[1]["model"]["methods"]["exact"]["regions"][0]
    said["leakage"] = [None, None]
    take = lambda model, kept: [r["leakage"] for r in kept["regions"][:1]]  # noqa: E731
    assert column(test, "model", "exact", take).counts[1].tolist() == [0, 0]


def test_scenes_without_validation_have_no_chosen_threshold() -> None:
    test = records(4, {"exact": 4})
    said = localisation([], test, (0.2, 0.8))["methods"]["exact"]
    assert said["threshold"] is None and "miou" not in said and said["miou_04"]["value"] > 0


def test_drawn_words_and_seconds_are_counted() -> None:
    made = [{"scene": i, "model": {"named": 2, "drawn": i, "methods": {"a": {"seconds": 1.0 + i}}}} for i in range(3)]
    assert drawn(made)["model"]["share"]["value"] == 0.5
    assert seconds(made) == {"a": {"scenes": 3, "seconds": 2.0}}


def ranked(words: list[str], scores: Any, effects: Any) -> dict[str, Any]:
    """The record of a scene whose words were ranked by one method, under one removal."""
    nothing = {"pixel": None, "deletion": [], "insertion": [], "infidelity": [], "infidelity_pixel": []}
    unit = {"texts": words, "scores": scores.tolist(), "effects": effects.tolist()} | nothing
    return {"model": {"methods": {"exact": {"faithfulness": {"drop": unit}}}}}


def test_words_are_ranked_by_level_and_against_what_a_score_without_silent_words_can_reach() -> None:
    words, levels = ["a", "cat", "left", "dog", "blue"], (0.2, 0.8)
    scenes = []
    for _ in range(6):
        scores, effects = rng.random((5, 2)), rng.random((5, 2)) + 0.1
        scores[[0, 2]] = 0
        scenes.append((scores, effects))
    records = [ranked(words, scores, effects) for scores, effects in scenes]
    few = ranked(["a", "cat"], np.array([[0.0, 0], [1, 1]]), np.array([[9.0, 9], [1, 1]]))  # says nothing of ranks
    found, best = faithfulness([*records, few], levels)["exact"], ceiling([*records, few], levels)
    known = [np.where(scores == 0, 0, effects) for scores, effects in scenes]

    def slow(given: list[Any], at: slice) -> float:
        pairs = zip(given, (effects for _, effects in scenes), strict=True)
        images = [image for g, true in pairs for image in zip(g.T[at], true.T[at], strict=True)]
        return float(np.mean([spearmanr(*image).statistic for image in images]))

    for result, given in ((found, [scores for scores, _ in scenes]), (best, known)):
        assert result["scenes"] == 7
        assert result["drop"]["spearman_token"]["value"] == pytest.approx(slow(given, slice(None)))
        for at, level in enumerate(levels):
            value = result["by_level"][str(level)]["spearman_token"]["value"]
            assert value == pytest.approx(slow(given, slice(at, at + 1)))
    assert best["drop"]["spearman_token"]["value"] > found["drop"]["spearman_token"]["value"]
    assert ceiling([], levels) == {} and faithfulness([], levels) == {}


def test_the_exact_method_is_compared_with_rivals_scene_by_scene() -> None:
    words, records, expected = ["a", "cat", "left", "dog", "blue"], [], []
    for scene in range(7):
        effects, scores, others = (rng.random((5, 2)) for _ in range(3))
        record = ranked(words, scores, effects) | {"scene": scene}
        if scene < 4:
            record["model"]["methods"]["daam"] = ranked(words, others, effects)["model"]["methods"]["exact"]
            pairs = [spearmanr(s, e).statistic - spearmanr(o, e).statistic
                     for s, o, e in zip(scores.T, others.T, effects.T, strict=True)]  # fmt: skip
            expected.append(np.mean(pairs))
        records.append(record)
    few = ranked(["a", "cat"], np.array([[0.0, 0], [1, 1]]), np.array([[9.0, 9], [1, 1]])) | {"scene": 9}
    few["model"]["methods"]["daam"] = few["model"]["methods"]["exact"]
    found = differences([*records, few])
    assert list(found) == ["daam"] and found["daam"]["scenes"] == 4
    assert found["daam"]["spearman_token"] == pytest.approx(bootstrap(expected, lambda v: float(np.mean(v))))
    assert differences([]) == {}
