"""Components of several layers and timesteps of a store, turned so that their colours agree as far as they can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from bcos_diffusion.features.key import Key
from bcos_diffusion.features.pca import PrincipalComponents, fit_components
from bcos_diffusion.features.store import FeatureStore

_AT_ONCE = 128


class _Stored:
    """The features of a key of the first images, read from the disk a batch at a time, as often as they are wanted."""

    def __init__(self, store: FeatureStore, key: Key, count: int):
        self.store, self.key, self.count = store, key, count

    def __iter__(self) -> Iterator[Tensor]:
        for first in range(0, self.count, _AT_ONCE):
            yield self.store.read(*self.key, slice(first, min(first + _AT_ONCE, self.count)))


def fits_of(
    store: FeatureStore,
    keys: Sequence[Key],
    images: Sequence[int] | slice,
    advance: Callable[[], object] = lambda: None,
    fitted: int | None = None,
) -> dict[Key, PrincipalComponents]:
    """Fit each key over the images of the store; all but the first are turned to the first, by what they say of some.

    images: by which they are turned; fitted: how many are fitted on, all by default. Raises ValueError for pooled
    features.
    """
    if store.pooled:
        raise ValueError(f"the features in {store.folder} are pooled and have no places; extract with --spatial")
    found: dict[Key, PrincipalComponents] = {}
    first: Tensor | None = None
    for key in keys:
        fit = fit_components(_Stored(store, key, len(store) if fitted is None else min(fitted, len(store))))
        own = fit.scores(store.read(*key, images))
        if first is None:
            first = own
        found[key] = fit.aligned(own, first)
        advance()
    return found


def tensors(fits: Mapping[Key, PrincipalComponents]) -> dict[str, Tensor]:
    """Everything of the fits by ``layer|t|conditioning|name``, in the order of red, green and blue."""
    names = ("mean", "directions", "explained", "low", "high")
    return {
        "|".join(map(str, [*key, name])): torch.as_tensor(getattr(fit, name))
        for key, fit in fits.items()
        for name in names
    }
