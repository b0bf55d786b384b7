"""What is said of latents that were built to tell something."""

import math

import pytest
import torch
from torch import Tensor

from bcos_diffusion.features.latents.activations import collect
from bcos_diffusion.features.latents.findings import Findings, find

CLASSES = {"colour": ("red", "green", "blue"), "count": ("one", "two"), "alone": ("only", "never")}
PER_CLASS = 24


def built() -> tuple[Tensor, dict[str, Tensor]]:
    """Codes ``[72, 6]`` and labels: 0 and 1 tell red, the first purely; 2 green, 3 blue, 4 nothing, 5 is dead."""
    colour = torch.arange(3).repeat_interleave(PER_CLASS)
    code = torch.zeros(len(colour), 6)
    code[colour == 0, 0] = 2.0
    code[colour == 0, 1] = 1.0
    code[-3:, 1] = 0.5
    code[colour == 1, 2] = 1.5
    code[colour == 2, 3] = 1.0
    code[0, 3] = 0.3
    code[::2, 4] = 1.0
    labels = {"colour": colour, "count": torch.arange(len(colour)) // 2 % 2, "alone": torch.zeros_like(colour)}
    return code, labels


def found(code: Tensor, labels: dict[str, Tensor]) -> Findings:
    indices = torch.arange(code.shape[1]).expand(len(code), -1)
    return find(collect([(code, indices)], code.shape[1]), labels, CLASSES)


def test_latents_that_tell_are_named_with_what_they_tell() -> None:
    code, labels = built()
    told = found(code, labels).to_dict()
    assert set(told["purity"]) == {"colour", "count"}  # a factor of one class says nothing
    assert (told["latents"], told["active"], told["images"]) == (6, 5, 72)
    by_latent = {one["latent"]: one for one in told["telling"]}
    assert {j: one["tells"]["colour"]["class"] for j, one in by_latent.items()} == dict(
        zip(range(4), ("red", "red", "green", "blue"), strict=True)
    )
    for j, one in by_latent.items():
        number = CLASSES["colour"].index(one["tells"]["colour"]["class"])
        share = float(code[labels["colour"] == number, j].sum() / code[:, j].sum())
        assert one["tells"]["colour"]["selectivity"] == pytest.approx((share - 1 / 3) / (2 / 3))
        assert one["images"] == int((code[:, j] > 0).sum()) and "count" not in one["tells"]
    assert told["monosemanticity"]["judged"] == 5


def test_the_purest_of_each_class_come_first() -> None:
    findings = found(*built())
    assert findings.purest("colour", 9).tolist() == [0, 2, 3, 1]
    assert findings.purest("colour", 2).tolist() == [0, 2] and findings.purest("count", 9).tolist() == []
    assert findings.strongest(2).tolist() == [0, 2]


def test_the_table_says_what_was_measured() -> None:
    lines = found(*built()).lines()
    assert lines[0] == "5 of 6 latents are active on any of 72 images, 5 on at least 10"
    colour = next(line for line in lines if line.startswith("colour"))
    assert colour.split()[-2:] == ["80.0%", "80.0%"]


def test_too_few_images_are_not_judged() -> None:
    code, labels = built()
    few = torch.tensor([0, 1, 30, 31, 60, 61])
    findings = found(code[few], {factor: own[few] for factor, own in labels.items()})
    assert "nothing can be said" in findings.lines()[-1]
    assert math.isnan(findings.to_dict()["purity"]["colour"]["mean"]["sigma"])
    assert findings.strongest(1).tolist() == [0]


def test_without_labels_there_are_only_images() -> None:
    findings = found(built()[0], {})
    assert findings.to_dict()["monosemanticity"] is None and len(findings.lines()) == 1
    assert "verdict" not in findings.tensors()
