"""DAAM's score of binary masks: average precision over pairs of a word's mask and its true one.

The paper (§3.1) cuts every heat map at τ of its maximum (Eq. 8, τ ∈ {0.3, 0.4, 0.5}), pairs it with the annotated mask
of the same noun and computes "the final average precision over the prediction-ground truth mask pairs, as is standard
in instance segmentation", which is COCO's mean over IoU thresholds 0.50, 0.55, …, 0.95. Its table does not fit this: a
random half of the image has there an "AP" of 14 to 18, though no such mask can reach an IoU of 0.5 with an object of
less than all of the image, so COCO's is 0; its published code computes the mean IoU of the pairs. So mean IoU at the
same τ is what compares with that table (``miou_04``), and what is written down is here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

TAUS = (0.3, 0.4, 0.5)
IOU_THRESHOLDS = np.arange(10, 20) / 20
_RECALLS = np.arange(101) / 100


def hits(ious: ArrayLike) -> NDArray[np.float64]:
    """Which pairs match at each of COCO's thresholds: ``[k]`` to ``[k, 10]``, 1 or 0."""
    return np.asarray(np.asarray(ious, np.float64)[:, None] >= IOU_THRESHOLDS, np.float64)


def average_precision_of_masks(shares: ArrayLike) -> NDArray[np.float64]:
    """COCO's AP from the share of pairs that match at each threshold: ``[..., 10]`` to ``[...]``.

    There is one mask a truth, and masks have no confidence to rank them by: they are one step of the curve, at which
    precision and recall are both the share h of matches. So precision is h up to recall h and 0 beyond, read at
    COCO's 101 recalls.
    """
    h = np.asarray(shares, np.float64)
    # Recalls and h are ratios of small integers, and 0.29 * 100 is not 29: a recall that h reaches counts.
    reached = (h[..., None] + 1e-9 >= _RECALLS).mean(-1)
    return np.asarray((h * reached).mean(-1))
