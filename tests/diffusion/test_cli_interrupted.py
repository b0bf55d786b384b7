"""A command that the system stops, by a full disk, a limit or a signal, leaves nothing half written."""

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from references.commands import PROMPT, content, refused, run

from bcos_diffusion import cli

pytestmark = pytest.mark.usefixtures("elsewhere")


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("victim", ["picture", "figure", "tensors", "json"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_disk_that_fills_while_saving_leaves_nothing_new(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, victim: str, exists: bool
) -> None:
    if exists:
        assert cli.main(["explain", "dog", "--model", str(model), "--out", "out"]) == 0
        capsys.readouterr()
    target = {
        "picture": "PIL.Image.Image.save",
        "figure": "matplotlib.figure.Figure.savefig",
        "tensors": "bcos_kernels.files.save_file",
        "json": "pathlib.Path.write_text",
    }[victim]
    monkeypatch.setattr(target, full)
    line = refused(capsys, "explain", "cat", "--model", model, "--out", "out")
    assert "No space left on device" in line and str(Path("out").absolute()) in line


@pytest.mark.parametrize("command", [["generate", "cat"], ["data", "--count", "3"]])
def test_other_commands_on_a_full_disk(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr("PIL.Image.Image.save", full)
    options = [] if command[0] == "data" else ["--model", model]
    assert "No space left on device" in refused(capsys, *command, *options, "--out", "new/out")


def test_a_real_limit_on_file_size_leaves_nothing(model: Path) -> None:
    """The system itself refuses the write, in the middle of a file."""
    program = (
        "import resource, sys; from bcos_diffusion.cli import main\n"
        "import bcos_diffusion.explanation.figure, bcos_diffusion.explain  # imports may write caches\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); sys.exit(main())"
    )
    done = run(program, "explain", PROMPT, "--model", model, "--out", "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("bcos-diffusion: error: ") and "File too large" in done.stderr
    assert content(Path.cwd()) == {}


def test_ending_the_process_leaves_nothing(model: Path) -> None:
    program = "import sys; from bcos_diffusion.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "explain", PROMPT, "--model", model, "--steps", 1000, "--out", "out"]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not content(Path.cwd()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert content(Path.cwd()), "it never began to write"
    process.terminate()
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert content(Path.cwd()) == {}
