"""When a try is left, what the next one changes, what is kept at last, and what it all costs."""

from pathlib import Path

import pytest
import torch
from references.missing_words import Scripted, calibration

from bcos_diffusion.missing.ensure import SEEDS_APART, STRONGER, Ensured, Search, ensure, strengthen
from bcos_diffusion.missing.gain import Attempt, ensured
from bcos_diffusion.missing.witness import Attention, Contributions
from bcos_diffusion.pipeline import BcosDiffusionPipeline

PROMPT = "cat and a dog , blue"
STEPS = 5  # the checkpoint is after 2


@pytest.fixture(scope="module")
def pipeline(model: Path) -> BcosDiffusionPipeline:
    return BcosDiffusionPipeline.from_pretrained(model)


def _ensure(
    pipeline: BcosDiffusionPipeline, script: list[list[float]], search: Search = Search()
) -> tuple[Ensured, Scripted]:
    witness = Scripted(calibration(pipeline), script)
    return ensure(pipeline, PROMPT, witness, 7, search, steps=STEPS), witness


def test_a_complete_first_try_is_the_plain_picture(pipeline: BcosDiffusionPipeline) -> None:
    found, _ = _ensure(pipeline, [[0.9, 0.4], [0.9, 0.6]])
    assert found.missing == () and len(found.tries) == 1 and found.evaluations == STEPS
    assert torch.allclose(found.image, pipeline.generate([PROMPT], seed=7, steps=STEPS)[0], atol=1e-5)


def test_a_hopeless_try_is_left_early_and_the_next_seed_taken(pipeline: BcosDiffusionPipeline) -> None:
    found, witness = _ensure(pipeline, [[0.9, 0.2], [0.9, 0.9], [0.8, 0.7]])
    assert [t.steps for t in found.tries] == [2, STEPS] and found.evaluations == 2 + STEPS
    assert found.chosen.seed == 7 + SEEDS_APART and found.missing == () and not found.chosen.strength
    expected = pipeline.generate([PROMPT], seed=7 + SEEDS_APART, steps=STEPS)[0]
    assert torch.allclose(found.image, expected, atol=1e-5)
    assert found.to_dict()["chosen"] == 1 and [number for number, _ in witness.looks] == [2, 2, STEPS]


def test_missing_words_get_stronger_and_the_best_picture_is_kept(pipeline: BcosDiffusionPipeline) -> None:
    late = Search(tries=4, early=False)
    found, witness = _ensure(pipeline, [[0.9, 0.1], [0.9, 0.4], [0.2, 0.9], [0.9, 0.3]], late)
    assert found.chosen is found.tries[1] and found.missing == ("dog",) and found.evaluations == 4 * STEPS
    assert [dict(t.strength) for t in found.tries] == [{}, {}, {3: STRONGER}, {3: STRONGER, 0: STRONGER}]
    plain = pipeline.job([PROMPT], [None], [7], steps=STEPS).text
    changed = witness.looks[3][1].text
    ratio = changed.values[0].norm(dim=1) / plain.values[0].norm(dim=1).clamp(min=1e-9)
    assert torch.allclose(ratio[[0, 3, 5]], torch.tensor([STRONGER, STRONGER, 1.0]), atol=1e-5)
    assert torch.equal(changed.keys, plain.keys) and torch.equal(changed.values[1], plain.values[1])


def test_where_all_tries_were_left_the_best_is_drawn_to_its_end(pipeline: BcosDiffusionPipeline) -> None:
    found, _ = _ensure(pipeline, [[0.1, 0.2], [0.9, 0.25], [0.1, 0.1]], Search(tries=3))
    assert found.chosen is found.tries[1] and found.evaluations == 3 * 2 + 3 and found.missing == ("dog",)
    expected = pipeline.generate([PROMPT], seed=7 + SEEDS_APART, steps=STEPS)[0]
    assert torch.allclose(found.image, expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_the_replay_decides_as_ensure_does(pipeline: BcosDiffusionPipeline, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    early, late = (torch.rand(3, 2, generator=generator).sqrt().tolist() for _ in range(2))
    script = [p for a, b in zip(early, late, strict=True) for p in ([a] if min(a) < 0.3 else [a, b])]
    found, _ = _ensure(pipeline, script, Search(tries=3, seeds=3))
    for complete in range(3):
        tries = [Attempt(k == complete, tuple(a), tuple(b)) for k, (a, b) in enumerate(zip(early, late, strict=True))]
        kept, evaluations = ensured(tries, STEPS, 2, 0.3)
        assert evaluations == found.evaluations and kept == (found.tries.index(found.chosen) == complete)


def test_a_stronger_word_is_still_explained_exactly(pipeline: BcosDiffusionPipeline) -> None:
    job = strengthen(pipeline.job([PROMPT], [None], [7], steps=STEPS), {3: 1.5})
    (traced,) = pipeline.trace(job)
    assert torch.allclose(traced.total, traced.image, atol=1e-5)
    assert not torch.allclose(traced.image, pipeline.trace(pipeline.job([PROMPT], [None], [7], steps=STEPS))[0].image)


def test_generate_ensures_several_prompts(pipeline: BcosDiffusionPipeline) -> None:
    sure = calibration(pipeline, bias=9.0)
    found = pipeline.generate([PROMPT, "goat"], seed=7, steps=STEPS, ensure=True, tries=2, calibration=sure)
    assert found.images.shape == (2, 3, 24, 24) and len(found.pictures) == len(found.missing) == 2
    assert found.evaluations == sum(p.evaluations for p in found.pictures)
    assert found.pictures[1].chosen.scores[0].word == "goat" and found.pictures[1].chosen.scores[0].probability > 0.99
    unsure = calibration(pipeline, bias=-9.0)
    none = pipeline.generate(["goat"], seed=7, steps=STEPS, ensure=True, tries=2, calibration=unsure)
    assert none.missing == (("goat",),)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_attention_as_a_witness_draws_without_parts(pipeline: BcosDiffusionPipeline, guidance: float) -> None:
    from bcos_diffusion.missing.calibration import Calibration, Checkpoint
    from bcos_diffusion.missing.heat import HEAT_NAMES
    from bcos_diffusion.missing.logistic import Logistic

    def by(weights: tuple[float, ...], bias: float) -> Calibration:
        logistic = Logistic(HEAT_NAMES, (0.0,) * 6, (1.0,) * 6, weights, bias)
        points = tuple(Checkpoint(share, logistic, (1.0, 0.0), 0.0) for share in (0.2, 0.4, 1.0))
        return Calibration("tiny", "", points, {})

    single = Search(tries=1)
    found = ensure(pipeline, PROMPT, Attention(by((0.0,) * 5 + (1.0,), 0.0)), 7, single, steps=STEPS, guidance=guidance)
    assert found.parts == found.evaluations == STEPS
    assert all(0.5 < s.probability < 0.74 for s in found.chosen.scores)  # a mean of probabilities is in (0, 1)
    assert Contributions(calibration(pipeline)).traced


def test_mistakes(pipeline: BcosDiffusionPipeline) -> None:
    with pytest.raises(ValueError, match="names no object that could be missing"):
        pipeline.generate(["cat", "blue"], ensure=True, calibration=calibration(pipeline))
    with pytest.raises(ValueError, match="fitted for other weights"):
        pipeline.generate(["cat"], ensure=True)
    with pytest.raises(ValueError, match="tries must be at least 1"):
        pipeline.generate(["cat"], ensure=True, tries=0, calibration=calibration(pipeline))
