"""One layer at one timestep under one conditioning: what a single question is asked of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from bcos_diffusion.features.store import FeatureStore

T = TypeVar("T", str, int)


class Key(NamedTuple):
    """Which features of a store."""

    layer: str
    t: int
    conditioning: str

    def __str__(self) -> str:
        return f"{self.layer} at t = {self.t}, {self.conditioning}"


def choose(store: FeatureStore, layer: str | None, t: int | None, conditioning: str | None) -> Key:
    """What is asked for, or where nothing is said the only one there is. Raises ValueError, listing what there is."""
    return Key(
        _one(store, "layer", "layer", layer, store.layers),
        _one(store, "timestep", "t", t, store.timesteps),
        _one(store, "conditioning", "conditioning", conditioning, store.conditionings),
    )


def choose_many(
    store: FeatureStore, layers: Sequence[str], timesteps: Sequence[int], conditioning: str | None
) -> list[Key]:
    """Every layer asked for at every timestep asked for; all of them where none is named. Raises as :func:`choose`."""
    said = _one(store, "conditioning", "conditioning", conditioning, store.conditionings)
    named = [_one(store, "layer", "layers", name, store.layers) for name in dict.fromkeys(layers or store.layers)]
    at = [_one(store, "timestep", "t", t, store.timesteps) for t in dict.fromkeys(timesteps or store.timesteps)]
    return [Key(layer, t, said) for t in at for layer in named]


def _one(store: FeatureStore, what: str, option: str, asked: T | None, there: Sequence[T]) -> T:
    if asked is None and len(there) > 1:
        raise ValueError(
            f"there is more than one {what} in {store.folder}; name it by --{option}: {', '.join(map(str, there))}"
        )
    if asked is not None and asked not in there:
        raise ValueError(f"there is no {what} {asked!r} in {store.folder}, but {', '.join(map(str, there))}")
    return there[0] if asked is None else asked
