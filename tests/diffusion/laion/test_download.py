"""Downloads by img2dataset: end to end from a server of this machine, and what can go wrong around it."""

import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from references.image_server import encoded, late, picture, serving, turned

from bcos_diffusion.laion.download import STATE, Storage, describe, download, find_program, summarise
from bcos_diffusion.laion.images import decode, square
from bcos_diffusion.laion.shards import ShardData

SLOW_ANSWER = 6
GOOD: dict[str, bytes] = {
    **{f"plain{n}": encoded(picture(300 + 40 * n, 420 - 30 * n), quality=95) for n in range(6)},
    **{f"turned{n}": turned(picture(), n) for n in (3, 6, 8)},
    "grey": encoded(picture().convert("L"), "PNG"),
    "cmyk": encoded(picture().convert("CMYK"), quality=95),
    "webp": encoded(picture(), "WEBP"),
    "less": encoded(picture(80, 70), "PNG"),
}
BAD: dict[str, Any] = {
    "cut": encoded(picture())[:900],
    "page": b"<html>gone</html>",
    "dot": encoded(picture(1, 1), "GIF"),
    "late": late(GOOD["plain0"], SLOW_ANSWER),
}


def selection(path: Path, address: str, names: list[str]) -> Path:
    """A selection of images of a server; the caption of each is its name."""
    columns = {
        "key": names,
        "url": [f"{address}/{name}" for name in names],
        "caption": names,
        "similarity": [0.5] * len(names),
        "objects": [["cat"] if n % 2 else ["cat", "goat"] for n in range(len(names))],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def program() -> str:
    try:
        found = find_program(os.environ.get("IMG2DATASET"))
    except FileNotFoundError:
        pytest.skip("img2dataset is not installed; its path may be given in IMG2DATASET")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("storage", [Storage(samples_per_shard=6), Storage(0, samples_per_shard=6), Storage(64, "png")])
def test_images_arrive_as_they_were_and_the_rest_is_counted(tmp_path: Path, storage: Storage) -> None:
    out, names = tmp_path / "shards", [*GOOD, *BAD, "absent"]
    with serving(GOOD | BAD) as address:
        file = selection(tmp_path / "selection.parquet", address, names)
        summary = download(file, out, storage, timeout=2, retries=0, program=program())
    kept = len(GOOD) + (3 if storage.shorter_side == 0 else 1)  # files as served are not looked at
    assert summary["attempted"] == len(names) and summary["stored"] == kept
    assert sum(summary["failed"].values()) == len(names) - kept
    assert any("404" in reason for reason in summary["failed"]) and "timed out" in summary["failed"]
    assert "failed: HTTP Error 404: Not Found" in describe(summary)
    data = ShardData(out)
    assert sorted(data.captions) == sorted(GOOD)
    assert data.report.reasons["image too small"] == 1
    assert data.objects == {"cat": len(GOOD), "goat": len(list(GOOD)[::2])}
    images, captions = data.batch(range(len(data)))
    for image, name in zip(images, captions, strict=True):
        original = square(decode(GOOD[name]), 64).astype(int)
        worst = 0 if storage.shorter_side == 0 else 4
        assert np.abs(image - original).mean() <= worst, name
    if storage.shorter_side == 256:
        sides = {min(Image.open(path).size) for path in _unpacked(out, tmp_path)}
        assert max(sides) == 256 and 70 in sides


def _unpacked(out: Path, tmp_path: Path) -> list[Path]:
    for shard in out.glob("*.tar"):
        with tarfile.open(shard) as tar:
            tar.extractall(tmp_path / "unpacked", filter="data")
    return list((tmp_path / "unpacked").glob("*.jpg"))


@pytest.mark.slow
def test_an_interrupted_download_goes_on_and_refusals_of_servers_hold(tmp_path: Path) -> None:
    out, names = tmp_path / "shards", list(GOOD)
    with serving(dict(GOOD)) as address:
        file = selection(tmp_path / "selection.parquet", address, names)
        first = download(file, out, Storage(samples_per_shard=5), program=program())
        assert first["stored"] == len(GOOD) and len(ShardData(out).report.damaged) == 0
        (out / "00001_stats.json").unlink()
        shard = out / "00001.tar"
        shard.write_bytes(shard.read_bytes()[:5000])
        untouched = (out / "00000.tar").stat().st_mtime_ns
        assert ShardData(out).report.damaged
        assert download(file, out, Storage(samples_per_shard=5), program=program()) == first
        assert (out / "00000.tar").stat().st_mtime_ns == untouched
        assert len(ShardData(out)) == len(GOOD) and not ShardData(out).report.damaged
    with serving(dict(GOOD), {"X-Robots-Tag": "noai"}) as address:
        file = selection(tmp_path / "other.parquet", address, names)
        with pytest.raises(ValueError, match=r"none of 13 images could be downloaded: 13 Use of image disallowed"):
            download(file, tmp_path / "none", program=program())


def stand_in(path: Path, script: str) -> str:
    """A program that takes the place of img2dataset where only its end matters."""
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_program_that_fails_or_is_absent_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = selection(tmp_path / "selection.parquet", "http://host", ["a"])
    with pytest.raises(OSError, match="ended with code 3; its messages are above; run again to go on"):
        download(file, tmp_path / "out", program=stand_in(tmp_path / "failing", "exit 3\n"))
    with pytest.raises(ValueError, match="none of 0 images could be downloaded"):
        download(file, tmp_path / "out", program=stand_in(tmp_path / "idle", "exit 0\n"))
    with pytest.raises(FileNotFoundError, match=r"/nowhere/i2d is not there; pip install 'bcos-kernels\[laion\]'"):
        download(file, tmp_path / "out", program="/nowhere/i2d")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="the program img2dataset is not there; pip install"):
        find_program()
    assert find_program(stand_in(tmp_path / "img2dataset", "exit 0\n")) == find_program()


