"""Download what was selected: the program img2dataset, told what to do, watched, and its counts added up."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bcos_kernels.files import read_json, write_json

PROGRAM = "img2dataset"
INSTALL = (
    "pip install 'bcos-kernels[laion]' installs it (Python 3.12 or older); in an environment of its own: "
    "python -m venv i2d && i2d/bin/pip install img2dataset, then --program i2d/bin/img2dataset"
)
STATE = ".bcos/download.json"  # not *.json in the folder itself: img2dataset takes all of those for its own
PATIENCE = 20.0
STDERR = 2

# PNG and WebP without loss; JPEG with little: its errors are smaller than a pixel of what is trained on.
QUALITIES = {"jpg": 95, "png": 6, "webp": 101}


@dataclass(frozen=True)
class Storage:
    """How images are stored.

    shorter_side: of stored images, in pixels; larger ones are reduced to it, smaller ones stay as they
    are; 0 stores the files as they are served. encoding: of images that are stored anew.
    samples_per_shard: pairs attempted for each shard.
    """

    shorter_side: int = 256
    encoding: Literal["jpg", "png", "webp"] = "jpg"
    samples_per_shard: int = 1000

    def __post_init__(self) -> None:
        if self.shorter_side != 0 and self.shorter_side < 64:
            raise ValueError(f"shorter_side must be at least 64, or 0 to keep files as served, got {self.shorter_side}")
        if self.samples_per_shard < 2:
            raise ValueError(f"samples_per_shard must be at least 2, got {self.samples_per_shard}")


def find_program(given: str | None = None) -> str:
    """The path of img2dataset: as given, beside this Python, or on PATH. Raises FileNotFoundError that says how."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(given) if given else shutil.which(PROGRAM, path=beside) or shutil.which(PROGRAM)
    if found is None:
        raise FileNotFoundError(f"{given or 'the program ' + PROGRAM} is not there; {INSTALL}")
    return os.path.abspath(found)


def download(
    selection: Path,
    out: Path,
    storage: Storage = Storage(),
    processes: int = 1,
    threads: int = 64,
    timeout: int = 10,
    retries: int = 1,
    program: str | None = None,
) -> dict[str, Any]:
    """Download ``selection`` (a parquet file with url and caption) into webdataset shards in ``out``.

    processes and threads of each that download; timeout in seconds and retries of each image. An
    interrupted download goes on with the shards that are not complete. Returns ``attempted``, ``stored``
    and ``failed``, {reason: count}. Raises FileNotFoundError without the selection or the program,
    ValueError when ``out`` holds another download or nothing could be stored, OSError when img2dataset fails.
    """
    if not selection.is_file():
        raise FileNotFoundError(f"{selection} does not exist; make it with: bcos-diffusion laion select")
    for name, value in (("processes", processes), ("threads", threads), ("timeout", timeout), ("retries", retries + 1)):
        if value < 1:
            raise ValueError(f"{name} is too small: {value - (name == 'retries')}")
    found = find_program(program)
    _claim(selection, out, storage)
    command = [
        found,
        *_options(selection, out, storage),
        f"--processes_count={processes}",
        f"--thread_count={threads}",
        f"--timeout={timeout}",
        f"--retries={retries}",
    ]
    _run(command)
    return summarise(out)


def _options(selection: Path, out: Path, storage: Storage) -> list[str]:
    stored = ["--resize_mode=no", "--disable_all_reencoding=True"]
    if storage.shorter_side:
        stored = [
            "--resize_mode=keep_ratio",
            "--resize_only_if_bigger=True",
            f"--image_size={storage.shorter_side}",
            f"--encode_quality={QUALITIES[storage.encoding]}",
        ]
    return [
        f"--url_list={selection.absolute()}",
        "--input_format=parquet",
        "--url_col=url",
        "--caption_col=caption",
        "--save_additional_columns=['similarity','objects']",
        f"--output_folder={out.absolute()}",
        "--output_format=webdataset",
        f"--encode_format={storage.encoding}",
        f"--number_sample_per_shard={storage.samples_per_shard}",
        *stored,
    ]


def _claim(selection: Path, out: Path, storage: Storage) -> None:
    """Note what ``out`` is for: img2dataset goes on with any folder, whatever was downloaded into it before."""
    digest = hashlib.sha256(selection.read_bytes()).hexdigest()
    now = {"selection": digest, "storage": asdict(storage)}
    state = out / STATE
    if state.exists():
        before = read_json(state)
        if before != now:
            what = "of another selection" if before.get("selection") != now["selection"] else "stored in another way"
            raise ValueError(f"{out} holds a download {what}; give another folder, or delete this one")
    elif any(out.glob("*.tar")):
        raise ValueError(f"{out} holds shards that were not downloaded by this command; give another folder")
    else:
        write_json(state, now)


def _run(command: list[str]) -> None:
    """Run in a group of its own, which is ended as a whole when we are."""
    environment = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"}
    with subprocess.Popen(command, stdout=STDERR, env=environment, start_new_session=True) as process:
        try:
            code = process.wait()
        except BaseException:
            _end(process)
            raise
    if code != 0:
        raise OSError(f"{command[0]} ended with code {code}; its messages are above; run again to go on")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(PATIENCE)
            os.killpg(process.pid, signal.SIGKILL)  # the downloading processes outlive the one that started them
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def summarise(out: Path) -> dict[str, Any]:
    """Add up what img2dataset counted in every shard. Raises ValueError when nothing was stored."""
    attempted = stored = 0
    reasons: Counter[str] = Counter()
    for path in sorted(out.glob("*_stats.json")):
        stats = read_json(path)
        attempted += stats["count"]
        stored += stats["successes"]
        reasons.update({_reason(text): count for text, count in stats["status_dict"].items() if text != "success"})
    if not stored:
        most = "; ".join(f"{count:,} {text}" for text, count in reasons.most_common(3))
        raise ValueError(f"none of {attempted:,} images could be downloaded{': ' + most if most else ''}")
    return {"attempted": attempted, "stored": stored, "failed": dict(reasons.most_common())}


def _reason(text: str) -> str:
    """The message without what is particular to one address, so that reasons stay few."""
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"


def describe(summary: dict[str, Any], most: int = 10) -> str:
    """The summary in a few lines."""
    failed: dict[str, int] = summary["failed"]
    lines = [f"{summary['stored']:,} of {summary['attempted']:,} images stored"]
    lines += [f"  {count:,} failed: {reason}" for reason, count in list(failed.items())[:most]]
    rest = sum(list(failed.values())[most:])
    return "\n".join(lines + ([f"  {rest:,} failed for other reasons"] if rest else []))
