"""The judges of generated pictures, on real scenes whose content is known."""

import pytest
import torch

from bcos_diffusion.evaluation.colour import judge_colour
from bcos_diffusion.evaluation.presence import judge_objects
from bcos_diffusion.scenes import COLOURS, NOUNS, Scenes


def test_backgrounds_are_judged_by_the_colour_named() -> None:
    image = torch.tensor(COLOURS["blue"])[:, None, None].expand(3, 16, 16) / 255
    assert judge_colour(image, ["cat", "blue"]) == (pytest.approx(0.0, abs=1e-6), True)
    error, right = judge_colour(image, ["yellow"])
    assert error is not None and error > 0.3 and right is False
    assert judge_colour(image, ["cat"]) == (None, None)


def test_the_judge_of_objects_finds_them_in_real_scenes() -> None:
    data, inverse = (
        Scenes(size=32, split="test"),
        {"left": "right", "right": "left", "above": "below", "below": "above"},
    )
    named = found = wrong = related = holds = reversed_holds = 0
    for scene in (data[i] for i in range(30)):
        image = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
        hits, count, relation = judge_objects(image, scene.words)
        found, named = found + hits, named + count
        absent = sorted(set(NOUNS) - {placed.noun for placed in scene.objects})
        wrong += judge_objects(image, absent[: len(scene.objects)])[0]
        if relation is not None:
            related += 1
            holds += relation
            reversed_holds += bool(judge_objects(image, [inverse.get(w, w) for w in scene.words])[2])
    assert named > 30 and found >= 0.95 * named and wrong <= 0.05 * named
    assert related > 3 and holds >= 0.8 * related and reversed_holds == 0
