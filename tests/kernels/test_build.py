"""setup.py: what is built, what is recorded, and an install that works without any compiler."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from bcos_kernels import native

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("pybind11", reason="building needs pybind11")


def _build(source, target, **environment):
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(target), "--build-temp", f"{target}.objects"]
    return subprocess.run(
        command, cwd=source, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def _info(target):
    return json.loads((target / "bcos_kernels" / "_build.json").read_text())


def _copy(target):
    """A source tree as git has it, without what was built in place."""
    for name in ("setup.py", "pyproject.toml", "README.md", "MANIFEST.in", "LICENSE", "LICENSE-weights.md"):
        if (ROOT / name).exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    ignored = shutil.ignore_patterns("*.so", "_build.json", "__pycache__", "*.egg-info")
    for name in ("csrc", "bcos_kernels", "bcos_diffusion"):
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    return target


def test_without_a_compiler_the_build_succeeds_and_says_why(tmp_path):
    before = sorted((ROOT / "bcos_kernels").glob("*.so"))
    result = _build(
        ROOT, tmp_path / "lib", CXX="/nonexistent/c++", CC="/nonexistent/cc", LDSHARED="/nonexistent/cc", BCOS_CUDA="0"
    )
    assert result.returncode == 0, result.stderr
    info = _info(tmp_path / "lib")
    assert not info["cpu"]["built"] and "/nonexistent" in info["cpu"]["why"]
    assert info["cuda"] == {"built": False, "why": "switched off by BCOS_CUDA=0"}
    assert not list((tmp_path / "lib").rglob("*.so"))
    assert sorted((ROOT / "bcos_kernels").glob("*.so")) == before  # what was built in place is another build's


def test_a_failed_build_leaves_no_extension_of_an_earlier_one(tmp_path):
    name = f"_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"
    stale = tmp_path / "lib" / "bcos_kernels" / name
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"an extension of another version")
    os.utime(stale, (0, 0))
    assert _build(_copy(tmp_path / "source"), tmp_path / "lib", CXX="/nonexistent/c++", BCOS_CUDA="0").returncode == 0
    assert not stale.exists()


@pytest.mark.parametrize(("wish", "message"), [("1", "nvcc"), ("yes", "auto, 0 or 1")])
def test_a_wish_for_cuda_that_cannot_be_met_fails_loudly(tmp_path, wish, message):
    environment = {"CUDA_HOME": "", "CUDA_PATH": "", "PATH": str(tmp_path), "CXX": "/nonexistent/c++"}
    if Path("/usr/local/cuda/bin/nvcc").exists():
        environment["CUDA_HOME"] = str(_broken_nvcc(tmp_path))
    result = _build(ROOT, tmp_path / "lib", BCOS_CUDA=wish, **environment)
    assert result.returncode != 0 and message in result.stderr


def test_a_broken_nvcc_is_recorded_and_not_fatal(tmp_path):
    result = _build(ROOT, tmp_path / "lib", CUDA_HOME=str(_broken_nvcc(tmp_path)), CXX="/nonexistent/c++")
    assert result.returncode == 0, result.stderr
    why = _info(tmp_path / "lib")["cuda"]["why"]
    assert "unsupported host compiler" in why


def _broken_nvcc(folder):
    nvcc = folder / "cuda" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(
        "#!/bin/sh\n[ $1 = --list-gpu-arch ] && echo compute_80 && exit 0\necho unsupported host compiler >&2\nexit 1\n"
    )
    nvcc.chmod(0o755)
    return folder / "cuda"


def test_what_is_missing_is_explained(tmp_path, monkeypatch):
    native._import.cache_clear()
    native.build_info.cache_clear()
    record = tmp_path / "_build.json"
    monkeypatch.setattr(native, "_BUILD", record)
    monkeypatch.setitem(sys.modules, "bcos_kernels._cuda", None)  # an import that fails
    try:
        assert native.load("cuda") is None
        assert "never built" in native.why_missing("cuda")
        for entry, words in [
            ({"built": False, "why": "nvcc was not found"}, "nvcc was not found"),
            ({"built": True, "compiler": "nvcc", "flags": []}, "does not load"),
        ]:
            native._import.cache_clear()
            native.build_info.cache_clear()
            record.write_text(json.dumps({"cuda": entry}))
            assert words in native.why_missing("cuda")
        with pytest.raises(ValueError, match="rocm"):
            native.load("rocm")
    finally:
        native._import.cache_clear()
        native.build_info.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["found", "missing"])
def test_the_wheel_holds_extension_record_and_weights(tmp_path, compiler):
    source = _copy(tmp_path / "source")
    weights = source / "bcos_diffusion" / "weights" / "model"
    weights.mkdir(parents=True, exist_ok=True)
    (weights / "probe.json").write_text("{}")
    environment = {**os.environ, "BCOS_CUDA": "0"} | ({"CXX": "/nonexistent/c++"} if compiler == "missing" else {})
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    result = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("bcos_kernels/_cpu") and name.endswith(".so") for name in names) == (compiler == "found")
    assert "bcos_kernels/_build.json" in names and "bcos_kernels/py.typed" in names
    assert "bcos_diffusion/weights/model/probe.json" in names
    assert not [name for name in names if name.startswith(("tests", "csrc", "benchmarks"))]
