"""Verdicts on made-up sweeps whose answer is known."""

import copy
import math
from typing import Any

import pytest
import torch

from bcos_diffusion.evaluation.page.results import Number
from bcos_diffusion.features.probe import Accuracy, margin
from bcos_diffusion.features.sweep.claims import claims
from bcos_diffusion.features.sweep.found import Found
from bcos_diffusion.features.sweep.measures import DIFF_C, JUDGED, SIGMA
from bcos_diffusion.features.sweep.verdict import FAILS, HOLDS, OPEN, UNMEASURED, Claim, Leg, decide

LAYERS = ("bottleneck", "up_ft0", "up_ft1", "up_ft2")
IMAGES = 200


def probe(top1: float, seed: int = 0) -> dict[str, Any]:
    """A probe that is right on the first of the images, in an order that all cells share."""
    right = round(top1 * IMAGES)
    truth = [number % 7 for number in range(IMAGES)]
    predicted = [label if number < right else label + 1 for number, label in enumerate(truth)]
    return {"object": {"top1": top1, "low": top1 - 0.05, "high": top1 + 0.05, "predicted": predicted, "truth": truth}}


def purity(sigma: float, error: float = 0.02) -> dict[str, Any]:
    names = {"sigma": sigma, "majority": 1 - sigma / 10, "entropy": sigma / 2}
    numbers = {
        "mean": names, "chance": dict.fromkeys(names, 9.0), "spread": dict.fromkeys(names, 0.1),
        "error": {name: error / 10 if name == "majority" else error for name in names}, "latents": 50,
    }  # fmt: skip
    return {factor: numbers for factor in ("object", "count")}


def cell(model: str, layer: str, t: int, said: str, top1: float, explained: float = 0.9) -> dict[str, Any]:
    return {
        "model": model, "layer": layer, "t": t, "conditioning": said, "purity": purity(10 * (1 - top1)),
        "diff_c": probe(top1), "few": {"diff_c": probe(top1), "linear": probe(top1)}, "linear": probe(top1),
        "sae": {"explained_variance": explained, "l0": 32.0},
    }  # fmt: skip


def made(accuracy: dict[str, float], loss: float = 0.1, targeted: float = 0.2, generic: float = -0.2) -> dict[str, Any]:
    """A sweep of one U-Net: an accuracy for each layer, what a large timestep loses, and what prompts add."""
    cells = {}

    def add(model: str, layer: str, t: int, said: str, top1: float) -> None:
        cells[f"{model}-{layer}-{t}-{said}"] = cell(model, layer, t, said, top1)

    for layer, top1 in accuracy.items():
        add("ours", layer, 25, "empty", top1)
        add("ours", layer, 500, "empty", top1 - loss)
        add("ours", layer, 25, "targeted", top1 + targeted)
        add("ours", layer, 25, "generic", top1 + generic)
        add("untrained", layer, 25, "empty", 0.1)
    add("pixels", "x_t", 25, "empty", 0.2)
    return {
        "models": {"ours": {"family": "U-Net", "form": "B-cos"}},
        "layers": {"ours": list(accuracy), "untrained": list(accuracy)},
        "timesteps": [25, 500], "conditionings": ["empty", "generic", "targeted"],
        "classes": {"object": ["a"], "count": ["one"]}, "cells": cells,
    }  # fmt: skip


def verdicts(values: dict[str, Any]) -> dict[str, str]:
    return {claim.key: claim.verdict for claim in claims(Found(values))}


def test_a_sweep_like_the_papers_bears_its_claims_out() -> None:
    told = verdicts(made(dict(zip(LAYERS, (0.3, 0.5, 0.7, 0.5), strict=True))))
    held = ("peak", "bottleneck", "smallest", "largest", "targeted", "generic", "agreement", "pixels", "untrained",
            "explained")  # fmt: skip
    assert {key: told[key] for key in held} == dict.fromkeys(held, HOLDS)
    assert told["coarse"] == FAILS  # the bottleneck is worst at everything here
    assert {told[key] for key in ("blocks", "families", "forms")} == {UNMEASURED}


def test_a_sweep_unlike_the_papers_contradicts_it() -> None:
    values = made(dict(zip(LAYERS, (0.8, 0.5, 0.4, 0.3), strict=True)), loss=-0.1, targeted=-0.1, generic=0.0)
    told = verdicts(values)
    failed = ("peak", "bottleneck", "smallest", "largest", "targeted", "generic")
    assert {key: told[key] for key in failed} == dict.fromkeys(failed, FAILS)
    assert told["coarse"] == HOLDS
    generic = next(claim for claim in claims(Found(values)) if claim.key == "generic")
    diff_c = next(leg for leg in generic.legs if leg.measure == DIFF_C.name)
    assert diff_c.identical and "are one to this model" in diff_c.text


