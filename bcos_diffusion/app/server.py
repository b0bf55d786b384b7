"""Serve the page: to this machine by default, with limits, from one temporary folder that is removed at the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bcos_diffusion.app.studio import Studio

WAITING = 16
"""How many drawings may wait for their turn before a visitor is told to come back."""
SESSIONS = 16
"""Of how many pages the last pictures are kept."""


@contextmanager
def served(studio: Studio, host: str = "127.0.0.1", port: int = 7860, waiting: int = WAITING) -> Iterator[str]:
    """Serve a studio while the block runs; yields the address. port: 0 for any that is free.

    Raises OSError where the port is taken, ImportError where Gradio is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="bcos-app-") as folder, _environment(folder):
        from starlette.middleware import Middleware

        from bcos_diffusion.app.gate import Gate
        from bcos_diffusion.app.page import THEME, build, text_of

        style = f"<style>{text_of('page.css')}{text_of('viewer.css')}</style>"
        page = build(studio)
        page.queue(max_size=waiting)
        try:
            # _frontend: Gradio's look at its own address gives up after 3 s and may ask a proxy; it does nothing else.
            _, address, _ = page.launch(
                server_name=host, server_port=port or free_port(host), prevent_thread_lock=True, quiet=True,
                share=False, inbrowser=False, show_error=False, footer_links=[], ssr_mode=False, pwa=False,
                mcp_server=False, enable_monitoring=False, _frontend=False, max_file_size=1, allowed_paths=[],
                state_session_capacity=SESSIONS, theme=THEME, head=style,
                app_kwargs={"middleware": [Middleware(Gate, folder=Path(folder))], "docs_url": None, "redoc_url": None},
            )  # fmt: skip
            yield address
        finally:
            page.close(verbose=False)


def free_port(host: str) -> int:
    """A port of a host that nobody listens to."""
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """Gradio's own settings, which it reads from the environment: its folder, and no word to anybody."""
    own = {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
