"""The command line as a test runs it: on a tiny model, and what a command that fails may say and leave."""

import subprocess
import sys
from pathlib import Path

import pytest

from bcos_diffusion import cli
from bcos_diffusion.networks.unet import UNetConfig

SHAPE = UNetConfig(24, 4, (8, 16), 1, (False, True), (True, True), heads=2, text_dim=8, time_dim=8)
PROMPT = "two broccolis left of a cat , blue"


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, by path: the bytes of files, None for folders."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail without leaving a trace; returns its one line."""
    before = content(Path.cwd())
    assert cli.main([str(a) for a in arguments]) != 0
    assert content(Path.cwd()) == before
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and output.err.startswith("bcos-diffusion: error: ")
    assert "Traceback" not in output.err and ".bcos-" not in output.err
    return output.err


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)
