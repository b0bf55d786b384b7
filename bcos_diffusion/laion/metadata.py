"""Parquet files of metadata: where they are, which of their columns mean what, and their rows in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 65_536

# Names that a column may have, in any case; the first ones are those of LAION-2B-en-aesthetics.
REQUIRED = {"url": ("url",), "caption": ("text", "caption"), "similarity": ("similarity",)}
EXTRAS = ("width", "height", "punsafe", "pwatermark", "aesthetic")

# What reading raises for a file that is damaged, is out of reach or has other columns.
UNREADABLE: tuple[type[Exception], ...] = (OSError, ValueError, pa.ArrowException)


@dataclass(frozen=True)
class Source:
    """A parquet file as fsspec names it, and what changes when it does."""

    path: str
    size: int
    stamp: str


def find_sources(places: Sequence[str]) -> list[Source]:
    """The parquet files of paths, folders (searched to the bottom) and globs, each once, sorted.

    A place is local or a URL of any file system that fsspec knows, such as ``hf://datasets/NAME``.
    Raises FileNotFoundError where there is none and OSError where a place cannot be listed.
    """
    found: dict[str, Source] = {}
    for place in places:
        try:
            files = _list(place)
        except Exception as error:  # file systems behind a network raise what their clients raise
            raise OSError(f"cannot list {place}: {error}") from error
        if not files:
            raise FileNotFoundError(f"{place}: no parquet file there")
        found.update((source.path, source) for source in files)
    return [found[path] for path in sorted(found)]


def _list(place: str) -> list[Source]:
    system, path = fsspec.core.url_to_fs(place)
    if system.isdir(path):
        paths = [name for name in system.find(path) if _is_shown(name[len(path) :])]
    elif any(sign in path for sign in "*?["):
        paths = [name for name in system.glob(path) if system.isfile(name)]
    else:
        paths = [path] if system.exists(path) else []
    sources = []
    for name in paths:
        about = system.info(name)
        stamp = next((str(about[k]) for k in ("mtime", "ETag", "etag", "blob_id", "LastModified") if k in about), "")
        sources.append(Source(system.unstrip_protocol(name), int(about["size"]), stamp))
    return sources


def _is_shown(below: str) -> bool:
    parts = below.strip("/").split("/")
    return parts[-1].endswith(".parquet") and not any(part.startswith(".") for part in parts)


def read_batches(source: Source, extras: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """Batches of at most ``rows`` rows with columns url, caption (text), similarity and ``extras`` (float64).

    Only these columns are read, a buffer at a time; an extra that the file lacks is null. Raises one of
    :data:`UNREADABLE`; ValueError for a file without the columns says which it has.
    """
    try:
        yield from _batches(source, extras, rows)
    except UNREADABLE:
        raise
    except Exception as error:  # of the client of a network; those of local files are mistakes of ours
        if source.path.startswith("file://"):
            raise
        raise OSError(f"{type(error).__name__}: {error}") from error


def _batches(source: Source, extras: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    system, path = fsspec.core.url_to_fs(source.path)
    with system.open(path, "rb") as file, pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as parquet:
        names = _columns(parquet.schema_arrow, extras)
        wanted = [name for name in names.values() if name is not None]
        for batch in parquet.iter_batches(batch_size=rows, columns=wanted):
            yield pa.record_batch(
                [_cast(batch, name, pa.string() if kind in ("url", "caption") else pa.float64())
                 for kind, name in names.items()],
                names=list(names),
            )  # fmt: skip


def _columns(schema: Any, extras: Sequence[str]) -> dict[str, str | None]:
    """The name in the file of each column that we read."""
    lower: dict[str, str] = {}
    for name in schema.names:
        lower.setdefault(name.lower(), name)
    names: dict[str, str | None] = {
        kind: next((lower[s] for s in spellings if s in lower), None) for kind, spellings in REQUIRED.items()
    }
    has = f"it has {', '.join(schema.names) or 'no columns'}"
    missing = [
        " or ".join(spelling.upper() for spelling in REQUIRED[kind]) for kind, name in names.items() if name is None
    ]
    if missing:
        raise ValueError(f"no column {', '.join(missing)} (in any case); {has}")
    for kind, name in names.items():
        field = schema.field(name).type
        if not (_is_number(field) if kind == "similarity" else _is_text(field)):
            raise ValueError(f"column {name} holds {field}, not {'numbers' if kind == 'similarity' else 'text'}")
    for extra in extras:
        name = lower.get(extra)
        names[extra] = name if name is not None and _is_number(schema.field(name).type) else None
    return names


def _is_text(field: Any) -> bool:
    inner = field.value_type if pa.types.is_dictionary(field) else field
    return any(
        test(inner)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
    )


def _is_number(field: Any) -> bool:
    return pa.types.is_floating(field) or pa.types.is_integer(field) or pa.types.is_decimal(field)


def _cast(batch: pa.RecordBatch, name: str | None, target: pa.DataType) -> pa.Array:
    if name is None:
        return pa.nulls(batch.num_rows, target)
    column = batch.column(name)
    # Text is not checked here: a single caption that is not UTF-8 must not cost the whole file.
    return column if column.type == target else column.cast(target, safe=False)
