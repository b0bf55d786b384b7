"""Images of every kind on a server of this machine: good ones, odd ones, and all that goes wrong on the web."""

import http.server
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageDraw


def picture(width: int = 320, height: int = 240) -> Image.Image:
    """A picture that shows whether it was turned, mirrored or cut: four corners of four colours, a disc, a slope."""
    slope = np.linspace(0, 255, width)[None].repeat(height, 0)
    image = Image.fromarray(np.stack([slope, slope[:, ::-1], np.full_like(slope, 90)], -1).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for x, y, colour in ((0, 0, "red"), (1, 0, "lime"), (0, 1, "blue"), (1, 1, "yellow")):
        left, top = x * width * 3 // 4, y * height * 3 // 4
        draw.rectangle((left, top, left + width // 4, top + height // 4), fill=colour)
    draw.ellipse((width * 3 // 8, height * 3 // 8, width * 5 // 8, height * 5 // 8), fill="black")
    return image


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(image: Image.Image, orientation: int) -> bytes:
    """A JPEG whose pixels lie as EXIF's ``orientation`` says, so that a viewer shows ``image``."""
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    undo |= {2: Image.Transpose.FLIP_LEFT_RIGHT, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    undo |= {5: Image.Transpose.TRANSPOSE, 7: Image.Transpose.TRANSVERSE}
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image.transpose(undo[orientation]), quality=95, exif=exif)


@contextmanager
def serving(files: dict[str, bytes | Callable[[], bytes]], headers: dict[str, str] | None = None) -> Iterator[str]:
    """Serve ``files`` by path on a free port of this machine, 404 for others; yields the address of the server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = files.get(self.path.lstrip("/"))
            body = found() if callable(found) else found
            try:
                self.send_response(404 if body is None else 200)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body or b"not here")
            except (BrokenPipeError, ConnectionResetError):
                pass  # who asked did not wait

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def late(body: bytes, seconds: float) -> Callable[[], bytes]:
    """An answer that comes after a while."""

    def answer() -> bytes:
        time.sleep(seconds)
        return body

    return answer
