"""Which scenes are shown, and that the pictures of an example are what they say."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from bcos_diffusion.evaluation.page import examples
from bcos_diffusion.evaluation.page.sheets import Shown, example, png
from bcos_diffusion.explanation.overlay import overlay


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_maps_of_a_method_share_a_scale_and_methods_do_not() -> None:
    image = torch.full((3, 24, 24), 0.5)
    maps = torch.zeros(3, 24, 24)
    maps[0, :12], maps[2, 12:] = 4.0, -2.0
    words = [Shown(0, "cat", np.eye(24, dtype=bool), {"exact": "IoU 50%"}), Shown(2, "blue", None, {})]
    built = example("Scene", "text", image, words, {"exact": maps, "daam": 10 * maps})
    assert built.columns == ("true region", "exact contributions (ours)", "DAAM")
    assert [name for name, _ in built.rows] == ["cat", "blue"]
    (_, (_, strong, _)), (_, (region, weak, other)) = built.rows
    assert (strong.caption, region.caption) == ("IoU 50%", "no region")
    for shown, heat in ((strong, maps[0] / 4), (weak, maps[2] / 4)):
        expected = np.asarray(overlay(image, heat).resize((24, 24), Image.Resampling.NEAREST)).astype(int)
        assert np.abs(pixels(shown.png) - expected).max() <= 2
    assert other.png == weak.png  # the scale is the method's own
    assert "“blue”" in weak.alt and "IoU 50%" in strong.alt


def test_a_map_of_nothing_is_drawn_without_a_scale() -> None:
    image = torch.rand(3, 24, 24)
    built = example("Scene", "", image, [Shown(0, "cat", None, {})], {"exact": torch.zeros(1, 24, 24)})
    drawn = pixels(built.rows[0][1][1].png)
    assert np.ptp(drawn, axis=2).max() <= 2  # gray: neither for nor against


def test_pictures_are_small() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    assert len(png(noise)) < 1500


def test_the_worst_and_best_are_what_they_say() -> None:
    scores = {n: (n / 20, (n % 7) / 7) for n in range(20)} | {20: (math.nan, math.nan), 21: (0.99, math.nan)}
    typical, worst, leaking, best = examples.choose(scores, seed=3, count=4)
    assert [n for n, _ in worst.scenes] == [0, 1, 2, 3]
    assert [n for n, _ in best.scenes] == [21, 19, 18, 17]
    assert {n % 7 for n, _ in leaking.scenes} <= {6, 5} and leaking.scenes[0][0] % 7 == 6
    assert 20 not in {n for choice in (typical, worst, leaking, best) for n, _ in choice.scenes}
    assert typical == examples.choose(scores, seed=3, count=4)[0]
    assert worst.scenes[1][1] == "Exact contributions, all noise levels and objects: IoU 5%, leakage 14%."
    assert best.scenes[0][1].endswith("IoU 99%.")
    assert examples.choose({}) == []


def test_scores_are_means_over_objects_and_levels() -> None:
    curve = [[0.1] * 39, [0.3] * 39]
    object_, colour = {"iou": curve, "leakage": [0.2, None]}, {"iou": [[9.0] * 39] * 2, "leakage": [9.0, 9.0]}
    regions = [{"word": 1, "kind": "object"}, {"word": 4, "kind": "colour"}]
    record = {"scene": 7, "model": {"regions": regions, "methods": {"exact": {"regions": [object_, colour]}}}}
    unmeasured = {"scene": 8, "model": {"regions": [], "methods": {}}}
    assert examples.scored([record, unmeasured], 0.4) == {7: (pytest.approx(0.2), pytest.approx(0.2))}