def test_a_folder_holds_one_download(tmp_path: Path) -> None:
    idle = stand_in(tmp_path / "idle", "exit 7\n")
    one, two = (selection(tmp_path / f"{name}.parquet", f"http://{name}", ["a"]) for name in ("one", "two"))
    out = tmp_path / "out"
    for _ in range(2):  # the same download may always go on
        with pytest.raises(OSError, match="code 7"):
            download(one, out, program=idle)
    assert not list(out.glob("*.json")) and (out / STATE).is_file()  # img2dataset would trip over one of ours
    with pytest.raises(ValueError, match="holds a download of another selection"):
        download(two, out, program=idle)
    with pytest.raises(ValueError, match="holds a download stored in another way"):
        download(one, out, Storage(128), program=idle)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "0.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="shards that were not downloaded by this command"):
        download(one, tmp_path / "mine", program=idle)
    with pytest.raises(FileNotFoundError, match="absent does not exist; make it with: bcos-diffusion laion select"):
        download(tmp_path / "absent", out, program=idle)
    for name in ("processes", "threads", "timeout", "retries"):
        with pytest.raises(ValueError, match=f"{name} is too small: -1"):
            download(one, out, program=idle, **{name: -1})
    for wrong in ({"shorter_side": 32}, {"samples_per_shard": 1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least"):
            Storage(**wrong)


def test_counts_of_all_shards_are_added_up(tmp_path: Path) -> None:
    for number, status in enumerate([{"success": 2, "HTTP Error 404: Not Found": 1}, {"success": 1, "x" * 200: 2}]):
        total, good = sum(status.values()), status["success"]
        stats = {"count": total, "successes": good, "status_dict": status}
        (tmp_path / f"{number:05d}_stats.json").write_text(json.dumps(stats))
    summary = summarise(tmp_path)
    assert (summary["attempted"], summary["stored"]) == (6, 3)
    assert summary["failed"] == {"x" * 79 + "…": 2, "HTTP Error 404: Not Found": 1}
    assert describe(summary, most=1).endswith("1 failed for other reasons")


def test_ending_the_command_ends_all_processes_of_the_download(tmp_path: Path) -> None:
    file = selection(tmp_path / "selection.parquet", "http://host", ["a"])
    script = f"sleep 60 & echo $! > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid\nwait\n"
    command = [sys.executable, "-m", "bcos_diffusion", "laion", "download", str(file), "--out", str(tmp_path / "out")]
    command += ["--program", stand_in(tmp_path / "endless", script)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        for _ in range(600):
            if (tmp_path / "pid").exists():
                break
            time.sleep(0.1)
        child = int((tmp_path / "pid").read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    for _ in range(50):
        if not _is_alive(child):
            break
        time.sleep(0.1)
    assert not _is_alive(child)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
