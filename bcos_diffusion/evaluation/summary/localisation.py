"""Localisation of all methods in one regime: thresholds from validation scenes, numbers from test scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.evaluation.localisation import GRID, RECALLS, best_threshold
from bcos_diffusion.evaluation.mask_ap import TAUS, average_precision_of_masks, hits
from bcos_diffusion.evaluation.setup import Record
from bcos_diffusion.evaluation.statistics import bootstrap_ratios, mean
from bcos_diffusion.evaluation.summary.columns import Column, Interval, Take, column
from bcos_diffusion.evaluation.summary.methods import EXACT, names, ran

DAAM_TAU = 0.4


def localisation(validation: Sequence[Record], test: Sequence[Record], levels: Sequence[float] = ()) -> dict[str, Any]:
    """Every measure of every method, overall and by noise level, and how far the exact method is ahead of each other.

    A method of the ordinary twin is named ``METHOD_twin``. Returns ``scenes``; ``methods``, by name: their measures,
    ``scenes``, the ``threshold`` that was chosen, ``by_level`` and ``curves``; and ``differences``: exact minus rival
    on the scenes that both have.
    """
    found: dict[str, Any] = {}
    tables: dict[str, dict[str, Column]] = {}
    for model, method, name in names(test):
        threshold = chosen_threshold(validation, model, method)
        tables[name] = columns(test, model, method, threshold)
        found[name] = {
            "scenes": len(tables[name]["ap"].scenes),
            "threshold": threshold,
            **{key: c.interval() for key, c in tables[name].items()},
            **masks(test, model, method),
            "by_level": {
                str(level): {key: c.interval(at) for key, c in tables[name].items()} for at, level in enumerate(levels)
            },
            "curves": {
                "iou": curve(test, model, method, "iou", GRID),
                "precision_recall": curve(test, model, method, "precision", RECALLS),
            },
        }
    return {
        "scenes": len(test),
        "chance_of_largest_with_rivals": chance(test),
        "methods": found,
        "differences": differences(tables),
    }


def chance(records: Sequence[Record]) -> float:
    """How often a content word of a caption, chosen at random, is an object's own, where it has rivals."""
    shares = [
        1 / record["model"]["content_words"]
        for record in records
        for region in record["model"]["regions"]
        if region["kind"] == "object" and record["model"]["content_words"] > 1
    ]
    return mean(shares)


def chosen_threshold(validation: Sequence[Record], model: str, method: str) -> float | None:
    """The threshold with the best mean IoU of object words on validation scenes; None where none shows an object."""
    curves = _object_words(validation, model, method, "iou")
    return best_threshold(curves) if len(curves) else None


def curve(records: Sequence[Record], model: str, method: str, name: str, x: NDArray[np.float64]) -> dict[str, Any]:
    """The mean of a curve over object words at all levels."""
    curves = _object_words(records, model, method, name)
    return {"x": x.tolist(), "y": np.mean(curves, axis=0).tolist()} if curves else {"x": [], "y": []}


def columns(records: Sequence[Record], model: str, method: str, threshold: float | None) -> dict[str, Column]:
    """One column a measure. largest and colour_largest: own word has the largest sum in its region, of all words."""
    takes: dict[str, Take] = {
        "ap": _of("object", "ap"),
        **({} if threshold is None else {"miou": _iou_at(threshold)}),
        "miou_04": _iou_at(DAAM_TAU),
        "pointing": _of("object", "pointing"),
        "mass_inside": _of("object", "mass_inside"),
        "leakage": _of("object", "leakage"),
        "largest": _of("object", "largest"),
        "largest_with_rivals": lambda model, kept: (
            _of("object", "largest")(model, kept) if model["content_words"] > 1 else []
        ),
        "colour_mass": _of("colour", "mass_inside"),
        "colour_largest": _of("colour", "largest"),
        "function_mass": lambda model, kept: [kept["function_mass"]],
    }
    return {name: column(records, model, method, take) for name, take in takes.items()}


def masks(records: Sequence[Record], model: str, method: str) -> dict[str, Interval]:
    """DAAM's average precision of binary masks at each of its thresholds, ``mask_ap_03`` …, and their mean."""
    judged = [record[model] for record in ran(records, model, method)]
    ious = [[np.array(_iou_at(t)(kept, kept["methods"][method]), np.float64).ravel() for t in TAUS] for kept in judged]
    if not ious:
        return {}
    matched = np.array([[hits(pairs).sum(0) for pairs in scene] for scene in ious])  # [n, taus, 10]
    counts = np.array([[scene[0].size] for scene in ious])

    def averaged(shares: NDArray[np.float64]) -> NDArray[np.float64]:
        return average_precision_of_masks(shares.reshape(*shares.shape[:-1], len(TAUS), -1)).mean(-1)

    return {"mask_ap": bootstrap_ratios(matched.reshape(len(judged), -1), counts, averaged)} | {
        f"mask_ap_{round(10 * tau):02d}": bootstrap_ratios(matched[:, at], counts, average_precision_of_masks)
        for at, tau in enumerate(TAUS)
    }


def differences(tables: dict[str, dict[str, Column]]) -> dict[str, Any]:
    """The exact method's measures minus each rival's, paired by scene; ``leakage_ratio``: its leakage over theirs."""
    if EXACT not in tables:
        return {}
    exact = tables[EXACT]
    return {
        rival: {"scenes": exact["ap"].shared(theirs["ap"])}
        | {key: exact[key].minus(theirs[key]) for key in exact if key in theirs}
        | {"leakage_ratio": exact["leakage"].over(theirs["leakage"])}
        for rival, theirs in tables.items()
        if rival != EXACT
    }


def _of(kind: str, name: str) -> Callable[[Record, Record], list[Any]]:
    """Takes what a record says under a name of the regions of a kind."""

    def take(model: Record, kept: Record) -> list[Any]:
        pairs = zip(model["regions"], kept["regions"], strict=True)
        return [numbers[name] for region, numbers in pairs if region["kind"] == kind]

    return take


def _iou_at(threshold: float) -> Take:
    at = int(np.abs(GRID - threshold).argmin())

    def take(model: Record, kept: Record) -> list[Any]:
        return [[curve[at] for curve in curves] for curves in _of("object", "iou")(model, kept)]

    return take


def _object_words(records: Sequence[Record], model: str, method: str, name: str) -> list[Any]:
    """What is kept under a name of every object word at every level."""
    judged = [record[model] for record in ran(records, model, method)]
    return [at for kept in judged for levels in _of("object", name)(kept, kept["methods"][method]) for at in levels]
