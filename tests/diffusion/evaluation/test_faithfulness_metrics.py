"""Deletion, insertion, infidelity and sensitivity against captum and against slow definitions."""

import itertools

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max
from references.networks import states
from references.tiny import tiny_pipeline

from bcos_diffusion.baselines.ablation import LeaveOneOut
from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.baselines.subject import one_step
from bcos_diffusion.evaluation import statistics
from bcos_diffusion.evaluation.ablations import Ablations
from bcos_diffusion.evaluation.deletion import area, by_score, deletion, insertion
from bcos_diffusion.evaluation.infidelity import infidelity, sets_of_words, terms
from bcos_diffusion.evaluation.judgement import Judged, judge, summarise
from bcos_diffusion.evaluation.sensitivity import max_sensitivity
from bcos_diffusion.explanation.attribution import Exact

PROMPT = "cat left of dog on blue"
AMONG = torch.tensor([True, False, False, True, False, True])


@pytest.fixture(scope="module")
def ablations() -> Ablations:
    pipeline = tiny_pipeline()
    return Ablations(one_step(pipeline, pipeline.model.tokenizer.encode([PROMPT]), *states(pipeline)), "drop")


def image_without(ablations: Ablations, words: set[int]) -> torch.Tensor:
    """The images without some words, by one plain pass."""
    subject = ablations.subject
    mask = subject.batch.mask.clone()
    for number in words:
        mask &= subject.batch.word_index != number
    batch = type(subject.batch)(subject.batch.ids, mask, *list(vars(subject.batch).values())[2:])
    return subject.images(subject.pipeline.model.condition(batch))[0]


def test_ablations_are_remembered_and_true(ablations: Ablations) -> None:
    removed = torch.zeros(3, 6, dtype=torch.bool)
    removed[1, 0] = removed[2, :3] = True
    found = ablations.differences(removed)
    assert not found[0].any()
    for row, words in ((1, {0}), (2, {0, 1, 2})):
        expected = image_without(ablations, words) - image_without(ablations, set())
        torch.testing.assert_close(found[row], expected)
    assert torch.equal(ablations.differences(removed[[2, 1]]), found[[2, 1]])


def test_curves_are_what_is_left_step_by_step(ablations: Ablations) -> None:
    scores = torch.tensor([[1.0, 3], [9, 9], [9, 9], [2, 2], [9, 9], [2, 1]])
    orders = [[3, 5, 0], [0, 3, 5]]  # of words that score alike, the first of the prompt goes first
    removed = by_score(scores, AMONG)
    whole, none = image_without(ablations, set()), image_without(ablations, {0, 3, 5})
    out, back = deletion(scores, AMONG, ablations), insertion(scores, AMONG, ablations)
    assert out.shape == back.shape == (2, 4)
    for state, order in enumerate(orders):
        for step in range(4):
            gone, kept = set(order[:step]), set(order[step:])
            assert set(removed[state, step].nonzero().flatten().tolist()) == gone
            for curve, words in ((out, gone), (back, kept)):
                left = (image_without(ablations, words) - whole)[state].norm() / (none - whole)[state].norm()
                assert float(curve[state, step]) == pytest.approx(1 - float(left), abs=1e-6)
    assert area(torch.tensor([[1.0, 0.5, 0], [1, 0, 0]])).tolist() == [0.5, 0.25]


