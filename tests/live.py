"""The app's endpoints on a server with a fake model; ``python live.py FOLDER QUEUE`` runs it.

It is a process of its own, since gradio leaves event loops behind. Its store is a folder that a test can
look into and change; its jobs run only as far as the test says so.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from fakes import FakeModel
from promptclf.jobs.store import Job, Store

START_SECONDS = 120
LABELS = {"parcel": "delivery status", "charged": "payment problem", "broken": "damaged item"}


class MoodyModel(FakeModel):
    """A fake model that fails on "fail now", and on "wait now" waits while the file `held` is there."""

    def __init__(self, held: Path) -> None:
        super().__init__(LABELS, strength=4.0)
        self.held = held

    def score(self, prompts: Any, answers: Any, **options: Any) -> Any:
        """As `FakeModel.score`."""
        if any("fail now" in prompt.text for prompt in prompts):
            raise RuntimeError("a secret of /home/somebody")
        if any("wait now" in prompt.text for prompt in prompts):
            until(lambda: not self.held.exists())
        return super().score(prompts, answers, **options)


@dataclass
class Live:
    """A running server, and the store behind it."""

    address: str
    store: Store

    def post(self, endpoint: str, **arguments: Any) -> httpx.Response:
        """Begin a call by named arguments."""
        return httpx.post(f"{self.address}/gradio_api/call/v2/{endpoint}", json=arguments, timeout=30)

    def events(self, endpoint: str, **arguments: Any) -> list[tuple[str, Any]]:
        """A call over plain HTTP: (event, data) of everything that came."""
        started = self.post(endpoint, **arguments)
        assert started.status_code == 200, started.text
        address = f"{self.address}/gradio_api/call/{endpoint}/{started.json()['event_id']}"
        with httpx.stream("GET", address, timeout=30) as stream:
            return list(sse(stream.iter_lines()))

    def error(self, endpoint: str, **arguments: Any) -> str:
        """The message of a call that fails."""
        *_, (event, data) = self.events(endpoint, **arguments)
        assert event == "error", data
        return cast(str, data["error"])

    def only_job(self) -> Job:
        """The one job that is queued or running, as soon as it is there."""
        return until(self.store.unfinished)[0]

    def finish(self, job: Job, result: dict[str, Any], **files: Any) -> None:
        """End a job well, with JSON files in its folder."""
        folder = self.store.job_folder(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        assert self.store.end_job(job.id, "done", result)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Until the block ends, the model does not answer those that ask with "wait now"."""
        held = self.store.folder / "held"
        held.touch()
        try:
            yield
        finally:
            held.unlink()


@contextmanager
def live(folder: Path, *, queue: int = 32) -> Iterator[Live]:
    """Serve the endpoints until the block ends; `queue` calls may wait."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "GRADIO_TEMP_DIR": str(folder / "files")}
    command = [sys.executable, __file__, str(folder), str(queue)]
    with (
        (folder / "log").open("w+") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        store = Store(folder / "store")
        try:
            address = first_line(server, START_SECONDS)
            assert address, (folder / "log").read_text()
            yield Live(address, store)
            assert server.poll() is None, (folder / "log").read_text()
        finally:
            store.close()
            server.kill()


def first_line(server: subprocess.Popen[str], seconds: float) -> str:
    """What it prints once it answers (its port may be another's until then), or nothing if it ended."""
    assert server.stdout is not None
    too_late = threading.Timer(seconds, server.kill)
    too_late.start()
    try:
        return server.stdout.readline().rstrip("\n")
    finally:
        too_late.cancel()


def imported_by(pid: int) -> set[str]:
    """Which of some packages with compiled parts a process has imported."""
    maps = Path(f"/proc/{pid}/maps")
    if not maps.is_file():
        pytest.skip("only Linux tells what a process has imported")
    return set(re.findall(r"/(torch|scipy|sklearn|pandas)/", maps.read_text()))


def free_port() -> int:
    """A port of this machine that nobody uses, and somebody may use a moment later."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast(int, probe.getsockname()[1])


def sse(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """The events of a text/event-stream."""
    event = ""
    for line in lines:
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: ") and event != "heartbeat":
            yield event, json.loads(line.removeprefix("data: "))


def until(look: Callable[[], Any], seconds: float = 30) -> Any:
    """What `look` returns as soon as that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"nothing came within {seconds:.0f} s")


def main(folder: Path, queue: int) -> None:
    """Serve until the process is ended."""
    os.environ["PROMPTCLF_HOME"] = str(folder / "home")
    from starlette.middleware import Middleware

    from promptclf.jobs.jobs import Jobs
    from promptclf.ui.api import endpoints
    from promptclf.ui.core.service import Service
    from promptclf.ui.web.guard import GuardedBlocks, KnownEvents, unknown_endpoint, wrong_argument
    from promptclf.ui.web.limits import BodyLimit

    store = Store(folder / "store")
    service = Service(MoodyModel(store.folder / "held"), store=store)
    context = SimpleNamespace(service=service, jobs=Jobs(store), store=store)
    with GuardedBlocks(analytics_enabled=False) as demo:
        endpoints.WAITING = 4  # fewer let a test fill the queue
        endpoints.add_endpoints(cast(Any, context))
    demo.queue(max_size=queue, default_concurrency_limit=2, api_open=False)
    demo.launch(
        server_port=free_port(),
        quiet=True,
        prevent_thread_lock=True,
        show_error=False,
        ssr_mode=False,
        run_history=False,
        app_kwargs={
            "middleware": [Middleware(BodyLimit), Middleware(KnownEvents)],
            "exception_handlers": {TypeError: wrong_argument, KeyError: unknown_endpoint},
        },
    )
    print(str(demo.local_url).rstrip("/"), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
