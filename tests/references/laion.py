"""Metadata and shards for tests, and the paper's selection by the plainest code there is."""

import io
import json
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = "a the Cat cats cat's cat2 category scat banana bananas goat tomcat écat GOATS sky on red dog photo".split()


def metadata(folder: Path, files: int = 4, rows: int = 500, seed: int = 0) -> list[dict[str, object]]:
    """Write parquet files as LAION's, with nulls, ties and repeated pairs; returns all rows."""
    draw = random.Random(seed)
    everything = []
    for number in range(files):
        lines: list[dict[str, object]] = []
        for _ in range(rows):
            caption = " ".join(draw.choices(WORDS, k=4))
            lines.append({
                "URL": None if draw.random() < 0.02 else f"http://host/{draw.randrange(300)}.jpg",
                "TEXT": draw.choice([None, ""]) if draw.random() < 0.04 else caption,
                "similarity": draw.choice([None, float("nan")]) if draw.random() < 0.04 else draw.randrange(40) / 40,
                "punsafe": None if draw.random() < 0.1 else draw.random(),
                "WIDTH": draw.randrange(20, 900),
            })  # fmt: skip
        lines += draw.sample(everything, min(20, len(everything)))
        everything += lines
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(lines), folder / f"part-{number}.parquet", row_group_size=200)
    return everything


def names(caption: str, forms: tuple[str, ...]) -> bool:
    """Whether a form stands in the caption without a letter on either side."""
    text = caption.lower()
    for form in forms:
        start = text.find(form)
        while start >= 0:
            before, after = text[:start][-1:], text[start + len(form) :][:1]
            if not before.isalpha() and not after.isalpha():
                return True
            start = text.find(form, start + 1)
    return False


def best_pairs(rows: list[dict[str, object]], forms: tuple[str, ...], limit: int) -> list[tuple[str, str, float]]:
    """(url, caption, similarity) of the most similar pairs, ties in no particular order."""
    found: dict[tuple[str, str], float] = {}
    for row in rows:
        url, caption, similarity = row["URL"], row["TEXT"], row["similarity"]
        if not url or not caption or similarity is None or similarity != similarity:
            continue
        assert isinstance(url, str) and isinstance(caption, str) and isinstance(similarity, float)
        if names(caption, forms):
            found[url, caption] = max(similarity, found.get((url, caption), -1.0))
    chosen = sorted(((*pair, similarity) for pair, similarity in found.items()), key=lambda item: -item[2])
    return chosen[:limit]


def write_shard(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    """A tar of ``KEY.KIND`` for each part of each sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, parts in samples.items():
            for kind, data in parts.items():
                member = tarfile.TarInfo(f"{key}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def sample(image: bytes, caption: str = "a cat", kind: str = "jpg", **about: object) -> dict[str, bytes]:
    """The parts of one sample as img2dataset stores them."""
    return {kind: image, "txt": caption.encode(), "json": json.dumps({"caption": caption, **about}).encode()}