def test_equal_layers_tell_nothing() -> None:
    values = made(dict.fromkeys(LAYERS, 0.5))
    assert verdicts(values)["peak"] == OPEN
    for number, own in enumerate(values["cells"].values()):
        for found in (own["diff_c"], own["few"]["diff_c"]):
            flipped = torch.rand(IMAGES, generator=torch.Generator().manual_seed(number)) < 0.5
            truth = torch.tensor(found["object"]["truth"])
            found["object"]["predicted"] = torch.where(flipped, truth + 1, truth).tolist()
        own["purity"] = purity(5.0 + 0.001 * number)
    told = verdicts(values)
    assert told["peak"] == OPEN and told["bottleneck"] == OPEN


def test_what_is_not_there_is_not_judged() -> None:
    values = made({"bottleneck": 0.3, "up_ft0": 0.5})
    values["timesteps"], values["conditionings"] = [25], ["empty"]
    values["cells"] = {n: c for n, c in values["cells"].items() if c["model"] == "ours" and n.endswith("25-empty")}
    told = {claim.key: claim for claim in claims(Found(values))}
    for key in ("peak", "smallest", "largest", "targeted", "generic", "agreement", "pixels", "untrained"):
        assert told[key].verdict == UNMEASURED and told[key].reason
    assert told["bottleneck"].verdict == HOLDS


def test_no_latent_is_no_evidence() -> None:
    values = made(dict(zip(LAYERS, (0.3, 0.5, 0.7, 0.5), strict=True)))
    for own in values["cells"].values():
        for found in own["purity"].values():
            for part in ("mean", "error"):
                found[part] = dict.fromkeys(found[part], None)
    told = {claim.key: claim for claim in claims(Found(values))}
    assert told["peak"].verdict == HOLDS  # by accuracy alone
    assert told["peak"].legs[0].verdict == OPEN and "no latent" in told["peak"].legs[0].text
    assert told["coarse"].verdict == OPEN


def test_pairs_are_told_by_family_and_form() -> None:
    values = made(dict(zip(LAYERS, (0.3, 0.5, 0.7, 0.5), strict=True)))
    for label, family, form, off in (("dit", "transformer", "B-cos", -0.3), ("plain", "U-Net", "ordinary", 0.2)):
        values["models"][label] = {"family": family, "form": form}
        values["layers"][label] = list(LAYERS)
        for own in [c for c in values["cells"].values() if c["model"] == "ours"]:
            other = cell(label, own["layer"], own["t"], own["conditioning"], own["diff_c"]["object"]["top1"] + off)
            values["cells"]["-".join(map(str, (label, own["layer"], own["t"], own["conditioning"])))] = other
    told = [(c.key, c.subject, c.verdict) for c in claims(Found(values)) if c.key in ("families", "forms")]
    assert told == [
        ("families", "ours and dit", HOLDS), ("families", "plain and dit", HOLDS), ("forms", "ours and plain", FAILS)
    ]  # fmt: skip


def test_a_target_of_autoencoders_is_of_the_worst() -> None:
    values = made(dict(zip(LAYERS, (0.3, 0.5, 0.7, 0.5), strict=True)))
    values["cells"]["ours-up_ft1-500-empty"]["sae"]["explained_variance"] = 0.6
    claim = next(claim for claim in claims(Found(values)) if claim.key == "explained")
    assert claim.verdict == FAILS and "up_ft1 at t = 500" in claim.legs[0].text


def test_gains_are_those_of_the_probe_and_of_independent_means() -> None:
    one, two = cell("a", "x", 25, "empty", 0.7), cell("a", "y", 25, "empty", 0.5)
    two["diff_c"]["object"]["predicted"].reverse()
    expected = margin(*(
        Accuracy(torch.tensor(c["diff_c"]["object"]["predicted"]), torch.tensor(c["diff_c"]["object"]["truth"]), 8)
        for c in (one, two)
    ))  # fmt: skip
    assert DIFF_C.gain([one], [two]) == Number(**expected)
    both = DIFF_C.gain([one, two], [two, one])
    assert both.value == both.low == both.high == 0.0
    gain = SIGMA.gain([one], [two])  # 3.0 is purer than 5.0
    assert gain.value == pytest.approx(2.0) and gain.low == pytest.approx(2 - 1.96 * math.hypot(0.02, 0.02), abs=1e-4)
    assert SIGMA.best({"x": one, "y": two}) == "x"
    missing = copy.deepcopy(one)
    del missing["diff_c"], missing["purity"]
    assert not any(measure.gain([missing], [two]).known for measure in JUDGED if "few" not in measure.name)


def test_verdicts() -> None:
    above, below, around = Number(1, 0.5, 2), Number(-1, -2, -0.5), Number(0.1, -1, 1)
    assert decide([]) == UNMEASURED
    assert decide([above, above]) == HOLDS
    assert decide([above, around]) == OPEN
    assert decide([above, around, below]) == FAILS
    assert decide([Number(0, 0, 0)]) == OPEN
    assert decide([above, Number(math.nan, math.nan, math.nan)]) == OPEN
    legs = tuple(Leg(name, "", (gain,)) for name, gain in (("a", above), ("b", below)))
    assert Claim("k", "s", "from", "m", legs).verdict == OPEN and Claim("k", "s", "from", "m", legs).contradicted
    assert Claim("k", "s", "from", "m", legs[:1]).verdict == HOLDS
