"""Selection out of parquet files: the same as by the plainest code, in any order, after any interruption."""

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from references.laion import best_pairs, metadata, names

from bcos_diffusion.laion import best, scan
from bcos_diffusion.laion import metadata as reading
from bcos_diffusion.laion import select as selecting
from bcos_diffusion.laion.metadata import find_sources
from bcos_diffusion.laion.objects import parse_objects
from bcos_diffusion.laion.scan import Plan
from bcos_diffusion.laion.select import select

FORMS = {"cat": ("cat", "cats"), "goat": ("goat", "goats"), "banana": ("banana", "bananas")}
PLAN = Plan(parse_objects(list(FORMS)), per_object=100)


def chosen(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / "selection.parquet").to_pylist()
    return rows


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def one_of(objects: str, **options: Any) -> Plan:
    return Plan(parse_objects([objects]), **options)


def test_selects_what_the_plainest_code_selects(tmp_path: Path) -> None:
    rows = metadata(tmp_path / "meta")
    summary = select([str(tmp_path / "meta")], tmp_path / "out", PLAN)
    found = chosen(tmp_path / "out")
    assert len({(row["url"], row["caption"]) for row in found}) == len(found) == summary["pairs"]
    for name, forms in FORMS.items():
        mine = sorted((row["similarity"] for row in found if name in row["objects"]), reverse=True)
        expected = best_pairs(rows, forms, PLAN.per_object)
        assert mine == [similarity for *_, similarity in expected]
        lowest = expected[-1][2]
        above = {pair for *pair, similarity in map(tuple, expected) if similarity > lowest for pair in [tuple(pair)]}
        kept = {(r["url"], r["caption"]) for r in found if name in r["objects"] and r["similarity"] > lowest}
        assert kept == above  # ties at the lowest similarity are drawn by key
        assert summary["objects"][name]["selected"] == 100
        assert summary["objects"][name]["lowest_similarity"] == lowest
    usable = [r for r in rows if r["TEXT"] and r["URL"] and r["similarity"] is not None]
    usable = [r for r in usable if r["similarity"] == r["similarity"]]
    matched = Counter(n for r in usable for n, forms in FORMS.items() if names(str(r["TEXT"]), forms))
    assert {n: about["matched"] for n, about in summary["objects"].items()} == dict(matched)
    assert summary["rows"] == len(rows) and sum(summary["skipped"].values()) == len(rows) - len(usable)
    assert summary["skipped"]["no caption"] == sum(not r["TEXT"] for r in rows)
    several = [row for row in found if len(row["objects"]) > 1]
    assert len(several) == summary["pairs_of_several_objects"] > 0
    assert json.loads((tmp_path / "out" / "selection.json").read_text(encoding="utf-8")) == summary


def test_the_order_and_the_split_of_files_and_batches_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = metadata(tmp_path / "meta", files=3)
    select([str(tmp_path / "meta")], tmp_path / "one", PLAN)
    random.Random(3).shuffle(rows)
    for number in range(7):
        name = "abcdefg"[(3 * number) % 7]
        pq.write_table(pa.Table.from_pylist(rows[number::7]), tmp_path / f"{name}.parquet")
    monkeypatch.setattr(scan.scan, "__defaults__", (10,))
    select([str(p) for p in tmp_path.glob("?.parquet")], tmp_path / "two", PLAN)
    one, two = (tmp_path / name / "selection.parquet" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_several_processes_select_the_same(tmp_path: Path) -> None:
    metadata(tmp_path / "meta", files=5)
    (tmp_path / "meta" / "bad.parquet").write_bytes(b"")
    seen: list[tuple[int, int, int]] = []
    one = select([str(tmp_path / "meta")], tmp_path / "one", PLAN)
    two = select([str(tmp_path / "meta")], tmp_path / "two", PLAN, 2, lambda *args: seen.append(args))
    assert one == two and chosen(tmp_path / "one") == chosen(tmp_path / "two")
    assert [done for done, *_ in seen] == list(range(7)) and seen[-1] == (6, 6, one["rows"])


def test_only_a_batch_and_twice_the_best_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path / "big.parquet",
        URL=[f"http://{n}" for n in range(30_000)],
        TEXT=["a cat"] * 30_000,
        similarity=[n / 30_000 for n in range(30_000)],
        unused=[b"x" * 100] * 30_000,
    )
    (source,) = find_sources([str(tmp_path / "big.parquet")])
    sizes, held = [], []
    taken = scan._rows

    def watch(batch: pa.RecordBatch, counts: Counter[str]) -> Any:
        sizes.append(batch.num_rows)
        assert set(batch.schema.names) == {"url", "caption", "similarity", *reading.EXTRAS}
        return taken(batch, counts)

    class Watched(best.Best):
        def add(self, row: best.Row) -> None:
            super().add(row)
            held.append(len(self))

    monkeypatch.setattr(scan, "_rows", watch)
    kept = Watched(200)
    counts = scan.scan(source, one_of("cat", per_object=200), [kept], batch_rows=1000)
    assert counts["rows"] == counts["matched cat"] == sum(sizes) == 30_000
    assert max(sizes) <= 1000 and max(held) < 400
    assert min(row.similarity for _, row in kept.items()) == 29_800 / 30_000


