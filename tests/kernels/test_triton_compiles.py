"""Every Triton kernel compiles for the devices we name, within their registers; no device is needed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


# Bytes of shared memory that a block can have.
SHARED = {80: 166912, 90: 232448, 100: 232448}


def compile_for(tmp_path, *arguments, module="references.compile_triton"):
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    environment = {**kept, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


EVERY = [90, pytest.param(80, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.slow)]


@pytest.mark.parametrize("architecture", EVERY)
def test_kernels_compile_without_spills_and_read_wide_words(architecture, tmp_path):
    found = compile_for(tmp_path, architecture)
    assert len({variant["kernel"] for variant in found}) == 14
    for variant in found:
        assert variant["spilled"] == 0, variant
        assert variant["registers"] <= 128, variant  # four blocks of 128 threads fit a multiprocessor
        assert variant["shared"] <= 16384, variant
        if variant["known"].get("steps") == 1:
            continue  # one element a program, or lines that do not follow one another: compiled, not fast
        # What is kept per pixel is fp32 and read at shifted places.
        assert variant["load_bits"] == (32 if variant["kernel"] == "box_norm_kernel" else 128), variant


@pytest.mark.slow
@pytest.mark.parametrize("power", ["one", "half", "any"])
@pytest.mark.parametrize("architecture", SHARED)
def test_products_fit_the_device(architecture, power, tmp_path):
    found = compile_for(tmp_path, architecture, power)
    assert {variant["kernel"] for variant in found} == {"forward_kernel", "backward_kernel"}
    for variant in found:
        assert variant["spilled"] <= 64, variant
        assert variant["shared"] <= SHARED[architecture], variant


@pytest.mark.slow
@pytest.mark.parametrize("architecture", SHARED)
def test_kernels_of_relevance_compile_without_spills(architecture, tmp_path):
    found = compile_for(tmp_path, architecture, module="references.compile_relevance")
    assert len({variant["kernel"] for variant in found}) == 4
    for variant in found:
        assert variant["spilled"] == 0, variant
        if variant["kernel"] == "contribution_kernel":
            assert variant["registers"] <= 128 and variant["shared"] <= 16384, variant
            assert variant["load_bits"] == 128, variant
        else:  # products of matrices: two blocks of 128 threads fit a multiprocessor
            assert variant["registers"] <= 255 and variant["shared"] <= 81920, variant
