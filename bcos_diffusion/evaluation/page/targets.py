"""What explanations must reach on the test scenes, and whether they did; nothing is rounded in our favour."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bcos_diffusion.evaluation.page.measures import ORACLE, OUR_EFFECT, OURS, RIVAL, TWIN, label
from bcos_diffusion.evaluation.page.results import Number, number_at, part, show

FULL = 1000
"""Scenes of the whole protocol."""


@dataclass(frozen=True)
class Target:
    """One line: what is asked, how much, what was measured. reached: None where it was not measured."""

    what: str
    bar: str
    measured: str
    reached: bool | None

    @property
    def verdict(self) -> str:
        """In a word or two."""
        return {True: "reached", False: "missed", None: "not measured"}[self.reached]


def targets(result: Any) -> list[Target]:
    """Every target, in the order of the issue that set them; what was not measured says so."""
    return [target for judge in _JUDGES for target in judge(result)]


def _judged(what: str, bar: str, measured: str, known: bool, reached: bool) -> Target:
    return Target(what, bar, measured if known else "", reached if known else None)


def _regime_a(result: Any, method: str, measure: str) -> Number:
    return number_at(result, "regime_a", "methods", method, measure)


def _localisation(result: Any) -> list[Target]:
    ours, theirs = (_regime_a(result, method, "miou") for method in (OURS, RIVAL))
    leaks, leaked = (_regime_a(result, method, "leakage") for method in (OURS, RIVAL))
    colour = _regime_a(result, OURS, "colour_mass")
    above, both = ours.value - theirs.value, ours.known and theirs.known
    apart = "apart" if ours.apart(theirs) else "not apart"
    return [
        _judged("mIoU of object words, real scenes", "≥ 65%", f"{ours.both(100)}%", ours.known, ours.value >= 0.65),
        _judged("mIoU of object words above DAAM's on the same network", "≥ 10 points, intervals disjoint",
                f"{show(above, 100)} points above {theirs.both(100)}%, intervals {apart}", both,
                above >= 0.10 and ours.low > theirs.high),
        _judged("leakage onto other objects", "≤ half of DAAM's",
                f"{leaks.both(100)}% against {leaked.both(100)}%", leaks.known and leaked.known,
                leaks.value <= leaked.value / 2),
        _judged("colour words, mass in the right region", "≥ 90%", f"{colour.both(100)}%", colour.known,
                colour.value >= 0.90),
    ]  # fmt: skip


def _faithfulness(result: Any) -> list[Target]:
    methods = part(result, "faithfulness", "one_step") or {}
    found = {method: number_at(methods, method, "drop", "spearman_token") for method in methods}
    ours, effect = (found.get(method, number_at({})) for method in (OURS, OUR_EFFECT))
    scenes = {method: number_at(methods, method, "scenes").value for method in methods}
    # Fewer scenes are other scenes: a rival that had an easier choice has not been better.
    rivals = {
        m: n for m, n in found.items()
        if m not in (OURS, OUR_EFFECT, ORACLE) and not m.endswith(TWIN) and n.known
        and not scenes[m] < scenes.get(OURS, 0.0)
    }  # fmt: skip
    first = max(rivals, key=lambda method: rivals[method].value, default="")
    next_best = f"{label(first)} {rivals[first].both(1, 2)}" if rivals else ""
    best = max((n for n in (ours, effect) if n.known), key=lambda n: n.value, default=ours)
    dropping = "Spearman with dropping a word, one step"
    return [
        _judged(f"{dropping}: exact contributions", "≥ 0.80", ours.both(1, 2), ours.known, ours.value >= 0.80),
        _judged(f"{dropping}: value × gradient", "≥ 0.80", effect.both(1, 2), effect.known, effect.value >= 0.80),
        _judged("Spearman above every rival's on the same scenes, but the oracle's", "the highest",
                f"{best.both(1, 2)}; the best rival: {next_best}", best.known and bool(rivals),
                bool(rivals) and best.value > rivals[first].value),
    ]  # fmt: skip


def _missing(result: Any) -> list[Target]:
    moments = part(result, "missing", "separation", "at") or {}

    def auroc(score: str, when: str) -> Number:
        return number_at(moments, when, score, "auroc")

    steps = sorted(map(int, moments))
    end, middle = (str(steps[-1]), str(steps[-2])) if len(steps) > 1 else ("", "")
    ours, early, theirs = auroc(OURS, end), auroc(OURS, middle), auroc("daam_max", end)
    name = "natural missing concepts, AUROC"
    return [
        _judged(f"{name} at the end", "≥ 0.90", ours.both(1, 2), ours.known, ours.value >= 0.90),
        _judged(f"{name} at step {middle or 10} of {end or 25}", "≥ 0.80", early.both(1, 2), early.known,
                early.value >= 0.80),
        _judged(f"{name} above that of DAAM's intensity", "higher", f"{ours.both(1, 2)} against {theirs.both(1, 2)}",
                ours.known and theirs.known, ours.value > theirs.value),
    ]  # fmt: skip


def beside_twin(result: Any) -> list[Target]:
    """What is asked of pictures beside those of the ordinary twin."""
    found = part(result, "quality") or {}
    judged = []
    for name in part(found, "model", "drawn", "frechet") or ("",):
        ours, twin = (number_at(found, model, "drawn", "frechet", name) for model in ("model", "twin"))
        times = ours.value / twin.value if twin.value else math.nan
        judged.append(
            _judged(f"Fréchet distance{f', features of {name}' if name else ''}", "≤ 1.3 × the ordinary twin's",
                    f"{show(times, 1, 2)} ×: {ours.both(1, 3)} against {twin.both(1, 3)}", not math.isnan(times),
                    times <= 1.3)
        )  # fmt: skip
    ours, twin = (number_at(found, model, "drawn", "objects") for model in ("model", "twin"))
    behind = twin.value - ours.value
    judged.append(
        _judged("named objects drawn", "within 5 points of the ordinary twin's",
                f"{ours.both(100)}% against {twin.both(100)}%", not math.isnan(behind), behind <= 0.05)
    )  # fmt: skip
    return judged


def _cost(result: Any) -> list[Target]:
    scenes, seconds = (number_at(result, *path).value for path in (("settings", "scenes"), ("seconds",)))
    on_gpu = part(result, "provenance", "machine", "type") == "cuda"
    limit = 600.0 if on_gpu else 3600 * 6.0
    measured = f"{show(scenes, 1, 0)} scenes in {show(seconds / 60, 1, 0)} min"
    known = scenes >= FULL and seconds > 0 and part(result, "complete") is not False
    bar = "≤ 10 min on one GPU" if on_gpu else "≤ 6 h on two cores"
    return [_judged("the whole protocol on 1,000 scenes", bar, measured, known, seconds <= limit)]


_JUDGES: tuple[Callable[[Any], list[Target]], ...] = (_localisation, _faithfulness, _missing, beside_twin, _cost)
