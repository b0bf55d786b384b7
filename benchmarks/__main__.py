"""``python -m benchmarks report``: every op beside every peer, as a table, a picture and JSON."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler otherwise reports each start and stop

import torch

from bcos_kernels.files import write_json
from benchmarks.machine import describe
from benchmarks.networks import layers
from benchmarks.plot import draw
from benchmarks.report import run
from benchmarks.summary import Row, by_network, by_pass, reasons, table

DTYPES = ("float32", "bfloat16", "float16", "float64")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The checked options; a bad one ends the program with one line that says what is accepted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    report = parser.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser(
        "report", help="time every shape with every peer and print the ratios to a plain layer"
    )
    report.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    report.add_argument("--dtype", choices=DTYPES, default="float32")
    report.add_argument("--limit-seconds", type=float, default=900, help="bound of the whole run (default: 900)")
    report.add_argument("--quick", action="store_true", help="only the shapes that stand for the others")
    report.add_argument("--json", type=Path, metavar="FILE", help="write device, versions, commit and all rows")
    report.add_argument("--plot", type=Path, metavar="FILE", default=Path("layers.png"), help="default: layers.png")
    options = parser.parse_args(given)
    if not options.limit_seconds > 0:
        report.error(f"--limit-seconds must be more than 0, got {options.limit_seconds:g}")
    if options.device == "cuda" and not torch.cuda.is_available():
        report.error("--device cuda needs a CUDA device and a torch that is built for it; here is --device cpu only")
    if options.plot.suffix not in (".png", ".svg", ".pdf"):
        report.error(f"--plot must end in .png, .svg or .pdf, got {str(options.plot)!r}")
    for path in (options.json, options.plot):
        if path is not None and path.is_dir():
            report.error(f"{path} is a folder; a file is needed")
    return options


def show(heads: list[str], cells: list[list[str]]) -> None:
    """Print an aligned table."""
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    for line in [heads, ["-" * width for width in widths], *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def show_report(rows: list[Row], caption: str) -> None:
    """Print the rows, what has no number and why, and the summaries."""
    print(f"\n{caption}\nRatios to the plain layer, medians; 1 is the same price.\n")
    show(*table(rows))
    if missing := reasons(rows):
        print("\nNot measured:", *missing, sep="\n")
    print("\nGeometric means over the shapes:\n")
    show(*by_pass(rows))
    heads, cells = by_network(rows)
    if cells:
        print("\nAll layers of a network, each shape as often as the network has it:\n")
        show(heads, cells)


def caption_of(results: dict[str, Any]) -> str:
    """Where, in which type and with which versions."""
    machine = results["machine"]
    threads = f", {machine['threads']} thread(s)" if results["device"] == "cpu" else ""
    return f"{machine['device']}{threads}, {results['dtype']}, torch {machine['torch']}, commit {machine['commit']}"


def main() -> int:
    """Run the command."""
    options = arguments()
    began = time.monotonic()
    chosen = layers(options.device, options.quick)
    rows = run(chosen, options.device, getattr(torch, options.dtype), options.limit_seconds)
    results = {
        "machine": describe(options.device),
        "device": options.device,
        "dtype": options.dtype,
        "seconds": round(time.monotonic() - began, 1),
        "rows": rows,
    }
    try:  # what was measured is on the disk before anything is drawn
        if options.json is not None:
            write_json(options.json, results)
        show_report(rows, caption_of(results))
        draw(rows, caption_of(results), options.plot)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    written = ", ".join(str(path) for path in (options.json, options.plot) if path is not None)
    print(f"\n{len(chosen)} shapes in {results['seconds']:.0f} s; wrote {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
