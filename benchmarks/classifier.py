"""Train and judge the classifier of ``examples/classify_scenes.py``, and keep its numbers and pictures for the docs.

    python -m benchmarks.classifier --out runs/classifier [--steps 2000]

The same command goes on where it was cut.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

from bcos_kernels.files import write_json
from benchmarks.machine import describe

ROOT = Path(__file__).parent.parent
PICTURES = {"explanations.png": "classifier.png", "grid.png": "classifier_grid.png"}


def example() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("classify_scenes", ROOT / "examples" / "classify_scenes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Run the example, then copy what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    script = example()
    script.main(script.Config(options.out, steps=options.steps))
    found = json.loads((options.out / "results.json").read_text(encoding="utf-8"))
    write_json(ROOT / "benchmarks" / "results" / "classifier.json", found | {"machine": describe("cpu")})
    for source, name in PICTURES.items():
        shutil.copy(options.out / source, ROOT / "docs" / "images" / name)


if __name__ == "__main__":
    main()
