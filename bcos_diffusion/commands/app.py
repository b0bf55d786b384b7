"""The command that serves a page to draw and ask pictures."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from bcos_diffusion.shipped import SHIPPED

if TYPE_CHECKING:
    from bcos_diffusion.missing.calibration import Calibration
    from bcos_diffusion.pipeline import BcosDiffusionPipeline


def app(
    model: Annotated[str | None, tyro.conf.arg(metavar="FOLDER|HUB-ID")] = None,
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int = 7860,
) -> None:
    """Serve a page to this machine: draw a prompt, move over a word, and see exactly which pixels it made.

    Args:
        model: Folder or hub id of a model; without it, the model that comes with the package.
        device: auto, cpu, cuda, cuda:1, mps.
        host: Who may come: 127.0.0.1 is this machine alone, 0.0.0.0 everybody who reaches it.
        port: Where to listen; 0 takes any that is free.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"port must be between 0 and {2**16 - 1}, got {port}")
    if importlib.util.find_spec("gradio") is None:
        raise ValueError('the page needs Gradio: pip install "bcos-kernels[app]"')
    from bcos_diffusion.app.server import served
    from bcos_diffusion.app.studio import Studio
    from bcos_diffusion.commands.options import Sampling

    pipeline = Sampling(model=model, device=device).load()
    with served(Studio(pipeline, calibration_of(pipeline, model)), host, port) as address:
        print(f"open {address} in a browser; Ctrl-C ends it", flush=True)
        threading.Event().wait()


def calibration_of(pipeline: BcosDiffusionPipeline, model: str | None) -> Calibration | None:
    """What tells which words a picture lacks; None, with a line on stderr, where the model has no such file."""
    from bcos_diffusion.missing.calibration import Calibration

    try:
        return Calibration.of(pipeline, SHIPPED if model is None else Path(model))
    except (ValueError, OSError) as error:
        print(f"missing words are not told: {error}", file=sys.stderr)
        return None
