"""The segmenter that comes with the package, and the scores by which it is trusted."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bcos_diffusion.evaluation.drawn_objects import judge
from bcos_diffusion.evaluation.segmenter import Segmenter, classes, nearest_colour, shipped
from bcos_diffusion.evaluation.segmenter.degradation import Degradation, degrade, draw
from bcos_diffusion.evaluation.segmenter.pictures import generator, labels, picture
from bcos_diffusion.evaluation.segmenter.scores import intersection_over_union, overlap, score
from bcos_diffusion.scenes import COLOURS, Scene, Scenes
from bcos_kernels.files import read_json


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.load()


def tensor(scene: Scene) -> Tensor:
    return torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255


def plain(colour: str) -> Tensor:
    return (torch.tensor(COLOURS[colour]) / 255)[:, None, None].expand(3, 32, 32).clone()


def test_shipped_weights_find_the_objects_of_held_out_scenes(segmenter: Segmenter) -> None:
    found = score(segmenter.classes, size=32, split="test", count=200)
    assert found["miou"]["value"] >= 0.95 and found["miou_objects"]["value"] >= 0.95
    assert found["background"] >= 0.98
    assert segmenter.card["scores"]["miou"]["value"] >= 0.95 and segmenter.card["scores"]["scenes"] >= 1000


def test_that_of_finer_scenes_finds_their_objects() -> None:
    segmenter = Segmenter.load(shipped(64))
    scenes = [Scenes(size=64, split="test")[i] for i in range(60)]
    images = torch.stack([tensor(scene) for scene in scenes])
    drawn = judge(segmenter, images, [scene.words for scene in scenes])
    named = [(noun, one) for scene, one in zip(scenes, drawn, strict=True) for noun in {p.noun for p in scene.objects}]
    assert sum(noun in one.present for noun, one in named) >= 0.95 * len(named)
    assert sum(one.colour == scene.background for scene, one in zip(scenes, drawn, strict=True)) >= 59
    assert segmenter.names == classes(64) and len(segmenter.names) == 175
    assert segmenter.card["scores"]["miou_objects"]["value"] >= 0.85


@pytest.mark.parametrize("size", [32, 64])
def test_they_are_small_and_have_their_card(size: int) -> None:
    segmenter = Segmenter.load(shipped(size))
    assert sum(path.stat().st_size for path in shipped(size).iterdir()) <= 2e6
    assert "CC BY-SA 4.0" in segmenter.card["licence"] and "OpenMoji" in segmenter.card["licence"]
    assert segmenter.size == size and segmenter.name == f"segmenter-{segmenter.card['sha256'][:8]}"


def test_masks_of_words_are_those_of_scenes(segmenter: Segmenter) -> None:
    scenes = Scenes(size=32, split="test")
    both = either = 0
    for scene in (scenes[i] for i in range(40)):
        found = segmenter.masks(tensor(scene), scene.words)
        assert found.keys() == scene.masks.keys()
        for word, mask in scene.masks.items():
            both += int((found[word].numpy() & mask).sum())
            either += int((found[word].numpy() | mask).sum())
    assert both >= 0.95 * either


def test_masks_of_what_is_not_there_are_empty(segmenter: Segmenter) -> None:
    found = segmenter.masks(plain("blue"), ["cat", "dogs", "on", "blue"])
    assert found.keys() == {"cat", "dogs", "blue"}
    assert not found["cat"].any() and not found["dogs"].any() and found["blue"].all()
    assert segmenter.masks(plain("blue"), ["a", "red", "cat"]).keys() == {"cat"}


def test_the_nearest_colour_is_that_of_the_background_alone() -> None:
    image, classes = plain("green"), torch.zeros(32, 32, dtype=torch.long)
    image[:, :20], classes[:20] = plain("red")[:, :20], 3
    assert nearest_colour(image, classes) == "green"
    assert nearest_colour(image, torch.ones_like(classes)) is None


def test_pictures_of_any_size_and_number(segmenter: Segmenter) -> None:
    images = torch.rand(3, 3, 37, 50, generator=torch.Generator().manual_seed(0))
    probabilities = segmenter.probabilities(images)
    assert probabilities.shape == (3, len(classes(32)), 37, 50)
    assert torch.allclose(probabilities.sum(1), torch.ones(3, 37, 50), atol=1e-5)
    assert torch.equal(probabilities.argmax(1), segmenter.classes(images))
    assert torch.allclose(segmenter.features(images)[1:2], segmenter.features(images[1:2]), atol=1e-5)
    for wrong in (torch.rand(3, 32, 32), torch.rand(1, 6, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"rgb in \[0, 1\]"):
            segmenter.classes(wrong)


def test_a_damaged_or_foreign_folder_is_told(tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(shipped(32), tmp_path / name))

    with pytest.raises(FileNotFoundError, match=r"card\.json does not exist"):
        Segmenter.load(tmp_path)
    cut = copy("cut")
    (cut / "model.safetensors").write_bytes((shipped(32) / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors"):
        Segmenter.load(cut)
    flipped, weights = copy("flipped"), bytearray((shipped(32) / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (flipped / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="digests differ"):
        Segmenter.load(flipped)
    other = copy("other")
    (other / "card.json").write_text(json.dumps(read_json(shipped(32) / "card.json") | {"classes": ["cat"]}))
    with pytest.raises(ValueError, match="not of the 66 classes of scenes of side 32"):
        Segmenter.load(other)
    (other / "card.json").write_text("{}")
    with pytest.raises(ValueError, match="not the card of a segmenter"):
        Segmenter.load(other)


def test_the_labels_of_scenes_are_their_visible_masks() -> None:
    scenes = Scenes(size=32)
    for scene in (scenes[i] for i in range(20)):
        found = labels(scene)
        for noun in {placed.noun for placed in scene.objects}:
            seen = np.any([p.mask for p in scene.objects if p.noun == noun], axis=0)
            assert np.array_equal(found == classes(32).index(noun), seen)
        assert set(np.unique(found)) <= {0} | {classes(32).index(p.noun) for p in scene.objects}


def test_scores_are_those_counted_pixel_by_pixel() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    truth, found = rng.integers(0, 5, (2, 9, 9))
    iou = intersection_over_union(overlap(truth, found, 66))
    pixels = [(a, b) for a, b in zip(truth.flat, found.flat, strict=True)]
    for number in range(5):
        both = sum(a == b == number for a, b in pixels)
        assert iou[number] == both / sum(number in pair for pair in pixels)
    assert np.isnan(iou[5:]).all()


def test_the_score_of_the_truth_is_one_and_of_nothing_zero() -> None:
    scenes, asked = Scenes(size=32, split="test"), iter(range(60))

    def truth(images: Tensor) -> Tensor:
        return torch.stack([torch.from_numpy(labels(scenes[next(asked)])) for _ in images])

    perfect = score(truth, count=60)
    assert perfect["miou"] == {"value": 1.0, "low": 1.0, "high": 1.0} == perfect["miou_objects"]
    assert perfect["pixels"] == perfect["background"] == 1.0
    nothing = score(lambda images: torch.zeros(len(images), 32, 32, dtype=torch.long), count=60)
    assert nothing["miou"]["value"] == 0.0 and nothing["pixels"] == pytest.approx(nothing["background"])


def test_degradations_bend_classes_along_and_weak_ones_change_nothing() -> None:
    pixels, classes, _ = picture(Scenes(size=32), seed=0, number=3)
    x, y = torch.from_numpy(pixels)[None], torch.from_numpy(classes)[None]
    how = draw(generator(0, 3, part=1), 32)
    nothing = Degradation(
        *(np.zeros_like(part) if isinstance(part, np.ndarray) else 0.0 for part in vars(how).values())
    )
    nothing = dataclasses.replace(nothing, gain=np.ones_like(how.gain))
    same, still = degrade(x, y, [nothing])
    assert torch.allclose(same, x, atol=1e-5) and torch.equal(still, y)
    two_right = dataclasses.replace(nothing, bend=np.stack([np.full((6, 6), 2), np.zeros((6, 6))]).astype(np.float32))
    moved, along = degrade(x, y, [two_right])
    assert torch.allclose(moved[..., :-2], x[..., 2:], atol=1e-4) and torch.equal(along[..., :-2], y[..., 2:])
    changed, _ = degrade(x, y, [how])
    assert changed.min() >= 0 and changed.max() <= 1 and not torch.allclose(changed, x, atol=1e-2)
