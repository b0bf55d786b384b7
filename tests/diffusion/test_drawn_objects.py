"""Which objects are in a picture, how many and where, on real scenes and on scenes without an object."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bcos_diffusion.evaluation.drawn_objects import (
    component_areas,
    count_objects,
    judge,
    named_objects,
    objects_of,
    usual_area,
)
from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.scenes import COLOURS, Scene, Scenes
from bcos_diffusion.scenes.layout import Placed, paint


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.load()


def tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def painted(*objects: tuple[str, int, int], colour: str = "blue", size: int = 14) -> Tensor:
    return tensor(paint([Placed(noun, size, top, left) for noun, top, left in objects], COLOURS[colour], 32))


def without(scene: Scene, noun: str) -> Tensor:
    return tensor(paint([p for p in scene.objects if p.noun != noun], COLOURS[scene.background], 32))


def test_objects_of_real_scenes_are_there_and_removed_ones_are_not(segmenter: Segmenter) -> None:
    scenes = [s for s in map(Scenes(size=32, split="test").__getitem__, range(150)) if len(named_objects(s.words))]
    there = judge(segmenter, torch.stack([tensor(s.image) for s in scenes]), [s.words for s in scenes])
    nouns = [next(iter(named_objects(s.words))) for s in scenes]
    removed = torch.stack([without(s, noun) for s, noun in zip(scenes, nouns, strict=True)])
    gone = judge(segmenter, removed, [s.words for s in scenes])
    named = sum(len(drawn.named) for drawn in there)
    assert sum(len(drawn.missing) for drawn in there) <= 0.01 * named
    assert sum(len(drawn.extra) for drawn in there) <= 0.02 * len(scenes)
    assert sum(noun in drawn.present for noun, drawn in zip(nouns, gone, strict=True)) <= 0.01 * len(scenes)
    assert sum(len(drawn.missing) > 1 for drawn in gone) <= 0.02 * len(scenes)
    assert np.mean([drawn.colour_right(s.words) is not False for drawn, s in zip(there, scenes, strict=True)]) >= 0.98
    relations = [drawn.relation_holds(s.words) for drawn, s in zip(there, scenes, strict=True)]
    known = [holds for holds in relations if holds is not None]
    assert len(known) > 30 and sum(known) >= 0.98 * len(known)


def test_several_of_one_noun_are_counted(segmenter: Segmenter) -> None:
    data = Scenes(size=32, split="test")
    scenes = [s for s in map(data.__getitem__, range(400)) if 0 in named_objects(s.words).values()
              or max(named_objects(s.words).values(), default=0) > 1]  # fmt: skip
    judged = judge(segmenter, torch.stack([tensor(s.image) for s in scenes]), [s.words for s in scenes])
    right = [drawn.counts == {s.objects[0].noun: len(s.objects)} for drawn, s in zip(judged, scenes, strict=True)]
    assert len(right) > 15 and np.mean(right) >= 0.9


def test_extra_objects_wrong_places_and_wrong_colours_are_told(segmenter: Segmenter) -> None:
    image = painted(("cat", 9, 1), ("banana", 9, 17))
    words = "cat left of banana on blue".split()
    right, swapped, extra = judge(
        segmenter, image.expand(3, -1, -1, -1), [words, "cat right banana red".split(), ["cat", "above", "dog"]]
    )
    assert right.present == {"cat", "banana"} and not right.missing and not right.extra
    assert right.relation_holds(words) is True and right.colour_right(words) is True
    assert right.counts_right() == [True, True]
    assert swapped.relation_holds("cat right banana red".split()) is False and swapped.colour_right(["red"]) is False
    assert (
        extra.extra == {"banana"}
        and extra.missing == {"dog"}
        and extra.relation_holds(["cat", "above", "dog"]) is False
    )
    assert right.relation_holds(["cat"]) is None and right.colour_right(["cat"]) is None
    with pytest.raises(ValueError, match="a caption for each image"):
        judge(segmenter, image[None], [])


def test_captions_say_how_many() -> None:
    assert named_objects("three cats and a dog , stars".split()) == {"cat": 3, "dog": 1, "star": 0}
    assert named_objects("blue background".split()) == {} and objects_of({}) == 1
    assert objects_of({"cat": 3}) == 3 and objects_of({"cat": 0}) == 2 and objects_of({"cat": 4, "dog": 1}) == 4


def test_parts_are_found_as_by_flood_fill() -> None:
    mask = torch.rand(24, 31, generator=torch.Generator().manual_seed(0)) > 0.65
    left, areas = {tuple(p) for p in mask.nonzero().tolist()}, []
    while left:
        stack, area = [left.pop()], 0
        while stack:
            row, column = stack.pop()
            area += 1
            near = {(row + a, column + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            stack += near
        areas.append(area)
    assert component_areas(mask) == sorted(areas, reverse=True) and len(areas) > 5
    assert component_areas(torch.zeros(4, 4, dtype=torch.bool)) == []


def test_touching_objects_are_told_apart_by_their_area() -> None:
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[2:12, 2:12] = True
    assert count_objects(mask, 100, 0.4) == 1
    mask[2:12, 12:22] = True
    assert count_objects(mask, 100, 0.4) == 2
    mask[20:22, 20:22] = True
    assert count_objects(mask, 100, 0.4) == 2 and count_objects(torch.zeros_like(mask), 100, 0.4) == 0


def test_the_usual_area_is_that_of_scenes() -> None:
    data = Scenes(size=32, split="validation")
    seen = [(p.noun, len(s.objects), int(p.mask.sum())) for s in map(data.__getitem__, range(300)) for p in s.objects
            if p.mask is not None]  # fmt: skip
    ratios = np.array([area / usual_area(noun, total, 32) for noun, total, area in seen])
    assert abs(ratios.mean() - 1) < 0.02 and ratios.min() > 0.7 and ratios.max() < 1.4
