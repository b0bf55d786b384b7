"""Every figure and table of the paper on scenes-32: numbers for the tables of docs/paper.md, and its pictures.

    python benchmarks/paper.py --runs runs/paper --out benchmarks/results/paper.json

Each figure is one command of ``bcos-diffusion paper``. Name some to run those alone; what has run before is collected
again, and the tables of tokens and of quality go on where they were cut.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from machine import describe

from bcos_diffusion import cli
from bcos_kernels.files import write_json

MODEL = "scenes-32"
IMAGES = Path(__file__).parent.parent / "docs" / "images"
COMMANDS: dict[str, list[str]] = {
    "samples": [],
    "reconstruction": ["--count", "30"],
    "failure": ["--count", "200"],
    "epsilon": [],
    "edits": ["--count", "30"],
    "tokens": ["--count", "100000"],
    "quality": ["--count", "500"],
}
RAW = ("measured", "objects", "words", "drawn_by_word")
"""What stays in the folder of a command: an entry per picture, not a table."""


def collect(runs: Path) -> dict[str, Any]:
    """The numbers of every command that has run, and its picture beside the docs."""
    found = {}
    for name in COMMANDS:
        path = runs / name / f"{name}.json"
        if path.is_file():
            values = json.loads(path.read_text(encoding="utf-8"))
            found[name] = {key: value for key, value in values.items() if key not in RAW}
            shutil.copyfile(runs / name / f"{name}.png", IMAGES / f"paper-{name}.png")
    return found


def main() -> int:
    """Run the commands, then collect all that have run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", choices=[*COMMANDS, []], help="those to run; all if not given")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"), help="folder with one folder a command")
    parser.add_argument("--collect", action="store_true", help="run none, collect what has run")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    for name in [] if options.collect else options.commands or COMMANDS:
        failed = cli.main(["paper", name, *COMMANDS[name], "--model", MODEL, "--out", str(options.runs / name)])
        if failed:
            return failed
    if options.out is not None:
        write_json(options.out, {"machine": describe(), **collect(options.runs)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
