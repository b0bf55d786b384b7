"""``python -m bcos_diffusion.evaluation --model DIR --out FILE.json``: measure a pipeline's explanations."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bcos_diffusion.evaluation import describe, evaluate
from bcos_diffusion.evaluation.report import for_json, provenance
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import write_json


def main(arguments: list[str] | None = None) -> int:
    """Evaluate, print and write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bcos_diffusion.evaluation", description=__doc__)
    parser.add_argument("--model", required=True, help="pipeline folder or hub id")
    parser.add_argument("--out", required=True, type=Path, help="JSON file to write")
    parser.add_argument("--prompts", type=int, default=100, help="number of test prompts and of test scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None, help="sampling steps; the model's own by default")
    parser.add_argument("--guidance", type=float, default=None, help="guidance; the model's own by default")
    chosen = parser.parse_args(arguments)
    try:
        pipeline = BcosDiffusionPipeline.from_pretrained(chosen.model)
        _check_writable(chosen.out)
        result = evaluate(pipeline, chosen.prompts, chosen.seed, chosen.steps, chosen.guidance)
        print(describe(result))
        write_json(chosen.out, for_json({"provenance": provenance(Path(chosen.model)), "name": pipeline.name} | result))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check_writable(path: Path) -> None:
    """Raise OSError now rather than after minutes of work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


if __name__ == "__main__":
    sys.exit(main())
