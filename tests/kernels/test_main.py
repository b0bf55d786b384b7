"""python -m bcos_kernels: what it says, to people and to machines, and when it fails."""

import json
import subprocess
import sys

import pytest
import torch

from bcos_kernels import __main__ as command
from bcos_kernels import dispatch, native


def run(capsys, *arguments):
    code = command.main(list(arguments))
    return code, capsys.readouterr()


def test_as_a_command():
    done = subprocess.run([sys.executable, "-m", "bcos_kernels", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["self_check"]["passed"] is True


def test_report_for_machines(capsys):
    code, printed = run(capsys, "--json")
    found = json.loads(printed.out)
    assert code == 0
    assert found["versions"]["torch"] == torch.__version__
    assert set(found["built"]) == {"cpu", "cuda"}
    for built in found["built"].values():
        assert built["loaded"] or built["why_not"]
    for op in ("bcos_linear", "bcos_conv2d"):
        backend = found["ops"][op]["cpu"]
        assert {backend["runs"], *backend["refused"]} == set(dispatch.BACKENDS)
        assert all(backend["refused"].values())
    errors = found["self_check"]["errors"]["cpu"]
    assert len(errors) >= 2 and all(0 <= error <= found["self_check"]["tolerance"] for error in errors.values())


def test_report_for_people(capsys):
    code, printed = run(capsys)
    assert code == 0
    for expected in (torch.__version__, "bcos_linear", "bcos_conv2d", "extension cpu", "extension cuda", "not ", "ok"):
        assert expected in printed.out
    assert "FAILED" not in printed.out


def test_says_why_the_extension_does_not_run(capsys, monkeypatch):
    monkeypatch.setattr(native, "load", lambda name="cpu": None)
    monkeypatch.setattr(native, "why_missing", lambda name="cpu": "no compiler was found")
    code, printed = run(capsys)
    assert code == 0  # the reference is enough
    assert "not cpu: no compiler was found" in printed.out


@pytest.mark.parametrize("wrong", ["scale", "scale_backward", "spread"])
def test_a_wrong_kernel_fails_the_check(wrong, capsys, monkeypatch):
    backend = dispatch.epilogue(torch.ones(1))
    original = getattr(backend, wrong)

    def off(first, second, *rest):
        return original(first, second * 1.001, *rest)

    monkeypatch.setattr(backend, wrong, off)  # off by a thousandth: the norm, what was kept, the input
    code, printed = run(capsys)
    assert code == 1
    assert "FAILED" in printed.out


def test_a_wrong_switch_is_one_clear_line(capsys, monkeypatch):
    monkeypatch.setattr(dispatch, "wanted", "fastest")
    code, printed = run(capsys)
    assert code == 1
    assert printed.err.count("\n") == 1 and "BCOS_BACKEND" in printed.err
