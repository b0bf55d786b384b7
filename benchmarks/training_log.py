"""Keep what a training run said of itself: every fifth report of its log.

    python benchmarks/training_log.py --run runs/twin --name twin

Writes benchmarks/results/training_NAME.json, which model cards and docs go by.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bcos_kernels.files import write_json

RESULTS = Path(__file__).parent / "results"


def keep(run: Path, name: str) -> list[dict[str, Any]]:
    """Write every fifth report of a run to the results under a name, and return all of them."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    reports = [json.loads(line) for line in lines]
    write_json(RESULTS / f"training_{name}.json", {"model": name, "reports": reports[::5]})
    return reports


def main() -> None:
    """Keep the log of one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--name", required=True)
    options = parser.parse_args()
    print(f"{len(keep(options.run, options.name))} reports")


if __name__ == "__main__":
    main()
