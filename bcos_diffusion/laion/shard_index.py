"""What a webdataset shard holds: usable images with their captions and places in the tar, and what is not usable."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bcos_diffusion.laion.images import decode
from bcos_kernels.files import read_json, write_json

FORMAT = 1
IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})

# As img2dataset writes the orientation of a file whose EXIF it then drops.
_ORIENTATIONS = {
    "Mirrored horizontal": 2,
    "Rotated 180": 3,
    "Mirrored vertical": 4,
    "Mirrored horizontal then rotated 90 CCW": 5,
    "Rotated 90 CW": 6,
    "Mirrored horizontal then rotated 90 CW": 7,
    "Rotated 90 CCW": 8,
}


class Sample(NamedTuple):
    """A usable image and its caption; ``orientation`` is EXIF's number, ``objects`` what it was selected for."""

    offset: int
    length: int
    caption: str
    orientation: int
    objects: list[str]


@dataclass(frozen=True)
class ShardIndex:
    """A shard's usable samples; (key, reason) of those that are not; what is wrong with the file, or nothing."""

    samples: list[Sample]
    skipped: list[tuple[str, str]]
    damage: str


def load_index(shard: Path, cache: Path | None) -> ShardIndex:
    """The index of a shard, from ``cache`` where it lies there, else made, every image decoded once, and put there.

    It is made again when the shard's name, size or time of change differ. Raises OSError when the shard
    or the cache cannot be accessed.
    """
    about = shard.stat()
    digest = hashlib.blake2b(f"{FORMAT} {shard.name} {about.st_size} {about.st_mtime_ns}".encode(), digest_size=8)
    path = None if cache is None else cache / f"{shard.stem}-{digest.hexdigest()}.json"
    if path is not None and path.exists():
        found = read_json(path)
        samples = [Sample(*sample) for sample in found["samples"]]
        return ShardIndex(samples, [(key, reason) for key, reason in found["skipped"]], found["damage"])
    index = make_index(shard)
    if path is not None:
        write_json(path, {"samples": index.samples, "skipped": index.skipped, "damage": index.damage})
    return index


def make_index(shard: Path) -> ShardIndex:
    """Read a shard from beginning to end. Raises OSError when it cannot be opened."""
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    samples: list[Sample] = []
    skipped: list[tuple[str, str]] = []
    with shard.open("rb") as file:
        damage = ""
        try:
            for name, offset, length in _members(file):
                folder, _, base = name.rpartition("/")
                stem, _, kind = base.partition(".")
                groups.setdefault(f"{folder}/{stem}" if folder else stem, {})[kind.lower()] = (offset, length)
        except tarfile.TarError as error:
            damage = str(error)
        for key, parts in groups.items():
            try:
                samples.append(_sample(file, parts))
            except ValueError as error:
                skipped.append((key, str(error)))
    return ShardIndex(samples, skipped, damage)


def _members(file: Any) -> Iterator[tuple[str, int, int]]:
    """Name, offset and length of every whole file in a tar; raises TarError, after the last, unless it ends well."""
    size = file.seek(0, 2)
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.offset_data + member.size > size:
                raise tarfile.ReadError(f"cut off in {member.name}")
            if member.isfile():
                yield member.name, member.offset_data, member.size
        # tarfile stops without a word at a header that is damaged or not there.
        file.seek(tar.offset)
        rest = file.read(1 << 20)
        if not rest:
            raise tarfile.ReadError("cut off: the mark of its end is missing")
        if rest.strip(b"\0"):
            raise tarfile.ReadError(f"damaged, or appended to, at byte {tar.offset}")


def _sample(file: Any, parts: dict[str, tuple[int, int]]) -> Sample:
    """Raises ValueError with the reason when image and caption are not both usable."""
    images = sorted(IMAGES & parts.keys())
    if not images:
        raise ValueError("no image")
    about = _sidecar(_read(file, parts["json"])) if "json" in parts else {}
    try:
        caption = _read(file, parts["txt"]).decode() if "txt" in parts else about.get("caption")
    except UnicodeDecodeError:
        raise ValueError("caption is not UTF-8") from None
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError("no caption")
    orientation = _orientation(about)
    decode(_read(file, parts[images[0]]), orientation)
    objects = about.get("objects")
    names = [str(name) for name in objects] if isinstance(objects, list) else []
    return Sample(*parts[images[0]], caption.strip(), orientation, names)


def _read(file: Any, where: tuple[int, int]) -> bytes:
    file.seek(where[0])
    return file.read(where[1])


def _sidecar(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _orientation(about: dict[str, Any]) -> int:
    exif = about.get("exif")
    tags = _sidecar(exif.encode()) if isinstance(exif, str) else {}
    return _ORIENTATIONS.get(str(tags.get("Image Orientation")), 1)
