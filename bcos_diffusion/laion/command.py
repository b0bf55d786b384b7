"""``bcos-diffusion laion``: select, download, check. Heavy imports happen inside the commands."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

PROGRAM = "bcos-diffusion laion"
DESCRIPTION = "LAION as the paper uses it: select captions that name an object, download the images, check them."


def select(
    metadata: tyro.conf.Positional[tuple[str, ...]],
    out: Path = Path("laion-selection"),
    objects: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME[=PLURAL,…] …")] = (),
    per_object: int = 20_000,
    max_punsafe: Annotated[float | None, tyro.conf.arg(metavar="P")] = None,
    max_pwatermark: Annotated[float | None, tyro.conf.arg(metavar="P")] = None,
    min_side: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None,
    workers: int = 1,
) -> None:
    """Select the pairs whose caption names an object, the best by similarity; run again to go on.

    Args:
        metadata: Parquet files, folders or globs, local or URLs such as hf://datasets/NAME.
        out: Folder for selection.parquet and selection.json.
        objects: What captions must name; without it, the paper's: banana, cat, goat, flamingo, penguin.
        per_object: Pairs to keep for each object.
        max_punsafe: Keep only what the metadata rates at most so unsafe; the paper has no such rule.
        max_pwatermark: Keep only what it rates at most so likely watermarked; the paper has no such rule.
        min_side: Keep only images with sides of at least so many pixels; the paper has no such rule.
        workers: Processes that read files.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError("pyarrow is not installed; pip install 'bcos-kernels[laion]' installs it")
    from bcos_diffusion.laion.objects import PAPER, parse_objects
    from bcos_diffusion.laion.scan import Plan
    from bcos_diffusion.laion.select import describe
    from bcos_diffusion.laion.select import select as run

    if not metadata:
        raise ValueError("give at least one parquet file, folder or glob of metadata")
    plan = Plan(parse_objects(objects or PAPER), per_object, max_punsafe, max_pwatermark, min_side)
    with tqdm(unit="file", disable=None, leave=False) as bar:

        def progress(done: int, files: int, rows: int) -> None:
            bar.total, bar.n = files, done
            bar.set_postfix(rows=f"{rows:,}")

        summary = run(metadata, out, plan, workers, progress)
    print(describe(summary))
    print(f"wrote {out / 'selection.parquet'}; download with: {PROGRAM} download {out} --out FOLDER")


def download(
    selection: tyro.conf.Positional[Path],
    out: Path = Path("laion-shards"),
    shorter_side: int = 256,
    encoding: Literal["jpg", "png", "webp"] = "jpg",
    samples_per_shard: int = 1000,
    processes: int = 1,
    threads: int = 64,
    timeout: int = 10,
    retries: int = 1,
    program: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None,
) -> None:
    """Download what was selected into webdataset shards with img2dataset; run again to go on.

    Args:
        selection: Folder that `select` wrote, or a parquet file with columns url, caption, similarity, objects.
        out: Folder for the shards.
        shorter_side: Reduce larger images to it; 0 stores files as they are served.
        encoding: Of stored images: jpg of quality 95, or png or webp without loss.
        samples_per_shard: Pairs attempted for each shard.
        processes: Processes that download.
        threads: Threads of each process.
        timeout: Seconds to wait for an image.
        retries: How often to try an image again.
        program: Path of img2dataset, where it is not on PATH.
    """
    from bcos_diffusion.laion.download import Storage, describe
    from bcos_diffusion.laion.download import download as run

    file = selection / "selection.parquet" if selection.is_dir() else selection
    storage = Storage(shorter_side, encoding, samples_per_shard)
    print(describe(run(file, out, storage, processes, threads, timeout, retries, program)))
    print(f"wrote {out}; look at it with: {PROGRAM} check {out}")


def check(
    shards: tyro.conf.Positional[Path],
    out: Path = Path("laion-check"),
    size: int = 64,
    count: int = 64,
    cache: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
) -> None:
    """Read every sample once: what is usable, what is skipped and why, a sheet of samples as PNG.

    Args:
        shards: Folder of webdataset shards.
        out: Folder for samples.png and check.json.
        size: Side of the images that a model would see.
        count: Samples on the sheet.
        cache: Where the index of the shards goes; without it, into their folder. Training reads it again.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    from bcos_diffusion.laion.check import as_text, describe, write_sheet
    from bcos_diffusion.laion.shards import ShardData
    from bcos_diffusion.staging import staged
    from bcos_kernels.files import write_json

    with staged(out) as folder:
        with tqdm(unit="shard", disable=None, leave=False) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            data = ShardData(shards, size, cache=cache, progress=progress)
        about = describe(data)
        write_json(folder / "check.json", about)
        write_sheet(data, folder / "samples.png", count)
    print(data.report)
    print(as_text(about))
    print(f"{out / 'samples.png'} shows {min(count, len(data))} samples; {out / 'check.json'} names what is skipped")


COMMANDS: dict[str, Callable[..., None]] = {"select": select, "download": download, "check": check}
