"""Which model features were read from, beside them, so that what explains them finds it again.

The place of a model is no setting: the same weights elsewhere are the same model, which is told by their hash.
"""

from __future__ import annotations

from pathlib import Path

from bcos_diffusion.features.store import FeatureStore
from bcos_diffusion.features.subject import Subject, load_subject
from bcos_diffusion.shipped import SHIPPED, locate, names, require_weights
from bcos_kernels.files import read_json, write_json

RECORD = "model.json"


def load(source: str | None, device: str) -> Subject:
    """A subject by folder, hub id or name in the package; the package's first without a source.

    Raises as :func:`~bcos_diffusion.features.subject.load_subject`, and ValueError where a library is missing.
    """
    if source is None:
        require_weights(SHIPPED)
    try:
        return load_subject(SHIPPED if source is None else source, device=device)
    except ImportError as error:
        raise ValueError(str(error)) from None


def write_record(out: Path, source: str | None) -> None:
    """Note where the model of an extraction is."""
    found = SHIPPED.name if source is None else source
    if found not in names() and locate(found).is_dir():
        found = str(locate(found).resolve())
    write_json(out / RECORD, {"model": found})


def source_of(store: FeatureStore) -> str | None:
    """Where the model of an extraction was; None where nobody noted it."""
    path = store.folder / RECORD
    return str(read_json(path)["model"]) if path.is_file() else None


def load_again(store: FeatureStore, source: str | None = None, device: str = "cpu") -> Subject:
    """The model that features were read from, from where it was or from ``source``.

    Raises ValueError for another model, saying what differs, and where nothing says which it was.
    """
    known = source_of(store) if source is None else source
    if known is None:
        raise ValueError(f"{store.folder} does not say where its model is; name it by --model")
    subject = load(known, device)
    before, now = store.index["subject"], subject.settings()
    if differing := [name for name in before if name != "name" and before[name] != now.get(name)]:
        told = ", ".join(f"{name} {before[name]!r}, not {now.get(name)!r}" for name in differing)
        raise ValueError(f"the features in {store.folder} were read from another model than {known}: {told}")
    return subject
