"""Intensities by part of speech, against sums by hand."""

import math

import pytest
import torch
from references.tiny import tiny_pipeline

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.baselines.daam import Daam
from bcos_diffusion.baselines.priors import Centre
from bcos_diffusion.evaluation.speech import PARTS, intensities, part_of_speech, spoken, spoken_in
from bcos_diffusion.scenes import vocabulary


def test_every_word_of_the_scenes_has_its_part() -> None:
    found = {part: {word for word in vocabulary() if part_of_speech(word) == part} for part in PARTS}
    assert sum(map(len, found.values())) == len(vocabulary())
    assert found["article"] == {"a", "an", "the"} and found["numeral"] == {"one", "two", "three", "four"}
    assert found["relation"] == {"of", "on", "in", "with", "to", "left", "right", "above", "below"}
    assert found["other"] == {"and", "background", "picture", ",", "."}
    assert {"cat", "cats", "fishes"} <= found["object"] and "orange" in found["colour"]


def test_intensities_of_a_small_corpus_by_hand() -> None:
    maps = torch.zeros(3, 2, 2, 2)
    maps[0, 0] = torch.tensor([[4.0, 2.0], [1.0, 1.0]])  # covers half at 0.4
    maps[0, 1] = torch.tensor([[4.0, 0.0], [0.0, 0.0]])  # a quarter
    maps[2] = 1.0
    first = spoken(["cat", "the", "red"], Attributed(maps, maps.mean((-2, -1))))
    second = spoken(["dog", "cat"], Attributed(maps[[2, 1]], maps.mean((-2, -1))[[2, 1]]))
    assert [(w.word, w.part, w.coverage, w.mean) for w in first] == [
        ("cat", "object", 0.375, 1.5), ("the", "article", 0.0, 0.0), ("red", "colour", 1.0, 1.0),
    ]  # fmt: skip
    found = intensities([first, second])
    assert {part: row["words"] for part, row in found.items()} == {
        "object": 3, "colour": 1, "relation": 0, "article": 1, "numeral": 0, "other": 0,
    }  # fmt: skip
    coverage, mean = found["object"]["coverage"], found["object"]["mean"]
    assert isinstance(coverage, dict) and isinstance(mean, dict)
    assert coverage["value"] == pytest.approx(1.375 / 3) and mean["value"] == pytest.approx(2.5 / 3)
    assert coverage["low"] == pytest.approx(0.375) and coverage["high"] == pytest.approx(0.5)  # one picture alone
    assert found["article"]["coverage"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    empty = found["numeral"]["mean"]
    assert isinstance(empty, dict) and all(map(math.isnan, empty.values()))


def test_any_method_may_be_asked() -> None:
    pipeline = tiny_pipeline()
    job = pipeline.job(["a cat left of broccolis", "dog on blue"], [None, None], [0, 1], 2, 2.5)
    for method in (Daam(), Centre()):
        words = spoken_in(method, pipeline, job)
        said = [[word.word for word in picture] for picture in words]
        assert said == [["a", "cat", "left", "of", "broccolis"], ["dog", "on", "blue"]]
        for row, one in enumerate(method.draw(pipeline, job)):
            assert [w.mean for w in words[row]] == pytest.approx(one.scores[:, 0].tolist())
    found = intensities(spoken_in(Daam(), pipeline, job))
    assert found["article"]["mean"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_words_must_be_those_of_the_maps() -> None:
    with pytest.raises(ValueError, match="there are 1 words and 2 maps"):
        spoken(["cat"], Attributed(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1)))


def test_start_end_and_padding_are_no_words() -> None:
    maps = torch.ones(4, 1, 2, 2)
    words = spoken(["[SOS]", "cat", "[EOS]", "[PAD]"], Attributed(maps, maps.mean((-2, -1))))
    assert [word.word for word in words] == ["cat"]