def test_an_interrupted_selection_goes_on_and_reads_no_file_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata(tmp_path / "meta")
    places = [str(tmp_path / "meta")]
    select(places, tmp_path / "whole", PLAN)
    read: list[str] = []
    original = selecting.scan

    def scan_two(source: reading.Source, *rest: Any) -> Any:
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(source.path)
        return original(source, *rest)

    monkeypatch.setattr(selecting, "scan", scan_two)
    with pytest.raises(KeyboardInterrupt):
        select(places, tmp_path / "out", PLAN)
    assert not (tmp_path / "out" / "selection.parquet").exists()

    def scan_on(source: reading.Source, *rest: Any) -> Any:
        read.append(source.path)
        return original(source, *rest)

    monkeypatch.setattr(selecting, "scan", scan_on)
    select(places, tmp_path / "out", PLAN)
    assert len(read) == len(set(read)) == 4
    assert chosen(tmp_path / "out") == chosen(tmp_path / "whole")
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.name.startswith(".")]

    select(places, tmp_path / "out", PLAN)
    assert len(read) == 4
    select(places, tmp_path / "out", one_of("cat", per_object=5))
    assert len(read) == 8 and len(chosen(tmp_path / "out")) == 5
    assert len(list((tmp_path / "out" / ".pieces").iterdir())) == 4


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[200:4000] = bytes(3800)
    path.write_bytes(data)


def other_columns(path: Path) -> None:
    write(path, url=["http://a"], label=["cat"], SIMILARITY=[0.5])


SPOILERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, ""),
    "damaged inside": (damage, ""),
    "empty": (lambda path: path.write_bytes(b""), ""),
    "a web page": (lambda path: path.write_text("<html>" * 99), "magic bytes"),
    "no caption column": (other_columns, r"no column TEXT or CAPTION .*it has url, label, SIMILARITY"),
    "similarity is text": (
        lambda path: write(path, url=["a"], text=["cat"], similarity=["1"]),
        "holds string, not num",
    ),
    "captions are numbers": (lambda path: write(path, url=["a"], text=[1], similarity=[1.0]), "holds int64, not text"),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_a_file_that_cannot_be_read_is_named_and_contributes_nothing(tmp_path: Path, name: str) -> None:
    metadata(tmp_path / "meta", files=3)
    bad = tmp_path / "meta" / "part-1.parquet"
    good = [str(tmp_path / "meta" / f"part-{n}.parquet") for n in (0, 2)]
    select(good, tmp_path / "good", PLAN)
    kept = bad.read_bytes()
    SPOILERS[name][0](bad)
    summary = select([str(tmp_path / "meta")], tmp_path / "out", PLAN)
    assert chosen(tmp_path / "out") == chosen(tmp_path / "good")
    (entry,) = summary["files"]["unreadable"]
    assert summary["files"]["read"] == 2 and entry["file"].endswith("part-1.parquet")
    assert re.search(SPOILERS[name][1], entry["why"]) and entry["why"]
    assert entry["why"] in selecting.describe(summary)
    with pytest.raises(ValueError, match="none of 1 files can be read"):
        select([str(bad)], tmp_path / "none", PLAN)

    bad.write_bytes(kept)
    assert select([str(tmp_path / "meta")], tmp_path / "out", PLAN)["files"] == {"read": 3, "unreadable": []}


