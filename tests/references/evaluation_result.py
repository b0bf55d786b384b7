"""A made-up result of an evaluation, of every part that the page and the docs read."""

from __future__ import annotations

from typing import Any

METHODS = ("exact", "value_gradient", "daam", "rollout", "input_gradient", "integrated_gradients", "gradient",
           "leave_one_out", "random", "centre")  # fmt: skip
LOWER = ("leakage", "function_mass", "deletion", "infidelity")


def number(value: float, spread: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def graded(place: int, lower: bool) -> dict[str, float]:
    """The value of the method at a place: the first one is the best."""
    return number(0.05 + 0.08 * place if lower else 0.9 - 0.08 * place)


def localisation(place: int) -> dict[str, Any]:
    names = ("ap", "miou", "miou_04", "pointing", "mass_inside", "leakage", "colour_mass", "function_mass", "mask_ap")
    found: dict[str, Any] = {name: graded(place, name in LOWER) for name in names}
    found |= {f"mask_ap_{tau}": graded(place, False) for tau in ("03", "04", "05")}
    found["by_level"] = {str(level): {name: graded(place, name in LOWER) for name in names} for level in (0.2, 0.8)}
    grid = [k / 20 for k in range(21)]
    found["curves"] = {
        "precision_recall": {"x": grid, "y": [1 - x ** (3 - place / 4) for x in grid]},
        "iou": {"x": grid, "y": [(0.9 - 0.08 * place) * 4 * x * (1 - x) for x in grid]},
    }
    return found


def faithfulness(place: int) -> dict[str, Any]:
    names = ("spearman_token", "spearman_pixel", "deletion", "insertion", "infidelity")
    grid = [k / 10 for k in range(11)]
    found: dict[str, Any] = {edit: {n: graded(place, n in LOWER) for n in names} for edit in ("drop", "null", "swap")}
    found["by_level"] = {str(level): {"spearman_token": graded(place, False)} for level in (0.2, 0.8)}
    found["curves"] = {
        "deletion": {"x": grid, "y": [x ** (0.4 + place / 8) for x in grid]},
        "insertion": {"x": grid, "y": [1 - x ** (0.4 + place / 8) for x in grid]},
    }
    return found


def separation(place: float, when: int) -> dict[str, Any]:
    grid = [k / 10 for k in range(11)]
    base = 0.95 - 0.05 * when - 0.1 * place
    bins = [{"words": 10, "predicted": x, "drawn": x * x} for x in grid]
    return {"auroc": number(base), "auprc": number(base - 0.2), "fpr_at_95": number(1 - base), "reliability": bins,
            "roc": {"x": grid, "y": [x ** (0.2 + place / 2) for x in grid]}}  # fmt: skip


def moments() -> dict[str, Any]:
    scores = {"exact": 0, "daam_max": 2, "mass": 3, "judge": -0.2}
    return {
        "pictures": 300, "objects": 800, "missing": 90,
        "at": {step: {score: separation(place, k) for score, place in scores.items()}
               for k, step in enumerate(("25", "10", "5"))},
    }  # fmt: skip


def pictures(distance: float, objects: float) -> dict[str, Any]:
    networks = ("segmenter-0a1b2c3d", "random-convnet")
    return {
        "frechet": {name: number(distance) for name in networks},
        "kernel": {name: number(distance / 100, 0.001) for name in networks},
        "objects": number(objects), "colour": number(1.0, 0.0), "relation": number(0.9), "counts": number(0.5),
    }  # fmt: skip


def result() -> dict[str, Any]:
    return {
        "name": "scenes-32",
        "command": "bcos-diffusion evaluate --preset scenes --out report",
        "date": "2030-01-02",
        "seconds": 8000.0,
        "settings": {"preset": "scenes", "scenes": 1000, "pictures": 400, "seed": 0, "steps": 25, "guidance": 2.0},
        "provenance": {"model_sha256": "ab" * 32, "commit": "c0ffee", "versions": {"torch": "2.10"},
                       "machine": {"device": "a <processor>", "cores": 2}},
        "regime_a": {"scenes": 1000, "methods": {m: localisation(i) for i, m in enumerate(METHODS)},
                     "differences": {"daam": {"scenes": 1000, "miou": number(0.08), "leakage_ratio": number(0.4)}}},
        "regime_b": {"scenes": 400, "segmenter": {"miou": number(0.96, 0.003)},
                     "methods": {m: localisation(i) for i, m in enumerate(METHODS)}},
        "faithfulness": {regime: {m: faithfulness(i) for i, m in enumerate(METHODS)}
                         for regime in ("one_step", "whole_run")} | {"ceiling": faithfulness(0),
                            "differences": {"daam": {"scenes": 500, "spearman_token": number(0.3)}}},
        "missing": {kind: moments() for kind in ("separation", "induced")}
        | {"strengthening": {"pictures": 20, "again": number(0.3), "stronger": number(0.6)},
           "gain": {"prompts": 90, "tries": 4, "plain": {"complete": number(0.6), "evaluations": number(25.0)},
                      "early": {"complete": number(0.8), "evaluations": number(41.5), "times_plain": number(1.3)}}},
        "quality": {
            "model": {"count": 400, "drawn": pictures(1.2, 0.93), "real": pictures(0.3, 0.99)},
            "twin": {"count": 400, "drawn": pictures(1.0, 0.95), "real": pictures(0.3, 0.99)},
        },
        "axioms": {"completeness": 1.6e-6, "mass_of_function_words": 0.0},
        "denoising_mse": {m: {"0.2": number(0.01, 0.001), "0.8": number(0.05, 0.001)} for m in ("model", "twin")},
        "mass": {"object": {"words": 9, "share_per_word": number(0.5), "effect_per_word": number(3.0)}},
        "timing": {"regime_a": {m: {"scenes": 1000, "seconds": 0.1 + i} for i, m in enumerate(METHODS)}},
        "budget": {"tokens": number(0.96), "x_T": number(0.04), "time": number(0.0), "other": number(0.0)},
    }  # fmt: skip
