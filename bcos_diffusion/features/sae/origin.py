"""Which features an autoencoder was trained on: so that what reads it need not be told again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bcos_diffusion.features.key import Key
from bcos_diffusion.features.store import FeatureStore
from bcos_diffusion.features.stored_rows import StoredRows
from bcos_kernels.files import read_json, write_json

FORMAT = "bcos_diffusion.sae.source/1"
SOURCE = "source.json"


@dataclass(frozen=True)
class Origin:
    """features: the folder of an extraction; digest: SHA-256 of all that it depends on; subject: what tells its model.

    places: whether each place of a layer is a sample, and not the mean over places.
    """

    features: str
    digest: str
    subject: dict[str, Any]
    layer: str
    t: int
    conditioning: str
    places: bool

    @classmethod
    def of(cls, store: FeatureStore, key: Key, places: bool) -> Origin:
        """Of features as they are in a store."""
        subject = dict(store.index["subject"])
        return cls(str(store.folder.resolve()), digest(store), subject, *key, places)

    @classmethod
    def read(cls, folder: Path) -> Origin:
        """Of an autoencoder in a folder. Raises FileNotFoundError where there is no note, ValueError for a bad one."""
        path = folder / SOURCE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is no folder of `features sae`: there is no {SOURCE}")
        values = read_json(path)
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not of the format {FORMAT!r}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"{path} is damaged: {error}") from None

    def note(self, folder: Path) -> None:
        """Write this down where an autoencoder will be; where it was before, but for the place of the features.

        Raises ValueError, saying what differs, for a folder of another origin.
        """
        if (folder / SOURCE).exists():
            before, now = asdict(Origin.read(folder)), asdict(self)
            names = [n for n in now if n not in ("features", "subject") and before[n] != now[n]]
            if names:
                told = ", ".join(f"{n} {before[n]!r}, not {now[n]!r}" for n in names)
                raise ValueError(f"{folder} has an autoencoder of other features: {told}; choose another --out")
        write_json(folder / SOURCE, {"format": FORMAT, **asdict(self)})

    @property
    def key(self) -> Key:
        """Layer, timestep and conditioning."""
        return Key(self.layer, self.t, self.conditioning)

    def rows(self, features: Path | None = None) -> StoredRows:
        """The features again, from where they were or another folder. Raises ValueError where they have changed."""
        store = FeatureStore(self.features if features is None else features)
        if digest(store) != self.digest:
            raise ValueError(f"{store.folder} holds other features than those the autoencoder was trained on")
        return StoredRows(store, self.key, self.places)


def digest(store: FeatureStore) -> str:
    """SHA-256 of everything that the features of a store depend on."""
    told = {name: value for name, value in store.index.items() if name not in ("provenance", "shards")}
    return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
