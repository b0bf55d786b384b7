"""Figure 3: who counts as missing, and how well relevance tells, against brute force."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from references.commands import refused

from bcos_diffusion import cli
from bcos_diffusion.paper import failure
from bcos_diffusion.paper.failure import (
    Judged,
    Named,
    against_its_own,
    auroc,
    auroc_of_equal_numbers,
    crowded_prompts,
    quantiles,
)
from bcos_diffusion.paper.failure_figure import choose


def picture(*objects: tuple[str, float, bool]) -> Judged:
    named = [Named(noun, i, drawn, {"absolute": share}) for i, (noun, share, drawn) in enumerate(objects)]
    return Judged("a prompt", 0, torch.zeros(3, 8, 8), named, [torch.zeros(8, 8) for _ in named])


def test_auroc_is_the_share_of_pairs_in_which_the_missing_object_has_less() -> None:
    rng = np.random.default_rng(0)
    pictures = [
        picture(*(("cat", float(rng.integers(6)), bool(rng.random() < 0.6)) for _ in range(3))) for _ in range(30)
    ]
    objects = [named for p in pictures for named in p.objects]
    drawn = [n.relevance["absolute"] for n in objects if n.drawn]
    missing = [n.relevance["absolute"] for n in objects if not n.drawn]
    expected = np.mean([(d > m) + 0.5 * (d == m) for d in drawn for m in missing])
    assert auroc(pictures, "absolute") == pytest.approx(expected)
    assert math.isnan(auroc([picture(("cat", 1.0, True))], "absolute"))


def test_pairs_of_pictures_with_equally_many_objects_do_not_mix_numbers_up() -> None:
    two = [picture(("cat", 0.4, True), ("dog", 0.6, True)), picture(("cat", 0.5, False), ("dog", 0.3, True))]
    three = [picture(("cat", 0.1, False), ("dog", 0.2, False), ("owl", 0.15, True))]
    # Of 2: 0.4, 0.6, 0.3 against 0.5, one of three above; of 3: 0.15 against 0.1 and 0.2, one of two.
    assert auroc_of_equal_numbers(two + three, "absolute") == pytest.approx(2 / 5)
    assert math.isnan(auroc_of_equal_numbers(two[:1], "absolute"))


def test_a_word_is_compared_with_the_other_pictures_in_which_it_is_drawn() -> None:
    shares = [0.1, 0.2, 0.3, 0.4]
    pictures = [picture(("cat", share, True)) for share in shares] + [
        picture(("cat", 0.05, False), ("dog", 0.5, False))
    ]
    against_its_own(pictures)
    assert pictures[0].objects[0].relevance["against_its_own"] == pytest.approx(0.1 / 0.3)
    assert pictures[4].objects[0].relevance["against_its_own"] == pytest.approx(0.05 / 0.25)
    assert math.isnan(pictures[4].objects[1].relevance["against_its_own"])


def test_the_figure_shows_the_least_and_the_most_relevant_of_the_missing() -> None:
    drawn = [picture(("cat", 0.2, True)) for _ in range(4)]
    missing = [picture(("cat", share / 100, False)) for share in range(10)]
    chosen = choose(against_its_own(drawn + missing))
    assert [round(100 * p.objects[i].relevance["absolute"]) for p, i in chosen] == [0, 1, 2, 3, 8, 9]


def test_quantiles_leave_out_what_is_unknown() -> None:
    assert quantiles([math.nan]) == {"count": 0}
    assert quantiles([1.0, 3.0, math.nan, 2.0]) == pytest.approx(
        {"count": 3, "mean": 2, "q05": 1.1, "q25": 1.5, "q50": 2, "q75": 2.5, "q95": 2.9}
    )


def test_random_prompts_name_different_objects_and_are_the_same_for_a_seed() -> None:
    prompts = crowded_prompts(40, 1)
    assert prompts == crowded_prompts(40, 1) != crowded_prompts(40, 2)
    for prompt in prompts:
        nouns = [word for word in prompt.split(" on ")[0].split() if word not in (",", "and")]
        assert len(set(nouns)) == len(nouns) in (2, 3)


@pytest.mark.usefixtures("elsewhere")
def test_the_command_judges_every_named_object(model: Path) -> None:
    assert cli.main(["paper", "failure", "--model", str(model), "--count", "3", "--out", "three"]) == 0
    result = json.loads(Path("three/failure.json").read_text())
    named = sum(len(set(p.split(" on ")[0].split()) - {",", "and"}) for p in crowded_prompts(3, 0))
    assert result["separation"]["objects"] == named
    assert result["separation"]["missing"] == sum(not o["drawn"] for o in result["objects"])
    assert result["judge_on_real_scenes"]["found"]["value"] > 0.8
    assert Path("three/failure.png").stat().st_size > 1000
    for measure in failure.MEASURES:
        assert set(result["separation"][measure]) == {"auroc", "auroc_of_equal_numbers", "drawn", "missing"}


@pytest.mark.usefixtures("elsewhere")
def test_a_prompt_without_an_object_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "names no object" in refused(capsys, "paper", "failure", "blue background", "--model", model)
    assert "at least 1" in refused(capsys, "paper", "failure", "--count", 0, "--model", model)
