"""Logistic regression on a few features, and Platt's scaling of its scores: all that a calibration is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_NEWTON_STEPS = 50
_CLOSE = 1e-9


@dataclass(frozen=True)
class Logistic:
    """p = σ(w · (x − mean) / scale + bias), over features by name."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def logit(self, features: ArrayLike) -> NDArray[np.float64]:
        """``[n, features]`` in the order of ``names``, to ``[n]``."""
        x = (np.asarray(features, np.float64) - np.array(self.mean)) / np.array(self.scale)
        return x @ np.array(self.weights) + self.bias

    def probability(self, features: ArrayLike) -> NDArray[np.float64]:
        """``[n, features]`` to ``[n]`` in (0, 1)."""
        return sigmoid(self.logit(features))

    def to_dict(self) -> dict[str, Any]:
        """As JSON: for each feature, what it is measured against and weighs."""
        rows = zip(self.names, self.mean, self.scale, self.weights, strict=True)
        features = [{"name": name, "mean": m, "scale": s, "weight": w} for name, m, s, w in rows]
        return {"bias": self.bias, "features": features}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Logistic:
        """What ``to_dict`` gave."""
        rows = values["features"]
        mean, scale, weights = (tuple(float(row[key]) for row in rows) for key in ("mean", "scale", "weight"))
        return cls(tuple(str(row["name"]) for row in rows), mean, scale, weights, float(values["bias"]))


def sigmoid(x: ArrayLike) -> NDArray[np.float64]:
    """1 / (1 + exp(−x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64)))


def fit(names: tuple[str, ...], features: ArrayLike, drawn: ArrayLike, ridge: float = 1.0) -> Logistic:
    """The regression that explains ``drawn`` ``[n]`` bool by features ``[n, names]`` best, weights held small.

    ridge: λ of the penalty λ‖w‖²/2 on standardised features, beside the sum of log-losses. Newton's method, whose
    minimum is the only one. Raises ValueError where all words were drawn or none.
    """
    x, y = np.asarray(features, np.float64), np.asarray(drawn, np.float64)
    if len(set(y.tolist())) < 2:
        raise ValueError("a calibration needs words that were drawn and words that were not")
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    design = np.hstack([(x - mean) / scale, np.ones((len(x), 1))])
    penalty = np.diag([ridge] * x.shape[1] + [0.0])
    weights = _newton(design, y, penalty)
    return Logistic(
        names, tuple(mean.tolist()), tuple(scale.tolist()), tuple(weights[:-1].tolist()), float(weights[-1])
    )


def platt(logits: ArrayLike, drawn: ArrayLike) -> tuple[float, float]:
    """(a, b) of p = σ(a·logit + b) (Platt 1999), with his smoothed targets, which keep p from 0 and 1."""
    y = np.asarray(drawn, bool)
    positive, negative = int(y.sum()), int((~y).sum())
    target = np.where(y, (positive + 1) / (positive + 2), 1 / (negative + 2))
    design = np.stack([np.asarray(logits, np.float64), np.ones(len(y))], axis=1)
    a, b = _newton(design, target, np.zeros((2, 2)))
    return float(a), float(b)


def _newton(design: NDArray[np.float64], target: NDArray[np.float64], penalty: NDArray[np.float64]) -> Any:
    """Minimise Σ log-loss + wᵀ penalty w / 2; a step that does not help is halved."""

    def loss(w: NDArray[np.float64]) -> float:
        z = design @ w
        return float((np.logaddexp(0, z) - target * z).sum() + 0.5 * w @ penalty @ w)

    w = np.zeros(design.shape[1])
    tiny = 1e-10 * np.eye(len(w))
    for _ in range(_NEWTON_STEPS):
        p = sigmoid(design @ w)
        gradient = design.T @ (p - target) + penalty @ w
        hessian = (design * (p * (1 - p))[:, None]).T @ design + penalty + tiny
        step, here = np.linalg.solve(hessian, gradient), loss(w)
        length = 1.0
        while loss(w - length * step) > here and length > 1e-6:
            length /= 2
        w = w - length * step
        if np.abs(length * step).max() < _CLOSE:
            break
    return w