def test_columns_in_any_case_and_of_other_types(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", uRl=["http://a"], Caption=pa.array(["cat"], pa.large_string()), SIMILARITY=[0.5])
    text = pa.array(["two cats"]).dictionary_encode()
    write(tmp_path / "b.parquet", URL=["http://b"], TEXT=text, similarity=pa.array([0.25], pa.float32()))
    raw = pa.array([b"cat 3", b"cat \xff"], pa.binary())
    write(tmp_path / "c.parquet", URL=["http://c"] * 2, TEXT=raw, similarity=pa.array([1, 1]), height=[7, 8])
    summary = select([str(tmp_path)], tmp_path / "out", one_of("cat"))
    found = {row["url"]: (row["caption"], row["similarity"], row["height"]) for row in chosen(tmp_path / "out")}
    assert found == {
        "http://a": ("cat", 0.5, None),
        "http://b": ("two cats", 0.25, None),
        "http://c": ("cat 3", 1.0, 7.0),
    }
    assert summary["skipped"] == {"not text": 1}


def test_limits_on_what_the_metadata_says_of_the_image(tmp_path: Path) -> None:
    rows = metadata(tmp_path / "meta", files=1)
    plan = one_of("cat", per_object=9999, max_punsafe=0.3, min_side=None)
    summary = select([str(tmp_path / "meta")], tmp_path / "out", plan)
    assert all(row["punsafe"] <= 0.3 for row in chosen(tmp_path / "out"))
    safe = [row for row in rows if row["punsafe"] is not None and float(str(row["punsafe"])) <= 0.3]
    assert len(chosen(tmp_path / "out")) == len(best_pairs(safe, ("cat", "cats"), 9999))
    assert summary["skipped"]["refused by punsafe"] > 0 and summary["limits"] == {"punsafe": "at most 0.3"}
    with pytest.raises(ValueError, match="no caption among 500 rows"):  # there is no column of heights
        select([str(tmp_path / "meta")], tmp_path / "none", one_of("cat", min_side=10))
    for wrong in ({"per_object": 0}, {"max_punsafe": 2.0}, {"max_pwatermark": -1.0}, {"min_side": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            one_of("cat", **wrong)


def test_places_are_files_folders_globs_and_urls_each_file_once(tmp_path: Path) -> None:
    metadata(tmp_path / "meta" / "deep", files=2)
    shutil.copytree(tmp_path / "meta" / "deep", tmp_path / "meta" / ".hidden")
    folder = str(tmp_path / "meta")
    deep = [f"file://{folder}/deep/part-{n}.parquet" for n in (0, 1)]
    assert [source.path for source in find_sources([folder, f"{folder}/deep/*.parquet", deep[1]])] == deep
    with pytest.raises(FileNotFoundError, match="no parquet file there"):
        find_sources([folder, str(tmp_path / "absent")])
    with pytest.raises(OSError, match="cannot list nosuch://x: Protocol not known"):
        find_sources(["nosuch://x"])


def test_metadata_in_a_remote_file_system(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    metadata(tmp_path / "meta", files=2)
    fsspec.filesystem("memory").put(str(tmp_path / "meta"), "/laion-test", recursive=True)
    select([str(tmp_path / "meta")], tmp_path / "here", PLAN)
    select(["memory://laion-test/*.parquet"], tmp_path / "there", PLAN)
    assert chosen(tmp_path / "here") == chosen(tmp_path / "there")


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    metadata(tmp_path / "meta", files=1)
    with pytest.raises(ValueError, match="no caption among 500 rows names any of: unicorn"):
        select([str(tmp_path / "meta")], tmp_path / "out", one_of("unicorn"))
    with pytest.raises(ValueError, match="workers must be at least 1"):
        select([str(tmp_path / "meta")], tmp_path / "out", PLAN, workers=0)
