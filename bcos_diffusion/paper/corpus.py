"""Captions by number, with their pictures where there are any: training scenes, or a file of text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.scenes import Scenes

FORMATS = (".txt", ".json", ".jsonl", ".parquet")


class Corpus(Protocol):
    """What a table is made over. Item i is always the same caption."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> tuple[NDArray[np.uint8] | None, list[str]]:
        """Images ``[N, H, W, 3]``, None where the corpus has none, and captions."""
        ...

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON-ready values; corpora that differ differ in it."""
        ...


@dataclass(frozen=True)
class SceneCaptions:
    """The first ``count`` training scenes with their captions."""

    size: int
    count: int

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Sequence[int]) -> tuple[NDArray[np.uint8] | None, list[str]]:
        return Scenes(size=self.size, length=self.count).batch(indices)

    def describe(self) -> dict[str, Any]:
        return {"corpus": "scenes", "split": "train", "size": self.size}


@dataclass(frozen=True)
class TextCaptions:
    """The captions of a file, without pictures."""

    name: str
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.captions)

    def batch(self, indices: Sequence[int]) -> tuple[NDArray[np.uint8] | None, list[str]]:
        return None, [self.captions[i] for i in indices]

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256("\n".join(self.captions).encode()).hexdigest()
        return {"corpus": self.name, "sha256": digest}


def read_captions(path: Path, column: str, count: int) -> TextCaptions:
    """The first ``count`` captions of a file: a line each (.txt), a JSON list of texts or objects, .jsonl, .parquet.

    column: the field of objects and tables that holds the caption. Blank captions are left out. Raises OSError for a
    file that cannot be read and ValueError for one without captions, or of another kind.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"{path} must be one of {', '.join(FORMATS)}")
    found = _parquet(path, column) if path.suffix == ".parquet" else _text(path, column)
    captions = tuple(" ".join(caption.split()) for caption in found if caption.strip())[:count]
    if not captions:
        raise ValueError(f"{path} has no captions")
    return TextCaptions(path.name, captions)


def _text(path: Path, column: str) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".txt":
            return text.splitlines()
        items = json.loads(text) if path.suffix == ".json" else [json.loads(s) for s in text.splitlines() if s.strip()]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix}: {error}") from None
    if not isinstance(items, list):
        raise ValueError(f"{path} must hold a list of captions, got {type(items).__name__}")
    return [_field(path, item, column) for item in items]


def _field(path: Path, item: Any, column: str) -> str:
    value = item.get(column) if isinstance(item, dict) else item
    if not isinstance(value, str):
        raise ValueError(f"{path} has an entry without a text {column!r}: {str(item)[:80]}")
    return value


def _parquet(path: Path, column: str) -> list[str]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ValueError("reading .parquet needs pyarrow: pip install pyarrow") from None
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        values = parquet.read_table(path, columns=[column]).column(column).to_pylist()
    except (ArrowException, KeyError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]} (column {column!r})") from None
    return [value for value in values if isinstance(value, str)]
