"""What the server refuses, and that it ends as it began: with nothing left behind."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import torch

from bcos_diffusion import cli
from bcos_diffusion.app.export import export
from bcos_diffusion.app.studio import Studio
from bcos_diffusion.pipeline import BcosDiffusionPipeline


def ask(address: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
    place = urlparse(address)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=120)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def test_the_page_is_served_with_its_policy(address: str) -> None:
    status, body, headers = ask(address, "GET", "/")
    assert status == 200 and b"B-cos diffusion" in body and urlparse(address).hostname == "127.0.0.1"
    assert "default-src 'self'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=/proc/self/environ",
        "/gradio_api/file={tmp}/../../etc/passwd",
        "/gradio_api/file={tmp}/..%2f..%2fetc%2fpasswd",
        "/gradio_api/file=../pyproject.toml",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file=http://127.0.0.1:1/secret",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/static/../../../../etc/passwd",
        "/static/..%2f..%2f..%2fetc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/custom_component/x/client/component/style.css",
        "/gradio_api/openapi.json",
        "/docs",
        "/monitoring",
    ],
)
def test_no_file_but_its_own_can_be_read(address: str, path: str) -> None:
    status, body, _ = ask(address, "GET", path.replace("{tmp}", os.environ["GRADIO_TEMP_DIR"]))
    assert status in (403, 404) and b"root:" not in body and b"[project]" not in body


def test_its_own_files_can_be_read(address: str, studio: Studio) -> None:
    _, drawing = studio.welcome()
    path = export(drawing, "json")
    status, body, _ = ask(address, "GET", f"/gradio_api/file={path}")
    assert status == 200 and json.loads(body)["prompt"] == studio.examples[0]


@pytest.mark.parametrize(
    "path", ["/gradio_api/upload", "/gradio_api/component_server", "/gradio_api/run/predict", "/gradio_api/vibe-edit"]
)
def test_nothing_can_be_written(address: str, path: str) -> None:
    before = sorted(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*"))
    assert ask(address, "POST", path, b"{}", **{"content-type": "application/json"})[0] == 404
    assert sorted(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*")) == before


def test_large_requests_are_refused(address: str) -> None:
    assert ask(address, "POST", "/gradio_api/queue/join", b"x" * 100_000)[0] == 413


def test_a_full_queue_says_so(studio: Studio) -> None:
    pytest.importorskip("gradio")
    from bcos_diffusion.app.gate import FULL
    from bcos_diffusion.app.server import served

    # Nobody may wait: while one picture is drawn, whoever asks for another is told.
    with served(studio, port=0, waiting=0) as address:
        status, page, _ = ask(address, "GET", "/config")
        function = next(d["id"] for d in json.loads(page)["dependencies"] if len(d["inputs"]) == 6)
        data = {"data": ["cat", "", 0, 3, 2.0, ""], "fn_index": function, "session_hash": "one"}
        body = json.dumps(data).encode()
        status, answer, _ = ask(address, "POST", "/gradio_api/queue/join", body, **{"content-type": "application/json"})
    assert status == 503 and json.loads(answer)["detail"] == FULL


def test_the_command_serves_this_machine_and_leaves_nothing(studio: Studio, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    studio.pipeline.save_pretrained(tmp_path / "model")
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bcos_diffusion", "app", "--model", str(tmp_path / "model"), "--port", "0"]
    # Ctrl-C is ignored by what a shell starts in the background, and by what that starts.
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address is not None, line
        assert ask(address[0], "GET", "/")[0] == 200
        assert list((tmp_path / "temporary").glob("bcos-app-*"))
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=120)
    finally:
        server.kill()
    assert "stopped" in said and "missing words are not told" in said and "Traceback" not in said
    assert not list((tmp_path / "temporary").glob("bcos-app-*"))


def test_mistakes_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["app", "--port", "70000"]) == 1
    assert "port must be between 0 and 65535" in capsys.readouterr().err
    assert cli.main(["app", "--model", str(tmp_path / "nothing")]) == 1
    assert "neither a folder nor a model" in capsys.readouterr().err


def test_without_gradio_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["app"]) == 1
    assert 'pip install "bcos-kernels[app]"' in capsys.readouterr().err


def test_the_folder_is_gone_and_the_environment_as_it_was(studio: Studio) -> None:
    pytest.importorskip("gradio")
    from bcos_diffusion.app.server import served

    before = dict(os.environ)
    with served(studio, port=0):
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.is_dir() and folder.parent == Path(tempfile.gettempdir())
    assert not folder.exists() and os.environ == before


def test_a_model_that_cannot_explain_is_refused() -> None:
    class Ordinary(torch.nn.Module):
        def check_explainable(self) -> None:
            raise ValueError("this model has ordinary layers with biases")

    pipeline = BcosDiffusionPipeline.__new__(BcosDiffusionPipeline)
    pipeline.model = torch.nn.Module()  # type: ignore[assignment]
    pipeline.model.unet = Ordinary()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="ordinary layers"):
        Studio(pipeline)
