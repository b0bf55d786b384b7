"""Fit a calibration: which numbers of a contribution go with a drawn object, for one model, on validation pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.missing import logistic
from bcos_diffusion.missing.calibration import Calibration, Checkpoint, fingerprint
from bcos_diffusion.missing.features import NAMES
from bcos_diffusion.missing.heat import HEAT_NAMES
from bcos_diffusion.missing.judged import Judged
from bcos_diffusion.missing.observe import SHARES
from bcos_diffusion.pipeline import BcosDiffusionPipeline

FEATURES = {"exact": NAMES, "heat": HEAT_NAMES}
_FOLDS = 5
_LOST = 0.1


def fit(
    pipeline: BcosDiffusionPipeline, judged: Sequence[Judged], segmenter: Segmenter, source: str = "exact"
) -> Calibration:
    """Fit each moment of the run on judged validation pictures.

    source: "exact", the contributions, or "heat", attention, by the same recipe. Raises ValueError where every named
    object was drawn, or none.
    """
    checkpoints = tuple(_fit_moment(judged, moment, source) for moment in range(len(SHARES)))
    words = [drawn for one in judged for drawn in one.drawn]
    fitted: dict[str, Any] = {
        "source": source,
        "pictures": len(judged),
        "words": len(words),
        "missing": words.count(False),
        "judge": segmenter.name,
        "defaults": vars(pipeline.defaults),
    }
    return Calibration(pipeline.name, fingerprint(pipeline.model), checkpoints, fitted)


def features_of(one: Judged, source: str) -> Tensor:
    """The features ``[C, n, F]`` of a source."""
    return one.seen.exact if source == "exact" else one.seen.heat


def _fit_moment(judged: Sequence[Judged], moment: int, source: str) -> Checkpoint:
    rows = [features_of(one, source)[moment].numpy() for one in judged]
    features, drawn = np.concatenate(rows), np.array([d for one in judged for d in one.drawn])
    picture = np.repeat(np.arange(len(judged)), [len(one.drawn) for one in judged])
    names = FEATURES[source]
    # Scores of words that the regression has not seen, so that probabilities are not too sure of themselves.
    unseen = np.empty(len(drawn))
    for fold in range(_FOLDS):
        held = picture % _FOLDS == fold
        unseen[held] = logistic.fit(names, features[~held], drawn[~held]).logit(features[held])
    a, b = logistic.platt(unseen, drawn)
    abort = _abort_below(logistic.sigmoid(a * unseen + b), drawn, picture)
    return Checkpoint(SHARES[moment], logistic.fit(names, features, drawn), (a, b), abort)


def _abort_below(probability: NDArray[Any], drawn: NDArray[Any], picture: NDArray[Any]) -> float:
    """What the least likely word of a picture exceeds in all but a tenth of the pictures that become complete."""
    least = [float(probability[picture == p].min()) for p in np.unique(picture) if drawn[picture == p].all()]
    return float(np.quantile(least, _LOST)) if least else 0.0
