"""Keep what training runs said of themselves: every fifth report of their logs.

    python benchmarks/training_log.py --run runs/twin --run runs/twin-more --name twin

Several runs are one training, each started from the weights of the one before. Writes
benchmarks/results/training_NAME.json, which model cards and docs go by.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bcos_kernels.files import write_json

RESULTS = Path(__file__).parent / "results"


def keep(runs: Sequence[Path], name: str) -> list[dict[str, Any]]:
    """Write every fifth report of runs to the results under a name, and return all of them.

    Steps and samples count on from run to run; of steps that were taken again after a stop the last report stands.
    """
    reports: list[dict[str, Any]] = []
    for run in runs:
        lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
        own = {report["step"]: report for report in map(json.loads, lines)}
        before = {key: reports[-1][key] if reports else 0 for key in ("step", "samples")}
        reports += [own[step] | {key: own[step][key] + before[key] for key in before} for step in sorted(own)]
    write_json(RESULTS / f"training_{name}.json", {"model": name, "reports": reports[::5]})
    return reports


def main() -> None:
    """Keep the logs of one training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, action="append")
    parser.add_argument("--name", required=True)
    options = parser.parse_args()
    print(f"{len(keep(options.run, options.name))} reports")


if __name__ == "__main__":
    main()
