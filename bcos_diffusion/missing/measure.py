"""Does the explanation of a word tell that its object was not drawn, and while drawing? Numbers of test pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.evaluation.statistics import bootstrap
from bcos_diffusion.missing.calibration import Calibration
from bcos_diffusion.missing.fit import features_of
from bcos_diffusion.missing.heat import HEAT_NAMES
from bcos_diffusion.missing.judged import Judged
from bcos_diffusion.missing.observe import SHARES
from bcos_diffusion.missing.separation import Words, flat_auroc, separation

CLEAR = (0.05, 0.6)
"""Between these shares of its usual area an object is half there: the judge, too, is unsure of it."""

Score = Callable[[Judged, int], Sequence[float]]


def measure(
    judged: Sequence[Judged], exact: Calibration, heat: Calibration, segmenter: Segmenter, steps: int
) -> dict[str, Any]:
    """How well each score tells drawn from missing objects, at each moment, with 95% intervals over pictures.

    judged: test pictures; exact, heat: calibrations on validation pictures, of contributions and of attention; steps:
    of a whole run. ``at`` has one entry per moment, by step; ``judge`` is the segmenter on what is predicted then:
    the truth at the end, and early no more than what can be seen already. ``clear_auroc`` leaves out the objects that
    are half there.
    """
    drawn = [d for one in judged for d in one.drawn]
    scores: dict[str, Score] = {
        "exact": _calibrated(exact, "exact"),
        "exact_share": lambda one, moment: one.seen.exact[moment, :, 1].tolist(),
        "mass": lambda one, moment: one.seen.mass[moment].tolist(),
        "daam": _calibrated(heat, "heat"),
        "daam_max": _heat("max"),
        "daam_mean": _heat("mean"),
        "judge": lambda one, moment: one.areas[moment],
    }
    at = {
        str(round(share * steps)): {name: _judge(judged, score, moment, name) for name, score in scores.items()}
        for moment, share in enumerate(SHARES)
    }
    return {
        "pictures": len(judged),
        "objects": len(drawn),
        "missing": drawn.count(False),
        "judge": segmenter.name,
        "calibration": exact.fitted,
        "at": at,
    }


def _calibrated(calibration: Calibration, source: str) -> Score:
    def score(one: Judged, moment: int) -> Sequence[float]:
        checkpoint = calibration.checkpoints[moment]
        return [float(p) for p in checkpoint.probability(features_of(one, source)[moment].numpy())]

    return score


def _heat(name: str) -> Score:
    column = HEAT_NAMES.index(name)
    return lambda one, moment: one.seen.heat[moment, :, column].tolist()


def _judge(judged: Sequence[Judged], score: Score, moment: int, name: str) -> dict[str, Any]:
    pictures: list[Words] = []
    clear: list[Words] = []
    for one in judged:
        words = list(zip(score(one, moment), one.drawn, strict=True))
        pictures.append(words)
        clear.append([w for w, area in zip(words, one.areas[-1], strict=True) if not CLEAR[0] < area < CLEAR[1]])
    found = separation(pictures, probabilities=name in ("exact", "daam"))
    return found | {"clear_auroc": bootstrap(clear, flat_auroc)}
