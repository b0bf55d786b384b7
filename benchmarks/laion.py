"""How fast metadata is searched and shards are read, with peak memory, on data made up on the spot.

Rates are of wall-clock time and of CPU time; where other programs ran at once (``load`` says so) only the second count.

python benchmarks/laion.py --out benchmarks/results/laion.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from machine import describe, print_table
from PIL import Image

from bcos_diffusion.laion.shards import ShardData
from bcos_kernels.files import write_json

WORDS = (
    "a the of in and with for on red blue black white stock photo vector illustration free vintage print art poster"
    " home design set modern background woman man dog house street city tree flower summer category location bananas"
    " cat goats flamingo penguin education bobcat wooden paper card kitchen table wall sky sea mountain old new"
).split()
NAMED = {"bananas", "cat", "goats", "flamingo", "penguin"}
COMMON = np.array([0.02 if word in NAMED else 1.0 for word in WORDS])
WORDS_A_CAPTION = 11

SELECT = """
import json, os, re, sys, time
from pathlib import Path
from bcos_diffusion.laion.objects import PAPER, parse_objects
from bcos_diffusion.laion.scan import Plan
from bcos_diffusion.laion.select import select
def peak_mb():  # what getrusage says is of the process that started this one, too
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
if __name__ == "__main__":
    before = peak_mb()
    began, cpu = time.monotonic(), sum(os.times()[:4])
    summary = select([sys.argv[1]], Path(sys.argv[2]), Plan(parse_objects(PAPER)), int(sys.argv[3]))
    seconds, cpu = time.monotonic() - began, sum(os.times()[:4]) - cpu
    print(json.dumps({"rows": summary["rows"], "pairs": summary["pairs"], "seconds": seconds, "cpu_seconds": cpu,
                      "matched": {name: about["matched"] for name, about in summary["objects"].items()},
                      "start_mb": before, "peak_mb": peak_mb()}))
"""


def write_metadata(folder: Path, files: int, rows: int) -> float:
    """Files with the columns of LAION-2B-en-aesthetics and captions of eleven words; returns their size in MB."""
    folder.mkdir(parents=True)
    words = pa.array(WORDS)
    for number in range(files):
        draw = np.random.default_rng(number)
        picked = draw.choice(len(WORDS), (WORDS_A_CAPTION, rows), p=COMMON / COMMON.sum())
        captions = pc.binary_join_element_wise(*(words.take(pa.array(column)) for column in picked), " ")
        hosts = pa.array([f"https://host-{n}.example.com/images/" for n in range(1000)])
        numbers = pa.array(draw.integers(0, 10**12, rows)).cast(pa.string())
        table = pa.table({
            "URL": pc.binary_join_element_wise(hosts.take(pa.array(draw.integers(0, 1000, rows))), numbers, ""),
            "TEXT": captions,
            "WIDTH": draw.integers(100, 3000, rows),
            "HEIGHT": draw.integers(100, 3000, rows),
            "similarity": draw.normal(0.31, 0.03, rows),
            "hash": draw.integers(0, 2**62, rows),
            "punsafe": draw.random(rows),
            "pwatermark": draw.random(rows),
            "aesthetic": draw.normal(5.2, 0.5, rows),
        })  # fmt: skip
        pq.write_table(table, folder / f"part-{number:05d}.snappy.parquet", row_group_size=500_000)
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def measure_select(files: int, rows: int) -> list[dict[str, Any]]:
    """Rows per second and peak memory, with one process and with two, over the same files."""
    measured = []
    with tempfile.TemporaryDirectory() as name:
        megabytes = write_metadata(Path(name) / "meta", files, rows)
        for workers in (1, 2):
            command = [sys.executable, "-c", SELECT, f"{name}/meta", f"{name}/out-{workers}", str(workers)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            if workers > 1:  # what was measured is the process that waits for the others
                del found["peak_mb"], found["start_mb"]
            rate = found["rows"] / found["seconds"]
            measured.append(
                {"workers": workers, "files": files, "metadata_mb": megabytes, "rows_per_second": rate, **found}
            )
    return measured


def write_shards(folder: Path, shards: int, samples: int, encoding: str) -> None:
    """Shards of images of 256 x 341 pixels: smooth shapes and a little noise."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(samples):
                coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8))
                smooth = np.asarray(coarse.resize((341, 256), Image.Resampling.BICUBIC)).astype(float)
                pixels = np.clip(smooth + draw.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
                file = io.BytesIO()
                options = {"quality": 95} if encoding == "JPEG" else {}
                Image.fromarray(pixels).save(file, encoding, **options)
                kind = {"JPEG": "jpg", "PNG": "png"}[encoding]
                for ending, data in ((kind, file.getvalue()), ("txt", b"a cat on a sofa"), ("json", b"{}")):
                    member = tarfile.TarInfo(f"{shard:05d}{number:04d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def measure_shards(shards: int, samples: int) -> list[dict[str, Any]]:
    """Samples per second of making the index and of reading batches of 64 at random positions."""
    measured = []
    with tempfile.TemporaryDirectory() as name:
        for encoding in ("JPEG", "PNG"):
            folder = Path(name) / encoding
            write_shards(folder, shards, samples, encoding)
            size = sum(path.stat().st_size for path in folder.glob("*.tar")) / (shards * samples)
            for threads in (1, 2):
                began, cpu = time.monotonic(), time.process_time()
                data = ShardData(folder, cache=Path(name) / f"{encoding}-{threads}", threads=threads, flip=True)
                indexed, cpu_indexed = time.monotonic(), time.process_time()
                for first in range(0, len(data), 64):
                    data.batch(range(first, first + 64))
                ended, cpu_ended = time.monotonic(), time.process_time()
                read = -(-len(data) // 64) * 64
                measured.append({
                    "encoding": encoding,
                    "threads": threads,
                    "samples": len(data),
                    "kb_per_sample": size / 1e3,
                    "indexed_per_second": len(data) / (indexed - began),
                    "indexed_per_cpu_second": len(data) / (cpu_indexed - cpu),
                    "samples_per_second": read / (ended - indexed),
                    "samples_per_cpu_second": read / (cpu_ended - cpu_indexed),
                })  # fmt: skip
    return measured


def main() -> None:
    """Measure both and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=6)
    parser.add_argument("--rows", type=int, default=500_000, help="rows of each file")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--samples", type=int, default=1000, help="samples of each shard")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    selecting = measure_select(options.files, options.rows)
    for row in selecting:
        print({name: value for name, value in row.items() if name != "matched"})
    reading = measure_shards(options.shards, options.samples)
    print_table(reading)
    if options.out is not None:
        write_json(options.out, {"machine": describe("cpu"), "load": load, "select": selecting, "shards": reading})


if __name__ == "__main__":
    main()
