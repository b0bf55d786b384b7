"""A whole sweep of features, timed: what layers of several models know, and how long it takes to find out.

    python benchmarks/feature_sweep.py --models scenes-32 vanilla=FOLDER dit=FOLDER --count 4000 --workers 2 \
        --folder sweep --out benchmarks/results/feature_sweep.json

The result is the sweep's ``report.json`` with the seconds that this run took, which are those of the whole sweep where
``folder`` was empty before; of one that goes on, nothing is said.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bcos_diffusion.features.commands.sweep import sweep
from bcos_kernels.files import read_json, write_json


def main() -> None:
    """Run the sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=SOURCE")
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    whole = not given.folder.exists()
    start = time.perf_counter()
    sweep(tuple(given.models), count=given.count, workers=given.workers, out=given.folder)
    seconds = time.perf_counter() - start
    write_json(given.out, read_json(given.folder / "report.json") | {"seconds": seconds if whole else None})


if __name__ == "__main__":
    main()
