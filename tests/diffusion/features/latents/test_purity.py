"""Label purity as the paper defines it, against a plain loop, and its chance."""

import math
from collections import Counter
from statistics import mean, stdev

import pytest
import torch
from references.sparse_codes import dense, random_codes

from bcos_diffusion.features.latents.activations import Activations, collect
from bcos_diffusion.features.latents.purity import label_purity


def codes() -> tuple[Activations, torch.Tensor]:
    values, indices = random_codes(80, 15, 4, seed=2)
    return collect([(values, indices)], 15), dense(values, indices, 15)[0]


def test_purity_by_loops() -> None:
    activations, found = codes()
    labels = torch.randint(-1, 5, (80,), generator=torch.Generator().manual_seed(1))
    purity = label_purity(activations, labels, latents=6, images=8)
    rows = []
    for j in range(15):
        seen = [i for i in range(80) if found[i, j] > 0 and labels[i] >= 0]
        if len(seen) > 8:
            top = sorted(seen, key=lambda i: (-found[i, j].item(), i))[:8]
            rows.append((-mean(found[i, j].item() for i in seen), j, [labels[i].item() for i in top]))
    best = sorted(rows)[:6]
    assert purity.latents.tolist() == [j for _, j, _ in best]
    counts = [Counter(classes) for *_, classes in best]
    entropies = [-sum(n / 8 * math.log2(n / 8) for n in count.values()) for count in counts]
    assert purity.mean.sigma == pytest.approx(mean(stdev(classes) for *_, classes in best))
    assert purity.mean.majority == pytest.approx(mean(max(count.values()) / 8 for count in counts))
    assert purity.mean.entropy == pytest.approx(mean(entropies))
    assert purity.by_latent[:, 2].tolist() == pytest.approx(entropies)


def test_a_latent_a_class_is_pure_and_chance_is_not() -> None:
    labels = torch.arange(200) % 4
    activations = collect([(torch.rand(200, 1) + 0.1, labels[:, None])], 6)
    purity = label_purity(activations, labels)
    assert purity.mean.sigma == 0 and purity.mean.majority == 1 and purity.mean.entropy == 0
    assert purity.chance.sigma == pytest.approx((5 / 4) ** 0.5, abs=0.15) and purity.chance.majority < 0.6
    assert purity.spread.sigma > 0 and purity.latents.sort().values.tolist() == [0, 1, 2, 3]
    assert label_purity(activations, labels).chance == purity.chance
    assert label_purity(activations, labels, seed=1).chance != purity.chance


def test_shuffling_keeps_images_without_labels_out() -> None:
    activations, _ = codes()
    labels = torch.where(torch.arange(80) % 2 == 0, 3, -1)
    purity = label_purity(activations, labels, images=5)
    assert purity.chance.majority == 1 and purity.chance.entropy == 0 and len(purity.latents)


def test_no_latent_is_active_enough() -> None:
    activations, _ = codes()
    purity = label_purity(activations, torch.zeros(80, dtype=torch.long), images=79)
    assert len(purity.latents) == 0 and math.isnan(purity.mean.sigma) and math.isnan(purity.chance.entropy)


def test_labels_that_do_not_fit() -> None:
    activations, _ = codes()
    with pytest.raises(ValueError, match=r"int64 \[80\]"):
        label_purity(activations, torch.zeros(79, dtype=torch.long))
    with pytest.raises(ValueError, match="-1 for none, got -2"):
        label_purity(activations, torch.full((80,), -2))
