"""The linear probe: multinomial logistic regression on standardised features, its L2 strength chosen on validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.features.probe.accuracy import Accuracy
from bcos_diffusion.features.probe.splits import Split, sound_split

STRENGTHS = tuple(10.0**power for power in range(1, -6, -1))
"""λ of the penalty λ‖W‖²/2 beside the mean log-loss, strongest first: 10 down to 1e-5."""

_MOST_STEPS = 200
_FLAT = 1e-5
_SMALLEST_SHARE = 1e-7


@dataclass(frozen=True)
class LinearProbe:
    """Logits of ``classes`` ``[K]`` (those seen in training): standardised features times ``weight`` plus ``bias``.

    weight: ``[D, K]``; bias: ``[K]``; mean, scale: ``[D]`` of training; all float32.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    classes: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Features ``[N, D]`` to ``[N, K]``."""
        return (features.float() - self.mean) / self.scale @ self.weight + self.bias

    def predict(self, features: Tensor) -> Tensor:
        """The likeliest class of each of the features ``[N, D]``: int64 ``[N]``."""
        return self.classes[self.logits(features).argmax(1)]


@dataclass(frozen=True)
class LinearResult:
    """A fitted probe with its accuracies. on_validation: for each strength tried, its accuracy there."""

    probe: LinearProbe
    strength: float
    on_validation: dict[float, float]
    validation: Accuracy
    test: Accuracy

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without the weights."""
        tried = [{"strength": strength, "top1": top1} for strength, top1 in self.on_validation.items()]
        return {
            "probe": "linear", "strength": self.strength, "tried": tried,
            "validation": self.validation.to_dict(), "test": self.test.to_dict(),
        }  # fmt: skip


def fit_linear(
    features: Tensor, labels: Tensor, classes: int, split: Split, strengths: tuple[float, ...] = STRENGTHS
) -> LinearResult:
    """Fit on ``split.train`` at each strength, keep the most accurate on validation, judge it on test.

    features: floats ``[N, D]``, pooled (``.mean((2, 3))``) or flattened; labels: int64 ``[N]``, -1 for images that are
    left out. Of equal accuracies the one of smaller log-loss on validation is kept. The minimum of a strength is the
    only one, and is sought by L-BFGS from zero weights on, so nothing is random. Scikit-learn's C is 1 / (λ N). Raises
    ValueError for features, labels or splits that cannot be learned from (:func:`sound_split`), no strengths, and
    strengths not above 0.
    """
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"strengths must be one or more numbers above 0, got {strengths}")
    labels = labels.cpu()
    split = sound_split(features, labels, classes, split, dims=2)
    parts = {name: features[part.to(features.device)].float() for name, part in split.parts().items()}
    truth = {name: labels[part] for name, part in split.parts().items()}
    seen = truth["train"].unique()  # sorted
    target = torch.searchsorted(seen, truth["train"]).to(features.device)
    best: LinearResult | None = None
    best_key = (-1.0, 0.0)
    tried: dict[float, float] = {}
    for strength, probe in _path(parts["train"], target, seen.to(features.device), strengths):
        said = Accuracy(probe.predict(parts["validation"]).cpu(), truth["validation"], classes)
        tried[strength] = said.top1
        key = (said.top1, -_log_loss(probe, parts["validation"], truth["validation"]))
        if best is None or key > best_key:
            judged = Accuracy(probe.predict(parts["test"]).cpu(), truth["test"], classes)
            best, best_key = LinearResult(probe, strength, tried, said, judged), key
    assert best is not None
    return best


def _log_loss(probe: LinearProbe, features: Tensor, truth: Tensor) -> float:
    """The mean log-loss over images whose class training had."""
    truth = truth.to(features.device)
    known = torch.isin(truth, probe.classes)
    if not bool(known.any()):
        return 0.0
    target = torch.searchsorted(probe.classes, truth[known])
    return float(torch.nn.functional.cross_entropy(probe.logits(features[known]), target))


def _path(x: Tensor, target: Tensor, classes: Tensor, strengths: tuple[float, ...]) -> list[tuple[float, LinearProbe]]:
    """The probe at each strength, strongest first, each started where the last one ended."""
    mean, scale = x.mean(0), x.std(0, correction=0)
    # A feature that does not vary says nothing; what is left of it is rounding, which must not be blown up.
    scale = torch.where(scale > 1e-6 * x.abs().amax(0), scale, torch.inf)
    x = (x - mean) / scale
    basis = _span(x)
    z = x if basis is None else x @ basis  # [N, R]
    w, b = z.new_zeros(z.shape[1], len(classes)), z.new_zeros(len(classes))
    probes = []
    for strength in sorted(strengths, reverse=True):
        w, b = _minimise(z, target, strength, w, b)
        probes.append((strength, LinearProbe(w if basis is None else basis @ w, b, mean, scale, classes)))
    return probes


def _span(x: Tensor) -> Tensor | None:
    """An orthonormal basis ``[D, R]`` of the rows of ``x`` ``[N, D]`` where D > N; else None.

    The best weights lie in that span, since what lies outside costs and predicts nothing; and the penalty is the same
    in any orthonormal basis. So a fit over R ≤ N directions is exact, however many features there are.
    """
    if x.shape[1] <= x.shape[0]:
        return None
    values, vectors = torch.linalg.eigh((x @ x.T).double())
    kept = values > _SMALLEST_SHARE * values[-1].clamp(min=1e-30)
    return x.T @ (vectors[:, kept] / values[kept].sqrt()).to(x.dtype)


def _minimise(z: Tensor, target: Tensor, strength: float, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """argmin of mean log-loss + strength ‖w‖²/2 over w ``[R, K]`` and b ``[K]``, from where they are."""
    w, b = w.clone().requires_grad_(), b.clone().requires_grad_()
    rows = torch.arange(len(z), device=z.device)
    optimiser = torch.optim.LBFGS(
        [w, b], max_iter=_MOST_STEPS, tolerance_grad=_FLAT, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    @torch.no_grad()
    def loss() -> Tensor:
        log_p = torch.log_softmax(torch.addmm(b, z, w), 1)
        value = -log_p[rows, target].mean() + strength / 2 * (w * w).sum()
        residual = log_p.exp_()
        residual[rows, target] -= 1
        residual /= len(z)
        w.grad, b.grad = torch.addmm(w, z.T, residual, beta=strength), residual.sum(0)
        return value

    optimiser.step(loss)
    return w.detach(), b.detach()
