"""The staged Space as the Hub runs it: installed into a clean environment, started, asked, stopped.

The original of the embedded model is played by the embedded one, in the place where a Space finds what
it preloaded. One requirement is not the Space's: torch is the version that the tests run with. ZeroGPU is
played by its own package and by the device API of `zero_api`, without a GPU.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import yaml

import promptclf.deploy
from live import first_line, free_port
from promptclf.deploy import stage
from promptclf.lm.embedded import HUB_ID, embedded_folder
from promptclf.lm.precision import KINDS
from promptclf.ui.core.zerogpu import LONGEST, SHORTEST
from staging import make_checkout

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.network]

TORCH = metadata.version("torch").partition("+")[0]
SPACES = "spaces==0.51.3"  # of the Hub; zero_gpu.py reaches into it
REVISION = "5" * 40
VISITOR = "e30.e30.e30"  # a token without content
START_SECONDS, STOP_SECONDS = 600, 60
NO_NETWORK = re.compile(
    r"Failed to establish|Temporary failure|name resolution|timed out|Max retries|refused"
)
TEXT = "My parcel was due on Monday and there is still no sign of it."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The staged files."""
    checkout = make_checkout(tmp_path_factory.mktemp("checkout"))
    folder = tmp_path_factory.mktemp("space")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promptclf.deploy, "PACKAGE", checkout / "promptclf")
        stage(folder)
    return folder


@pytest.fixture(scope="module")
def python(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clean environment with what a Space installs; pip's cache and its index are used."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=True)
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    wanted = (folder / "requirements.txt").read_text(encoding="utf-8")
    requirements = place / "requirements.txt"
    requirements.write_text(re.sub(r"^torch==.*$", f"torch=={TORCH}", wanted, flags=re.MULTILINE))
    version = card(folder)["sdk_version"]
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "-r", requirements, f"gradio[oauth,mcp]=={version}", SPACES],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    subprocess.run([python, "-m", "pip", "check"], check=True, capture_output=True)
    yield python
    shutil.rmtree(place)  # more than a gigabyte, and pytest would keep three of them


def card(folder: Path) -> dict[str, Any]:
    """The front matter of a staged README."""
    values: dict[str, Any] = yaml.safe_load(
        (folder / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    )
    return values


def preload(folder: Path, cache: Path) -> None:
    """Put the embedded model where a build puts the files that the card names."""
    name, files = card(folder)["preload_from_hub"][0].split(" ")
    place = cache / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(REVISION)
    source, _, _ = embedded_folder()
    for file in files.split(","):
        if (source / file).is_file():  # the original has one more
            (snapshot / file).symlink_to(source / file)


@contextmanager
def running(command: list[Any], folder: Path, place: Path, **more: str) -> Iterator[str]:
    """A server of the app in a Space's environment, by its address; told to end, it does so in good order."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "SPACE_ID": "me/promptclf",
        "HF_HUB_CACHE": str(place / "hub"),
        "HF_HUB_OFFLINE": "1",
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **more,
    }
    with (place / "messages").open("w") as messages:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            start_new_session=True,
        )
    with process:
        try:
            assert first_line(process, START_SECONDS), (place / "messages").read_text()
            yield f"http://127.0.0.1:{port}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP_SECONDS) == 0
        finally:
            with suppress(ProcessLookupError):  # whoever is left of it
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def calling(address: str, **headers: str) -> Iterator[Any]:
    """A client of the endpoints."""
    from gradio_client import Client

    client = Client(address, headers=headers, verbose=False, analytics_enabled=False)
    try:
        yield client.predict
    finally:
        client.close()


@pytest.mark.usefixtures("embedded")
def test_it_answers(folder: Path, python: Path, tmp_path: Path) -> None:
    preload(folder, tmp_path / "hub")
    with running([python, "app.py"], folder, tmp_path) as address:
        page = httpx.get(address, timeout=60).text
        with calling(address) as predict:
            answers = {mode: predict(TEXT, mode=mode, api_name="/classify") for mode in ("few-shot", "lora")}
    assert '"title":"promptclf"' in page.replace('": "', '":"')
    for mode, answer in answers.items():
        assert answer["mode"] == mode
        assert (answer["model"]["name"], answer["model"]["source"]) == (HUB_ID, "hub")
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert answers["lora"]["label"] == "delivery status"  # the packaged adapter fits the original
    assert "Traceback" not in (tmp_path / "messages").read_text()


@pytest.mark.usefixtures("embedded")
def test_it_answers_on_zero_gpu(folder: Path, python: Path, tmp_path: Path) -> None:
    preload(folder, tmp_path / "hub")
    script = Path(__file__).with_name("zero_gpu.py")
    (tmp_path / "cgroup").write_text("0::/me\n")
    with zero_api() as (api, scheduled):
        told = {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": api}
        told["ZEROGPU_PROC_SELF_CGROUP_PATH"] = str(tmp_path / "cgroup")
        with running([python, script], folder, tmp_path, **told) as address:
            with calling(address, **{"x-ip-token": VISITOR}) as predict:
                answer = predict(TEXT, mode="lora", api_name="/classify")
                with pytest.raises(Exception, match="takes no trainings"):
                    predict("support", api_name="/train")
            with calling(address) as predict, pytest.raises(Exception, match="ZeroGPU: No GPU was available"):
                predict(TEXT, mode="few-shot", api_name="/classify")
    assert answer["label"] == "delivery status"
    assert answer["model"]["device"] == "cuda"
    assert answer["model"]["dtype"] in KINDS  # the CPU that stands in for the GPU decides which is fast
    (asked,) = [each for each in scheduled if each.get("token") == VISITOR]
    assert SHORTEST <= int(asked["durationSeconds"]) < LONGEST


@contextmanager
def zero_api() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The device API of ZeroGPU, and what was asked of it: it has a GPU for whoever brings a token."""
    scheduled: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            asked = dict(parse_qsl(parts.query))
            status = 200
            if parts.path == "/schedule":
                scheduled.append(asked)
                status = 200 if "token" in asked else 503
            given = {"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "none", "allowToken": "allowed"}
            body = json.dumps(given).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", scheduled
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_environment_is_clean(python: Path) -> None:
    absent = ("promptclf", "datasets", "gguf", "pytest")
    code = f"import importlib.util as u; print([name for name in {absent} if u.find_spec(name)])"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
