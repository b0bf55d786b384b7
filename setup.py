"""Build the native extensions; everything else is declared in pyproject.toml.

``bcos_kernels._cpu`` is built where a C++ compiler works, ``bcos_kernels._cuda`` where nvcc does
(``BCOS_CUDA=auto|0|1``: if it can, never, or fail). The package works without either, so a failure does not
stop the install: the reason goes to ``bcos_kernels/_build.json``, which ``python -m bcos_kernels`` prints.
Neither links against torch: an upgrade of torch does not break them.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pybind11
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, has_flag
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError
from setuptools.modified import newer_group

ARCHITECTURES = ("80", "90", "100")
# No errno and no floating-point traps: square roots and selections then vectorise. Results stay IEEE.
UNIX_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
MSVC_FLAGS = ["/O2", "/openmp:experimental"]


def sources(folder: str, *suffixes: str) -> list[str]:
    return sorted(path.as_posix() for suffix in suffixes for path in Path(folder).glob(f"*{suffix}"))


def extensions() -> list[Extension]:
    shared = sources("csrc", ".hpp")
    cpu = Pybind11Extension(
        "bcos_kernels._cpu",
        ["csrc/bindings.cpp", *sources("csrc/cpu", ".cpp")],
        depends=[*shared, *sources("csrc/cpu", ".hpp")],
        cxx_std=17,
    )
    cuda = Extension(
        "bcos_kernels._cuda",
        sources("csrc/cuda", ".cu", ".cpp"),
        depends=[*shared, *sources("csrc/cuda", ".hpp", ".cuh")],
    )
    cpu.optional = cuda.optional = True
    return [cpu, cuda]


def first_line(command: list[str]) -> str:
    """What a tool says it is."""
    try:
        printed = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        return f"{command[0]} ({error.strerror})"
    lines = [line for line in printed.splitlines() if line]
    if not lines:
        return command[0]
    return lines[-1] if "nvcc" in command[0] else lines[0]


def find_nvcc() -> str | None:
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if home and (found := shutil.which("nvcc", path=os.path.join(home, "bin"))):
            return found
    return shutil.which("nvcc")


def cuda_wish() -> str:
    wish = os.environ.get("BCOS_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        raise SystemExit(f"BCOS_CUDA must be auto, 0 or 1, got {wish!r}")
    return wish


class BuildNative(build_ext):
    """Builds what can be built and records what could not, and why."""

    def run(self) -> None:
        self.info: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine()}
        cuda_wish()  # a typing mistake should not cost a compilation
        self.into_source = bool(self.inplace)  # setuptools hides it while it builds
        super().run()
        target = Path(self.get_ext_fullpath("bcos_kernels._cpu")).parent / "_build.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self.info, indent=2) + "\n")
        temporary.replace(target)

    def build_extension(self, ext: Extension) -> None:
        name = ext.name.rpartition("_")[2]
        build = self.build_cuda if name == "cuda" else self.build_cpu
        try:
            self.info[name] = {"built": True, **build(ext)}
        except (BaseError, CCompilerError, OSError) as error:
            self.info[name] = {"built": False, "why": str(error)}
            self.warn(f"{ext.name} was not built: {error}")
            self.discard(ext)

    def build_cpu(self, ext: Extension) -> dict[str, Any]:
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args += MSVC_FLAGS
        else:
            flags = list(UNIX_FLAGS)
            # Apple's compiler has no OpenMP; the kernels then run on one thread.
            if sys.platform != "darwin" and has_flag(self.compiler, "-fopenmp"):
                flags.append("-fopenmp")
                ext.extra_link_args.append("-fopenmp")
            ext.extra_compile_args += flags
        with ParallelCompile(default=os.cpu_count() or 1):
            super().build_extension(ext)
        command = getattr(self.compiler, "compiler_cxx", None) or [self.compiler.compiler_type]
        return {"compiler": first_line(command[:1]), "flags": ext.extra_compile_args}

    def build_cuda(self, ext: Extension) -> dict[str, Any]:
        wish = cuda_wish()
        if wish == "0":
            raise BaseError("switched off by BCOS_CUDA=0")
        try:
            return self.run_nvcc(ext)
        except BaseError as error:
            if wish == "1":
                raise SystemExit(f"BCOS_CUDA=1 asks for the CUDA kernels, but {error}") from error
            raise

    def run_nvcc(self, ext: Extension) -> dict[str, Any]:
        nvcc = find_nvcc()
        if nvcc is None:
            raise BaseError("nvcc was not found in CUDA_HOME, CUDA_PATH, /usr/local/cuda or PATH")
        flags = ["-O3", "-std=c++17", "-cudart=static", "--threads=0"]
        if sys.platform == "win32":
            flags += ["-Xcompiler=/MD", f"-L{sys.base_prefix}/libs"]
        else:
            flags.append("-Xcompiler=-fPIC,-fvisibility=hidden")
        supported = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=False).stdout
        architectures = [arch for arch in ARCHITECTURES if f"compute_{arch}" in supported.split()]
        if not architectures:
            raise BaseError(f"{nvcc} supports none of the architectures {', '.join(ARCHITECTURES)}")
        flags += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in architectures]
        flags.append(f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")  # newer devices
        target = Path(self.get_ext_fullpath(ext.name))
        if self.force or newer_group([*ext.sources, *ext.depends], str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
            command = [nvcc, "-shared", *flags, *includes, *ext.sources, "-o", str(target)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise BaseError(f"nvcc failed: {(result.stderr or result.stdout).strip()[-2000:]}")
        return {"compiler": first_line([nvcc]), "flags": flags}

    def discard(self, ext: Extension) -> None:
        """Remove what an earlier build left: it would not match what is recorded."""
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        if self.into_source:
            Path(self.get_ext_filename(self.get_ext_fullname(ext.name))).unlink(missing_ok=True)

    def copy_file(self, infile: Any, outfile: Any, *args: Any, **kwargs: Any) -> Any:
        """Replace at once: another process may be loading the extension from the source folder."""
        temporary = f"{outfile}.{os.getpid()}.tmp"
        super().copy_file(infile, temporary, *args, **kwargs)
        os.replace(temporary, outfile)
        return outfile, 1


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildNative})
