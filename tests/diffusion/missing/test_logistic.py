"""Regression and Platt's scaling reach the minimum that a plain gradient descent finds."""

import numpy as np
import pytest
import torch

from bcos_diffusion.missing import logistic


def _words(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 3)) * [1.0, 5.0, 0.1] + [0.0, 2.0, -1.0]
    return x, rng.random(count) < logistic.sigmoid(1.5 * x[:, 0] - 0.3 * x[:, 1] + 0.5)


def _descend(design: torch.Tensor, target: torch.Tensor, ridge: float) -> torch.Tensor:
    w = torch.zeros(design.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(design @ w, target, reduction="sum")
        loss = loss + ridge * w[:-1].pow(2).sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return w.detach()


def test_fit_is_the_minimum() -> None:
    x, y = _words()
    found = logistic.fit(("a", "b", "c"), x, y, ridge=2.0)
    design = torch.tensor(np.hstack([(x - x.mean(0)) / x.std(0), np.ones((len(x), 1))]))
    expected = _descend(design, torch.tensor(y, dtype=torch.float64), ridge=2.0)
    assert np.allclose([*found.weights, found.bias], expected.numpy(), atol=1e-5)
    assert np.allclose(found.logit(x), (design @ expected).numpy(), atol=1e-4)
    assert np.allclose(found.probability(x), 1 / (1 + np.exp(-found.logit(x))))


def test_platt_undoes_overconfidence() -> None:
    x, y = _words(4000)
    logits = 1.5 * x[:, 0] - 0.3 * x[:, 1] + 0.5
    a, b = logistic.platt(3 * logits - 1, y)
    assert abs(a - 1 / 3) < 0.04 and abs(b - 1 / 3) < 0.15
    positive, negative = y.sum(), (~y).sum()
    target = torch.tensor(np.where(y, (positive + 1) / (positive + 2), 1 / (negative + 2)))
    design = torch.tensor(np.stack([3 * logits - 1, np.ones(len(y))], 1))
    assert np.allclose([a, b], _descend(design, target, ridge=0.0).numpy(), atol=1e-4)


def test_dict_and_mistakes() -> None:
    x, y = _words()
    found = logistic.fit(("push", "a", "share"), x, y)
    assert logistic.Logistic.from_dict(found.to_dict()) == found
    assert np.isfinite(logistic.fit(("same",), np.ones((300, 1)), y).logit([[1.0]])).all()
    with pytest.raises(ValueError, match="drawn and words that were not"):
        logistic.fit(("a", "b", "c"), x, np.ones(len(x)))
