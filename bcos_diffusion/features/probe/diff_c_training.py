"""How Diff-C is trained on fixed features: the paper's recipe, and one for the small maps of small models."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bcos_diffusion.features.probe.accuracy import Accuracy
from bcos_diffusion.features.probe.diff_c import DiffC
from bcos_diffusion.features.probe.splits import Split, sound_split


@dataclass(frozen=True)
class Recipe:
    """How Diff-C learns. The rate falls from ``rate`` to ``last_rate`` over the epochs along half a cosine (AdamW).

    The numbers here suit the small maps, up to 16 x 16, of a few thousand images: narrower by 16 than the paper's,
    at ten times its rate, in less than half its epochs. Raises ValueError for numbers under 1 (width, epochs, batch),
    rates not above 0, a rate that rises, and a decay below 0.
    """

    width: int = 64
    epochs: int = 12
    batch: int = 16
    rate: float = 1e-3
    last_rate: float = 5e-5
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if min(self.width, self.epochs, self.batch) < 1:
            raise ValueError(
                f"width, epochs and batch must be at least 1, got {self.width}, {self.epochs}, {self.batch}"
            )
        if not 0 < self.last_rate <= self.rate or self.weight_decay < 0:
            raise ValueError(
                f"rates must be above 0 and not rise, the decay not below 0, got rate {self.rate}, "
                f"last_rate {self.last_rate}, weight_decay {self.weight_decay}"
            )


PAPER = Recipe(width=1024, epochs=30, batch=16, rate=1e-4, last_rate=5e-5)
"""Section 4.1 of Revelio. The decay, which it does not name, is AdamW's own, as in the authors' code."""


@dataclass(frozen=True)
class DiffCResult:
    """A trained Diff-C with its accuracies. epochs: for each, mean training loss and accuracy on validation."""

    network: DiffC
    recipe: Recipe
    seed: int
    chosen_epoch: int
    epochs: tuple[dict[str, float], ...]
    validation: Accuracy
    test: Accuracy

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without the weights."""
        return {
            "probe": "diff-c", "recipe": asdict(self.recipe), "seed": self.seed, "chosen_epoch": self.chosen_epoch,
            "epochs": list(self.epochs), "validation": self.validation.to_dict(), "test": self.test.to_dict(),
        }  # fmt: skip


def train_diff_c(
    features: Tensor,
    labels: Tensor,
    classes: int,
    split: Split,
    seed: int,
    recipe: Recipe = Recipe(),
    views: Sequence[Tensor] = (),
) -> DiffCResult:
    """Train on ``split.train``, keep the epoch most accurate on validation, judge that one on test, once.

    features: floats ``[N, D, H, W]``, where they are trained on (CPU or GPU); labels: int64 ``[N]``, -1 for images that
    are left out; views: features of the same images seen in other ways, each of the shape of ``features``. The paper
    crops and flips images anew in each epoch and runs the diffusion model on each. Features here are fixed: nothing is
    cropped or flipped, since a flipped map is not the map of the flipped image in a network that knows positions. A
    caller who wants that gives the features of flipped, cropped or otherwise noised images as views, and each draw of a
    training image takes one at random; validation and test see ``features`` alone.

    Of equally accurate epochs the one of smaller loss on validation is kept. A seed gives the same result to the last
    digit on one machine with one number of threads. Raises ValueError for features, labels or splits that cannot be
    learned from (:func:`sound_split`), and for views of another shape.
    """
    labels = labels.cpu()
    split = sound_split(features, labels, classes, split, dims=4)
    for view in views:
        if view.shape != features.shape:
            raise ValueError(f"views must be {list(features.shape)} as the features, got {list(view.shape)}")
        sound_split(view, labels, classes, split, dims=4)
    network = _fresh(features.shape[1], classes, recipe.width, seed).to(features.device)
    told: list[dict[str, float]] = []
    best, best_key, chosen = network, (-1.0, 0.0), 0
    # Only the deterministic kernels of cuDNN; the CPU's are.
    with torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        for epoch, loss in enumerate(_epochs(network, [features, *views], labels, split.train, seed, recipe), start=1):
            top1, validation_loss = _on(network, features, labels, split.validation)
            told.append({"loss": loss, "validation_top1": top1, "validation_loss": validation_loss})
            if (top1, -validation_loss) > best_key:
                best, best_key, chosen = copy.deepcopy(network), (top1, -validation_loss), epoch
        validation, test = (
            Accuracy(best.predict(features[part.to(features.device)]), labels[part], classes)
            for part in (split.validation, split.test)
        )
    return DiffCResult(best.eval(), recipe, seed, chosen, tuple(told), validation, test)


def _fresh(channels: int, classes: int, width: int, seed: int) -> DiffC:
    """An untrained network whose weights are the seed's own; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiffC(channels, classes, width)


def _epochs(
    network: DiffC, views: list[Tensor], labels: Tensor, train: Tensor, seed: int, recipe: Recipe
) -> Iterator[float]:
    """Train ``network`` for an epoch at each step of the iteration; gives the mean loss."""
    device = views[0].device
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs, recipe.last_rate)
    for _ in range(recipe.epochs):
        network.train()
        total = torch.zeros((), device=device)
        for rows in _batches(train[torch.randperm(len(train), generator=generator)], recipe.batch):
            x = _drawn(views, rows, generator)
            loss = F.cross_entropy(network(x), labels[rows].to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(rows)
        schedule.step()
        yield float(total) / len(train)


def _batches(rows: Tensor, size: int) -> list[Tensor]:
    """``rows`` in parts of ``size``; a last one alone joins those before it, since a batch of one has no variance."""
    parts = list(rows.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _drawn(views: list[Tensor], rows: Tensor, generator: torch.Generator) -> Tensor:
    """One view of each image, at random: float32 ``[rows, D, H, W]``."""
    device = views[0].device
    if len(views) == 1:
        return views[0][rows.to(device)].float()
    which = torch.randint(len(views), (len(rows),), generator=generator).tolist()
    return torch.stack([views[view][row] for view, row in zip(which, rows.tolist(), strict=True)]).float()


def _on(network: nn.Module, features: Tensor, labels: Tensor, part: Tensor) -> tuple[float, float]:
    """Accuracy and mean loss on a part."""
    assert isinstance(network, DiffC)
    logits = torch.cat(network.evaluate(features[part.to(features.device)]))
    truth = labels[part].to(features.device)
    return float((logits.argmax(1) == truth).double().mean()), float(F.cross_entropy(logits, truth))
