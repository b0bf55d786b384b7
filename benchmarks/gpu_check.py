"""Everything that a machine with a GPU can tell, within ten minutes: build, test, time, train; a table last.

    python benchmarks/gpu_check.py --out benchmarks/results

Each stage is its own process with its own limit, so that one that hangs or fails does not hide the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


DEVICE_TESTS = [
    "tests/gpu",
    "tests/benchmarks/test_device.py",
    *(
        f"tests/kernels/test_{name}.py"
        for name in ("device_layers", "cuda_kernels", "triton_norms", "dense", "epilogue", "contribution")
    ),
    "tests/kernels/test_attention_relevance.py",
    "tests/diffusion/features/sae/test_sparse.py",
]


def stages(folder: Path) -> dict[str, tuple[list[str], int]]:
    """Command and limit in seconds of every stage, in order; the limits add up to less than ten minutes."""
    python = sys.executable
    checker = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ["PATH"], "/usr/local/cuda/bin"]))
    small = [python, "-m", "pytest", "-q", "-x", "tests/kernels/test_device_layers.py", "-k", "patch or stack"]
    memory = {"memory": ([checker, "--error-exitcode", "9", *small], 70)} if checker else {}
    return {
        "build": ([python, "setup.py", "build_ext", "--inplace"], 90),
        "self-check": ([python, "-m", "bcos_kernels"], 30),
        "tests": ([python, "-m", "pytest", "-q", *DEVICE_TESTS], 140),
        **memory,
        "epilogue": (epilogue(folder), 35),
        "sparse sums": (sparse(folder), 30),
        "layers bf16": (layers(folder, "bfloat16"), 65),
        "layers fp32": (layers(folder, "float32"), 65),
        "training": ([python, "benchmarks/training_rate.py", "--out", str(folder / "gpu_training_rate.json")], 70),
    }


def epilogue(folder: Path) -> list[str]:
    """Triton beside CUDA C++."""
    command = [sys.executable, "-m", "benchmarks.epilogue", "--dtype", "bfloat16", "--seconds", "12"]
    return [*command, "--out", str(folder / "gpu_epilogue.json")]


def sparse(folder: Path) -> list[str]:
    """The sums of a k-sparse autoencoder, up to the size of Stable Diffusion's."""
    command = [sys.executable, "benchmarks/sparse_decode.py", "--device", "cuda", "--shapes", "small", "large"]
    return [*command, "--rounds", "5", "--out", str(folder / "gpu_sparse_decode.json")]


def layers(folder: Path, dtype: str) -> list[str]:
    """The report on the shapes that stand for the others."""
    report = [sys.executable, "-m", "benchmarks", "report", "--device", "cuda", "--quick", "--limit-seconds", "50"]
    stem = folder / f"gpu_layers_{dtype}"
    return [*report, "--dtype", dtype, "--json", f"{stem}.json", "--plot", f"{stem}.png"]


def run(command: list[str], limit: int, tables: Path) -> dict[str, Any]:
    """Run one stage; its last line of output is kept for the table, and what is tuned in ``tables``."""
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BCOS_CACHE": str(tables)}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit,
        )
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, output = 124, str(error.stdout or "")
    print(output[-6000:], flush=True)
    lines = [line for line in output.splitlines() if line.strip()]
    return {"exit": code, "seconds": time.monotonic() - began, "last": lines[-1][:70] if lines else ""}


def main() -> int:
    """Run all stages; the exit code is 0 only if every one passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, (command, limit) in stages(options.out.resolve()).items():
        print(f"== {name}: {' '.join(command)}", flush=True)
        results[name] = run(command, limit, options.out.resolve() / "tuned")
    with tempfile.NamedTemporaryFile("w", dir=options.out, delete=False) as handle:
        json.dump(results, handle, indent=2)
    os.replace(handle.name, options.out / "gpu_check.json")
    print(f"\n{'stage':<12} {'result':<8} {'seconds':>8}  last line")
    for name, result in results.items():
        verdict = "ok" if result["exit"] == 0 else f"exit {result['exit']}"
        print(f"{name:<12} {verdict:<8} {result['seconds']:>8.1f}  {result['last']}")
    return int(any(result["exit"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
