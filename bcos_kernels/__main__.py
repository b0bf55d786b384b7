"""``python -m bcos_kernels [--json]``: versions, what was built, which backend runs what and why, one self-check.

``python -m bcos_kernels pointing-game`` measures explanations of a classifier; see its ``--help``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import Any

import torch

import bcos_kernels
from bcos_kernels import dispatch, native
from bcos_kernels.attribution import command
from bcos_kernels.self_check import TOLERANCE, self_check

OPS = ("bcos_linear", "bcos_conv2d")


def report() -> dict[str, Any]:
    """Everything this command says, as JSON-ready values."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    errors = {device: self_check(device) for device in devices}
    return {
        "versions": {
            "bcos_kernels": bcos_kernels.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        "built": {name: _built(name) for name in ("cpu", "cuda")},
        "ops": {op: {device: _backend(device) for device in devices} for op in OPS},
        "self_check": {
            "errors": errors,
            "tolerance": TOLERANCE,
            "passed": all(error <= TOLERANCE for found in errors.values() for error in found.values()),
        },
    }


def _built(name: str) -> dict[str, Any]:
    loaded = native.load(name) is not None
    return {"loaded": loaded, "why_not": native.why_missing(name), **native.build_info().get(name, {})}


def _backend(device: str) -> dict[str, Any]:
    probe = torch.zeros(1, device=device)
    runs, refused = dispatch.choose(probe), dispatch.refusals(probe)
    rest = {name: f"{runs} comes first" for name in dispatch.BACKENDS if name != runs and name not in refused}
    return {"runs": runs, "refused": refused | rest}


def show(found: dict[str, Any]) -> None:
    """Print the report for people."""
    print(" · ".join(f"{name} {value}" for name, value in found["versions"].items()))
    for name, built in found["built"].items():
        state = f"loaded ({built.get('compiler', 'unknown compiler')})" if built["loaded"] else built["why_not"]
        print(f"extension {name:<10} {state}")
    for op, devices in found["ops"].items():
        for device, backend in devices.items():
            print(f"{op:<12} on {device:<5} {backend['runs']}")
            for name, why in backend["refused"].items():
                print(f"{'':<22}not {name}: {why}")
    for device, errors in found["self_check"]["errors"].items():
        for name, error in errors.items():
            verdict = "ok" if error <= TOLERANCE else "FAILED"
            print(f"self-check on {device}: {name:<18} relative error {error:.1e}  {verdict}")


def main(arguments: list[str] | None = None) -> int:
    """Print the report, 0 only if the self-check passes; or run the command that was named."""
    parser = argparse.ArgumentParser(prog="python -m bcos_kernels", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    commands = parser.add_subparsers(dest="command", title="commands")
    game = commands.add_parser("pointing-game", help="play the grid pointing game", description=command.DESCRIPTION)
    command.add_arguments(game)
    options = parser.parse_args(arguments)
    try:
        if options.command is not None:
            return command.run(options)
        found = report()
    except (ValueError, OSError) as error:
        print(f"bcos_kernels: error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(found, indent=2, sort_keys=True))
    else:
        show(found)
    return 0 if found["self_check"]["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
