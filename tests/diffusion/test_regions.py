"""Which words made a region, phrases as one part, and images that are no squares."""

import pytest
import torch
from references.tiny import tiny_pipeline

from bcos_diffusion.explain import Explanation, explain
from bcos_diffusion.explanation.backward import pull_back
from bcos_diffusion.explanation.phrases import groups
from bcos_diffusion.networks.places import spread

PROMPT = "a cat left of broccolis on a blue background"


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    return explain(tiny_pipeline(), PROMPT, "dog", seed=3, steps=3, phrases=["blue background"], update="standard")


def test_shares_of_a_region_are_sums_of_maps_and_add_up_to_one(explanation: Explanation) -> None:
    found = explanation.words_for((2, 4, 10, 9))
    image = explanation.trace.image
    for share in found.words:
        parts = [p for p in explanation.words if (p.text, p.negative) == (share.text, share.negative)]
        inside = [sum(p.map[c, y, x] for c in range(6) for y in range(4, 9) for x in range(2, 10)) for p in parts]
        assert min(abs(share.mass - float(value)) for value in inside) < 1e-9
        assert share.share == pytest.approx(share.mass / float(image[:, 4:9, 2:10].sum()), rel=1e-9)
    everyone = [*found.words, *found.others]
    assert sum(share.share for share in everyone) == pytest.approx(1, abs=1e-9)
    assert sum(share.push for share in everyone) == pytest.approx(1, abs=1e-9)
    assert [share.text for share in found.others] == ["x_T", "time", "other"] and found.others[2].mass != 0
    assert [s.share for s in found.words] == sorted((s.share for s in found.words), reverse=True)
    assert len(explanation.tokens_for((2, 4, 10, 9)).words) == len(explanation.tokens) > len(found.words)


def test_a_mask_says_what_a_box_and_a_backward_pass_say(explanation: Explanation) -> None:
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[4:9, 2:10] = True
    assert explanation.tokens_for(mask).to_dict() == explanation.tokens_for((2, 4, 10, 9)).to_dict()
    pipeline = tiny_pipeline()
    job = pipeline.job([PROMPT], ["dog"], [3], steps=3, update="standard")
    cotangent = mask.double().expand(1, 6, -1, -1)
    back = pull_back(
        pipeline.model.unet, job.text, job.first, job.alpha_bar, 3, job.guidance, job.update, cotangent=cotangent
    )
    said = {(s.text, s.negative): s.mass for s in explanation.tokens_for(mask).words if s.mass}
    for row, texts in enumerate(job.batch.texts):
        for position, text in enumerate(texts):
            if (text, row == 1) in said:
                relevance = back.tokens[:, 0, row, position].sum().item()
                assert relevance == pytest.approx(said[text, row == 1], rel=1e-9)
    assert len(said) == 6  # cat, three pieces of broccolis, blue, dog


@pytest.mark.parametrize(
    ("region", "message"),
    [((0, 0, 17, 3), "right <= 16"), ((4, 0, 4, 3), "left < right"), ((-1, 0, 4, 3), "0 <= left"),
     (torch.ones(3, 3), r"must be \[16, 16\]"), (torch.zeros(16, 16), "no pixel")],
)  # fmt: skip
def test_a_region_that_is_not_in_the_image_is_refused(
    explanation: Explanation, region: tuple[int, int, int, int] | torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        explanation.words_for(region)


def test_a_phrase_is_the_sum_of_its_words(explanation: Explanation) -> None:
    apart = explain(tiny_pipeline(), PROMPT, "dog", seed=3, steps=3, update="standard")
    assert [part.text for part in explanation.words] == [*PROMPT.split()[:-2], "blue background", "dog"]
    maps = {part.text: part.map for part in apart.words}
    torch.testing.assert_close(explanation.words[-2].map, maps["blue"] + maps["background"], rtol=0, atol=1e-15)
    assert sum(part.relevance_signed for part in explanation.words) == pytest.approx(1)


def test_phrases_are_found_wherever_they_stand() -> None:
    pipeline = tiny_pipeline()
    batch = pipeline.tokenize("blue cat on blue cat dog", "a blue cat")
    found = groups(batch, ["Blue  Cat", "cat dog", "blue cat dog", "of of"])
    assert [(g.text, g.negative) for g in found] == [
        ("blue cat", False), ("on", False), ("blue cat dog", False), ("a", True), ("blue cat", True),
    ]  # fmt: skip
    assert [(s.row, s.position) for s in found[2].tokens] == [(0, 3), (0, 4), (0, 5)]
    with pytest.raises(ValueError, match=r"does not have 'dog cat'.*its words: cat on dog"):
        explain(pipeline, "cat on dog", phrases=["cat on", "dog cat"])
    with pytest.raises(ValueError, match="a phrase is empty"):
        explain(pipeline, "cat", phrases=[" "])


@pytest.mark.parametrize("size", [(16, 24), (8, 16), (32, 20)])
@pytest.mark.parametrize("update", ["homogeneous", "standard"])
def test_images_that_are_no_squares_are_explained_exactly(size: tuple[int, int], update: str) -> None:
    pipeline = tiny_pipeline()
    explanation = explain(pipeline, "cat on blue", "dog", seed=1, steps=3, size=size, update=update)
    drawn = pipeline.generate(["cat on blue"], "dog", seed=1, steps=3, size=size, update=update)[0]
    torch.testing.assert_close(explanation.image, drawn, rtol=0, atol=1e-12)
    assert explanation.image.shape == (3, *size) and explanation.to_dict()["size"] == [size[1], size[0]]
    assert explanation.completeness < 1e-12


def test_what_was_learned_per_place_is_spread_linearly() -> None:
    grid = torch.randn(16, 3, dtype=torch.float64)
    assert spread(grid, (4, 4)) is grid
    for size in ((4, 8), (6, 3)):
        stretched = spread(grid, size).unflatten(0, size)
        for y in range(size[0]):
            for x in range(size[1]):
                v, u = (min(max((i + 0.5) * 4 / s - 0.5, 0), 3) for i, s in zip((y, x), size, strict=True))
                expected = torch.zeros(3, dtype=torch.float64)
                for j in range(4):
                    for i in range(4):
                        expected += max(0, 1 - abs(v - j)) * max(0, 1 - abs(u - i)) * grid[4 * j + i]
                torch.testing.assert_close(stretched[y, x], expected)


@pytest.mark.parametrize("size", [(16, 18), (0, 16), (15, 16)])
def test_sizes_between_strides_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 4 pixels"):
        tiny_pipeline().generate(["cat"], size=size)
