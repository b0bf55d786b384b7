"""The command that serves a page to draw and ask pictures."""

from __future__ import annotations

import importlib.util
import sys
import threading
from typing import TYPE_CHECKING

from bcos_diffusion.commands.options import Device, Model, Sampling

if TYPE_CHECKING:
    from bcos_diffusion.missing.calibration import Calibration
    from bcos_diffusion.pipeline import BcosDiffusionPipeline


def app(model: Model = None, device: Device = "auto", host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve a page to this machine: draw a prompt, move over a word, and see exactly which pixels it made.

    Args:
        host: Who may come: 127.0.0.1 is this machine alone, 0.0.0.0 everybody who reaches it.
        port: Where to listen; 0 takes any that is free.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"port must be between 0 and {2**16 - 1}, got {port}")
    if importlib.util.find_spec("gradio") is None:
        raise ValueError('the page needs Gradio: pip install "bcos-kernels[app]"')
    from bcos_diffusion.app.server import served
    from bcos_diffusion.app.studio import Studio

    sampling = Sampling(model=model, device=device)
    pipeline = sampling.load()
    with served(Studio(pipeline, calibration_of(sampling, pipeline)), host, port) as address:
        print(f"open {address} in a browser; Ctrl-C ends it", flush=True)
        threading.Event().wait()


def calibration_of(sampling: Sampling, pipeline: BcosDiffusionPipeline) -> Calibration | None:
    """What tells which words a picture lacks; None, with a line on stderr, where the model has no such file."""
    try:
        return sampling.calibration(pipeline)
    except (ValueError, OSError) as error:
        print(f"missing words are not told: {error}", file=sys.stderr)
        return None
