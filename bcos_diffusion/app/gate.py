"""What may come in: an allow-list in front of Gradio's server.

Gradio serves more than this page needs: uploads, a proxy, other people's URLs through ``/file=``, its own editor. All
of it is refused here, whatever its own checks say. So is every file that is not below the page's temporary folder.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_REQUEST = 64 * 1024
FULL = "many pictures are being drawn here just now: please try again in a moment"
_READS = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static)/.*"
    r"|/gradio_api/(info|app_id|startup-events|queue/data|queue/status|heartbeat/[\w-]+)/?"
)
_WRITES = re.compile(r"/gradio_api/(queue/join|cancel|reset)/?")
_FILE = "/gradio_api/file="
HEADERS = {
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Gate:
    """ASGI middleware: lets in what the page needs, and says in plain words when the queue is full."""

    def __init__(self, app: ASGIApp, folder: Path):
        self.app, self.folder = app, folder.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = self._refusal(scope)
        if status:
            await _answer(send, status, "this server has no such page")
            return
        await self.app(scope, receive, _Outgoing(send, str(scope["path"])))

    def _refusal(self, scope: Scope) -> int:
        """The status to refuse a request with, or 0."""
        path, method = unquote(str(scope["path"])), scope["method"]
        if method in ("GET", "HEAD"):
            if path.startswith(_FILE):
                return 0 if self._own(path.removeprefix(_FILE)) else 403
            return 0 if _READS.fullmatch(path) and ".." not in path else 404
        if method != "POST" or not _WRITES.fullmatch(path):
            return 404
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411
        return 413 if int(length) > LARGEST_REQUEST else 0

    def _own(self, path: str) -> bool:
        try:
            return Path(path).resolve().is_relative_to(self.folder)
        except (OSError, ValueError, RuntimeError):
            return False


class _Outgoing:
    """Adds headers to every answer; answers a full queue in our words."""

    def __init__(self, send: Send, path: str):
        self.send, self.joins, self.full = send, path.rstrip("/").endswith("/queue/join"), False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self.joins and message["status"] == 503:
                self.full = True
                await _answer(self.send, 503, FULL)
                return
            own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *own]}
        elif self.full:
            return
        await self.send(message)


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({"detail": text}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
