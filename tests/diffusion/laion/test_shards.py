"""Shards as training data: every usable sample once an epoch, in any number of processes; the rest is reported."""

import multiprocessing
import os
import pickle
import shutil
import subprocess
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references.image_server import encoded, picture, turned
from references.laion import sample, write_shard

from bcos_diffusion.laion import shard_index
from bcos_diffusion.laion.images import square
from bcos_diffusion.laion.shards import Report, ShardData, Skipped

COUNT = 23
FIRST = [11, 3, 20, 13, 2, 21]


def numbered(number: int) -> bytes:
    """A plain image whose grey is its number."""
    return encoded(Image.new("RGB", (24, 20), (10 * number % 256, number, 7)), "PNG")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 23 samples, whose captions are their numbers."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(3):
        numbers = range(shard, COUNT, 3)
        samples = {f"{n:09d}": sample(numbered(n), f"cat {n}", "png", objects=["cat"]) for n in numbers}
        write_shard(folder / f"{shard:05d}.tar", samples)
    return folder


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Where a test may put a shard of its own."""
    return tmp_path / "shards" / "00000.tar"


def test_images_and_captions_belong_together(many: Path) -> None:
    data = ShardData(many, size=16)
    assert len(data) == COUNT and data.size == 16 and str(data.report) == "23 usable samples in 3 shards, 0 skipped"
    images, captions = data.batch(range(COUNT))
    assert images.shape == (COUNT, 16, 16, 3) and images.dtype == np.uint8
    assert sorted(captions) == sorted(f"cat {n}" for n in range(COUNT)) == sorted(data.captions)
    for image, caption in zip(images, captions, strict=True):
        number = int(caption.split()[1])
        assert (image == (10 * number % 256, number, 7)).all()
    assert data.objects == Counter(cat=COUNT)
    empty, none = data.batch([])
    assert empty.shape == (0, 16, 16, 3) and none == []


def test_every_epoch_has_each_sample_once_in_an_order_of_its_own(many: Path) -> None:
    data = ShardData(many)
    orders = [[data.sample_at(epoch * COUNT + place) for place in range(COUNT)] for epoch in (0, 1, 2, 1000)]
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert len({tuple(order) for order in [*orders, list(range(COUNT))]}) == 5
    again, other = ShardData(many), ShardData(many, seed=1)
    assert [again.sample_at(1000 * COUNT + place) for place in range(COUNT)] == orders[3]
    assert [other.sample_at(place) for place in range(COUNT)] != orders[0]
    # Drawn by numpy 2.4; a resumed run must meet the same order whatever the version.
    assert orders[0][:6] == FIRST


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_an_epoch_without_repeating(many: Path, processes: int) -> None:
    batch = 6
    seen: list[tuple[int, str]] = []
    for rank in range(processes):
        data = ShardData(many, size=8)
        for step in range(2 * COUNT):  # steps of `batch` positions, of which each process reads its share
            mine = range(step * batch + rank, (step + 1) * batch, processes)
            seen += list(zip(mine, data.batch(mine)[1], strict=True))
    captions = [caption for _, caption in sorted(seen)]
    assert len(captions) == 2 * COUNT * batch
    for first in range(0, len(captions), COUNT):
        assert sorted(captions[first : first + COUNT]) == sorted(f"cat {n}" for n in range(COUNT))
    whole = ShardData(many, size=8).batch(range(2 * COUNT * batch))[1]
    assert captions == whole


def test_flipping_is_drawn_by_position(shard: Path) -> None:
    write_shard(shard, {"0": sample(encoded(picture(), "PNG"), kind="png")})
    plain, flipped = (ShardData(shard.parent, flip=flip).batch(range(200))[0] for flip in (False, True))
    upright = square(picture(), 64)
    assert (plain == upright).all()
    is_plain = (flipped == upright).all((1, 2, 3))
    assert 70 < is_plain.sum() < 130 and (flipped[~is_plain] == upright[:, ::-1]).all()
    data = ShardData(shard.parent, flip=True)
    assert np.array_equal(np.concatenate([data.batch([p])[0] for p in range(50)]), flipped[:50])
    assert not np.array_equal(ShardData(shard.parent, flip=True, seed=1).batch(range(200))[0], flipped)


def test_what_cannot_be_used_is_counted_named_and_skipped(shard: Path) -> None:
    good, no_text = sample(encoded(picture()), "two cats"), sample(encoded(picture()))
    only_json = {name: data for name, data in sample(encoded(picture()), "of json").items() if name != "txt"}
    samples = {
        "good": good,
        "no-image": {"txt": b"a cat"},
        "no-caption": {"jpg": no_text["jpg"]},
        "blank": sample(encoded(picture()), " \n"),
        "latin": good | {"txt": b"caf\xe9"},
        "html": sample(b"<html>"),
        "cut": sample(encoded(picture())[:3000]),
        "dot": sample(encoded(picture(1, 1), "GIF"), kind="gif"),
        "only-json": only_json,
        "bad-json": good | {"json": b"{", "txt": b"bad json"},
        "json-list": good | {"json": b"[]", "txt": b"json list"},
        "cmyk": sample(encoded(picture().convert("CMYK"), quality=95), "cmyk"),
        "turned": sample(turned(picture(), 6), "turned"),
        "below/deep.er": {"JPG": good["jpg"], "txt": b"x"},
    }
    write_shard(shard, samples)
    (shard.parent / "notes.txt").write_text("not a shard")
    data = ShardData(shard.parent)
    assert sorted(data.captions) == ["bad json", "cmyk", "json list", "of json", "turned", "two cats"]
    assert data.report.skipped == [
        Skipped("00000.tar", key, reason)
        for key, reason in {
            "no-image": "no image",
            "no-caption": "no caption",
            "blank": "no caption",
            "latin": "caption is not UTF-8",
            "html": "not an image",
            "cut": "damaged image",
            "dot": "image too small",
            "below/deep": "no image",
        }.items()
    ]
    assert data.report.reasons == {
        "no image": 2,
        "no caption": 2,
        "caption is not UTF-8": 1,
        "not an image": 1,
        "damaged image": 1,
        "image too small": 1,
    }
    images, captions = data.batch(range(6))
    upright = square(picture(), 64).astype(int)
    assert np.abs(images - upright).mean((1, 2, 3)).max() < 4 and len(set(captions)) == 6


def test_a_picture_that_lost_its_exif_is_turned_by_its_sidecar(shard: Path) -> None:
    lying = encoded(picture().transpose(Image.Transpose.ROTATE_90), "PNG")
    write_shard(shard, {"0": sample(lying, kind="png", exif='{"Image Orientation": "Rotated 90 CW"}')})
    assert np.array_equal(ShardData(shard.parent).batch([0])[0][0], square(picture(), 64))


@pytest.mark.parametrize("place", ["header", "image", "padding", "end"])
def test_a_truncated_shard_gives_what_comes_before_the_cut(many: Path, shard: Path, place: str) -> None:
    shard.parent.mkdir()
    whole = many / "00000.tar"
    with tarfile.open(whole) as tar:
        image = tar.getmembers()[9]  # of the fourth sample
        last = tar.getmembers()[-1]
    cut = {
        "header": image.offset + 100,
        "image": image.offset_data + 40,
        "padding": image.offset_data + image.size,
        "end": last.offset_data + 512,
    }
    shard.write_bytes(whole.read_bytes()[: cut[place]])
    data = ShardData(shard.parent)
    assert len(data) == (8 if place == "end" else 3)
    assert set(data.report.damaged) == {"00000.tar"}
    assert data.report.damaged["00000.tar"] in str(data.report)
    assert [s.reason for s in data.report.skipped] == (["no caption"] if place == "padding" else [])


def test_damaged_headers_and_appended_archives_do_not_end_a_shard_in_silence(many: Path, shard: Path) -> None:
    shard.parent.mkdir()
    whole = (many / "00000.tar").read_bytes()
    with tarfile.open(many / "00000.tar") as tar:
        image = tar.getmembers()[9]
    shard.write_bytes(whole[: image.offset] + b"\xff" * 512 + whole[image.offset + 512 :])
    data = ShardData(shard.parent)
    assert len(data) == 3 and f"at byte {image.offset}" in data.report.damaged["00000.tar"]
    shard.write_bytes(whole + whole)
    assert "damaged, or appended to" in ShardData(shard.parent).report.damaged["00000.tar"]


def test_without_anything_usable_it_says_what_was_found(shard: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no shards \(\*.tar\) there"):
        ShardData(shard.parent)
    write_shard(shard, {"0": {"txt": b"a cat"}, "1": {"txt": b"a goat"}})
    (shard.parent / "00001.tar").write_bytes(b"")
    (shard.parent / "00002.tar").write_text("<html>" * 200)
    with pytest.raises(
        ValueError, match=r"no usable sample; .*2 skipped: no image.*00001.tar: .*00002.tar: "
    ) as raised:
        ShardData(shard.parent)
    assert "\n" not in str(raised.value)


def test_the_index_is_made_once_and_again_when_a_shard_changes(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(many, folder, ignore=shutil.ignore_patterns(".bcos"))
    made: list[str] = []
    original = shard_index.make_index

    def make(path: Path) -> shard_index.ShardIndex:
        made.append(path.name)
        return original(path)

    monkeypatch.setattr(shard_index, "make_index", make)
    first = ShardData(folder)
    assert sorted(made) == ["00000.tar", "00001.tar", "00002.tar"]
    assert sorted(p.suffix for p in (folder / ".bcos").iterdir()) == [".json"] * 3
    second = ShardData(folder)
    assert len(made) == 3 and second.batch(range(5))[1] == first.batch(range(5))[1]
    assert second.report == first.report == Report(3, COUNT)
    os.utime(folder / "00001.tar", ns=(0, 0))
    ShardData(folder)
    assert made[3:] == ["00001.tar"]
    ShardData(folder, cache=tmp_path / "cache")
    assert len(made) == 7 and len(list((tmp_path / "cache").iterdir())) == 3
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        ShardData(folder, cache=tmp_path / "file" / "below")


def test_a_shard_that_changes_under_training_is_an_error(many: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(many, folder)
    data = ShardData(folder)
    for path in folder.glob("*.tar"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(ValueError, match="changed after it was indexed"):
        data.batch([0])


def test_it_works_in_a_forked_process_and_survives_pickling(many: Path) -> None:
    data = ShardData(many, threads=2)
    expected = data.batch(range(4))[1]
    assert pickle.loads(pickle.dumps(data)).batch(range(4))[1] == expected
    with multiprocessing.get_context("fork").Pool(1) as pool:  # which has none of the threads of its parent
        assert pool.apply_async(data.batch, (range(4),)).get(timeout=60)[1] == expected


def test_threads_may_read_at_once(many: Path) -> None:
    data, starts = ShardData(many, size=8), [(37 * n) % 20 * COUNT for n in range(60)]
    expected = [ShardData(many, size=8).batch(range(start, start + 3))[1] for start in starts]
    with ThreadPoolExecutor(6) as pool:
        assert [b[1] for b in pool.map(lambda start: data.batch(range(start, start + 3)), starts)] == expected


def test_bad_arguments_are_refused(many: Path) -> None:
    with pytest.raises(ValueError, match="size must be at least 1"):
        ShardData(many, size=0)
    with pytest.raises(IndexError, match="position must be at least 0, got -1"):
        ShardData(many).batch([0, -1])


def test_shards_of_the_system_tar_are_read(many: Path, shard: Path) -> None:
    shard.parent.mkdir()
    files = shard.parent.parent / "files"
    with tarfile.open(many / "00000.tar") as tar:
        tar.extractall(files, filter="data")
    done = subprocess.run(["tar", "cf", str(shard), "-C", str(files), "."], check=False)
    if done.returncode != 0:
        pytest.skip("no program tar here")
    assert sorted(ShardData(shard.parent).captions) == sorted(f"cat {n}" for n in range(0, COUNT, 3))