def test_infidelity_is_captums_in_relative_terms() -> None:
    generator = torch.Generator().manual_seed(2)
    among = torch.tensor([True, True, False, True, True])
    sets, scores = sets_of_words(among), torch.rand(5, 1, generator=generator)
    expected = {s for n in range(1, 5) for s in itertools.combinations([0, 1, 3, 4], n)}
    assert {tuple(row.nonzero().flatten().tolist()) for row in sets} == expected and len(sets) == 15

    def f(x: torch.Tensor) -> torch.Tensor:
        return (x @ torch.tensor([1.0, 2, 0, 3, 1])).pow(2) / 10

    full = torch.ones(1, 5)
    changes = f(full) - f(1 - sets.float())
    rows = iter(sets.float())

    def perturb(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        taken = torch.stack([next(rows) for _ in inputs])
        return taken, inputs - taken

    theirs = captum_infidelity(f, perturb, full, scores.T, n_perturb_samples=len(sets), normalize=True)
    ours = infidelity(terms(scores, changes[:, None], sets))
    assert ours == pytest.approx(float(theirs) / float(changes.pow(2).mean()), rel=1e-5)
    assert infidelity(terms(7 * scores, changes[:, None], sets)) == pytest.approx(ours)
    assert infidelity(terms(torch.zeros(5, 1), changes[:, None], sets)) == 1
    additive = torch.tensor([1.0, 2, 0, 3, 1])[:, None]
    assert infidelity(terms(additive, sets.float() @ additive, sets)) == pytest.approx(0, abs=1e-12)
    assert np.isnan(infidelity(terms(scores, 0 * changes[:, None], sets)))


def test_one_scale_serves_all_images_and_many_words_are_sampled() -> None:
    sets = sets_of_words(torch.ones(2, dtype=torch.bool))
    scores = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    changes = sets.double() @ scores.double() * torch.tensor([1.0, 10.0])  # right, but for a scale of each image's own
    # The best β minimises ((β - 1)² + (β / 10 - 1)²) / 2.
    assert infidelity(terms(scores, changes, sets)) == pytest.approx(1 - 1.1**2 / (1.01 * 2))
    many = sets_of_words(torch.ones(9, dtype=torch.bool), seed=1)
    assert many.shape == (31, 9) and many.any(1).all() and len(many.unique(dim=0)) > 20
    assert torch.equal(many, sets_of_words(torch.ones(9, dtype=torch.bool), seed=1))


def test_the_oracle_is_judged_faithful(ablations: Ablations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 20)
    found = LeaveOneOut().attribute(ablations.subject)
    wrong = Attributed(-found.maps, -found.scores)
    right, reverse = judge(found, ablations), judge(wrong, ablations)
    assert right == Judged(**vars(right)) and len(right.deletion) == 2 and len(right.deletion[0]) == 4
    good, bad = summarise([right, right]), summarise([reverse, reverse])
    for key in ("mean_over_images_content", "pooled_content", "pooled_all"):
        assert good["spearman_token"][key]["value"] == pytest.approx(1)
        assert bad["spearman_token"][key]["value"] == pytest.approx(-1)
    assert good["spearman_pixel"]["value"] == pytest.approx(1) and bad["spearman_pixel"]["value"] == pytest.approx(-1)
    assert good["deletion"]["value"] < bad["deletion"]["value"]
    assert good["insertion"]["value"] > bad["insertion"]["value"]
    assert good["infidelity"] == bad["infidelity"]  # a scale may be negative
    assert 0 < good["infidelity"]["value"] < 0.5 and 0 < good["infidelity_pixel"]["value"] < 0.8
    assert good["curves"]["deletion"][0] == 1 and good["curves"]["deletion"][-1] == pytest.approx(0)


def test_a_prompt_of_one_word_is_judged_by_what_it_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 20)
    pipeline = tiny_pipeline()
    subject = one_step(pipeline, pipeline.model.tokenizer.encode(["a cat"]), *states(pipeline))
    judged = judge(LeaveOneOut().attribute(subject), Ablations(subject, "drop"))
    assert judged.deletion == judged.infidelity == [] and judged.pixel == pytest.approx(1)
    summary = summarise([judged])
    assert np.isnan(summary["deletion"]["value"]) and np.isnan(summary["infidelity"]["value"])
    assert summary["curves"]["insertion"] == []


def test_max_sensitivity_is_captums() -> None:
    pipeline = tiny_pipeline()
    batch, (x_t, t) = pipeline.model.tokenizer.encode([PROMPT]), states(pipeline)
    x_t, t = x_t[:1], t[:1]
    ours = max_sensitivity(Exact(), pipeline, batch, x_t, t, radius=0.05, draws=3, seed=7)

    def alone(inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
        return inputs[0] if isinstance(inputs, tuple) else inputs

    def explain(inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        x = alone(inputs)
        maps = Exact().denoise(pipeline, batch, x, t.expand(len(x))).maps
        return (maps.transpose(0, 1).contiguous(),)

    generator = torch.Generator().manual_seed(7)

    def perturb(inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        x = alone(inputs)
        draws = [0.05 * (2 * torch.rand(1, 3, 16, 16, generator=generator) - 1) for _ in x]
        return (x + torch.cat([torch.cat([rgb, -rgb], 1) for rgb in draws]).to(x),)

    theirs = sensitivity_max(explain, (x_t,), perturb_func=perturb, n_perturb_samples=3)
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-4, atol=1e-6)
