"""Which cells a sweep measures, and plans that are refused."""

from collections import Counter
from pathlib import Path

import pytest
from references.tiny import tiny_pipeline

from bcos_diffusion.features import load_subject, subject_of
from bcos_diffusion.features.layers import own_layers
from bcos_diffusion.features.sweep.plan import (
    IMAGE,
    NOISED,
    PIXELS,
    UNTRAINED,
    Cell,
    Model,
    SweepPlan,
    cells,
)

MODELS = (Model("a", "here"), Model("b", "there"))


def test_every_comparison_of_the_paper_and_no_more() -> None:
    plan = SweepPlan(MODELS, timesteps=(25, 500), conditionings=("empty", "targeted"))
    layers = {"a": ("bottleneck", "up_ft0"), "b": ("block_0",), UNTRAINED: ("bottleneck", "up_ft0")}
    found = cells(plan, layers, {"a": ("empty", "targeted"), "b": ("empty",), UNTRAINED: ("empty",)})
    assert len(set(found)) == len(found) == len({cell.name for cell in found})
    assert Counter(cell.model for cell in found) == {"a": 6, "b": 2, UNTRAINED: 4, PIXELS: 3}
    assert Cell("a", "up_ft0", 25, "targeted") in found and Cell("a", "up_ft0", 500, "targeted") not in found
    assert Cell(PIXELS, NOISED, 500, "empty") in found and found[-1].layer == IMAGE
    coded = [cell for cell in found if plan.reads_latents(cell)]
    assert Counter(cell.model for cell in coded) == {"a": 6, "b": 2, UNTRAINED: 2, PIXELS: 1}


def test_models_are_named() -> None:
    assert Model.parse("B-cos=/somewhere/x") == Model("B-cos", "/somewhere/x")
    assert Model.parse("/somewhere/x") == Model("x", "/somewhere/x")
    for wrong in ("=x", "x="):
        with pytest.raises(ValueError, match="SOURCE or LABEL=SOURCE"):
            Model.parse(wrong)


def test_plans_that_compare_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="timesteps must be at least one, each once, got 5, 5"):
        SweepPlan(MODELS, timesteps=(5, 5))
    with pytest.raises(ValueError, match="models must be at least one"):
        SweepPlan(())
    with pytest.raises(ValueError, match="the name of a baseline"):
        SweepPlan((Model(PIXELS, "x"),))
    with pytest.raises(ValueError, match="at least 100 scenes"):
        SweepPlan(MODELS, count=10)
    with pytest.raises(ValueError, match="few must be at least 1"):
        SweepPlan(MODELS, few=0)


def test_layers_are_each_models_own(model: Path) -> None:
    unet, dit = load_subject(model), subject_of(tiny_pipeline(network="dit", depth=9))
    assert own_layers(unet, ()) == ("bottleneck", "up_ft0", "up_ft1")
    assert own_layers(dit, ()) == ("block_0", "block_2", "block_4", "block_6", "block_8")
    assert own_layers(dit, ("bottleneck", "up_ft0")) == ("bottleneck",)
    with pytest.raises(ValueError, match="there is no layer 'up_ft0'"):
        own_layers(dit, ("up_ft0",))
