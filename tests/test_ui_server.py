"""What the server lets in, what it sends along, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from live import sse, until
from page_server import page
from promptclf.ui.web.drain import Drain, Draining
from promptclf.ui.web.limits import MAX_BODY, MAX_UPLOAD, UPLOAD, BodyLimit, SafeHeaders

LABELS = ["delivery status", "refund"]


# ---- what comes in -------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "limit"), [("/", MAX_BODY), (UPLOAD, MAX_UPLOAD)])
def test_bodies_are_limited(path: str, limit: int) -> None:
    async def count(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    routes = [Route(path, count, methods=["POST"])]
    client = TestClient(Starlette(routes=routes, middleware=[Middleware(SafeHeaders), Middleware(BodyLimit)]))

    def chunks(total: int) -> Iterator[bytes]:
        for _ in range(total // 2**16):
            yield b"x" * 2**16

    exact = client.post(path, content=b"x" * limit)
    assert (exact.status_code, exact.text) == (200, str(limit))
    assert exact.headers["x-content-type-options"] == "nosniff"
    assert client.post(path, content=b"x" * (limit + 1)).status_code == 413
    assert client.post(path, content=chunks(limit)).status_code == 200  # no length declared
    assert client.post(path, content=chunks(2 * limit)).status_code == 413
    assert client.post(path, content=b"x", headers={"content-length": "-1"}).status_code == 413


def test_the_page_may_ask_no_other_machine() -> None:
    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    routes = [Route("/", hello)]
    policy = (
        TestClient(Starlette(routes=routes, middleware=[Middleware(SafeHeaders)]))
        .get("/")
        .headers["content-security-policy"]
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'self'"
    for rule in rules.values():
        assert not {word for word in rule.split() if "." in word or "//" in word or word == "*"}


# ---- how it ends ---------------------------------------------------------------------------------


def test_while_closing_new_work_is_refused() -> None:
    drain = Drain()

    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(drain.answering))

    routes = [Route(path, hello, methods=["GET", "POST"]) for path in ("/", "/cancel")]
    client = TestClient(Starlette(routes=routes, middleware=[Middleware(Draining, drain=drain)]))
    assert client.post("/").text == "1"
    assert client.get("/").text == "0"
    drain.closing = True
    refused = client.post("/")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert client.get("/").status_code == 200  # answers are fetched this way
    assert client.post("/cancel").status_code == 200
    assert drain.answering == 0


def test_a_drain_waits_for_answers_that_are_not_delivered() -> None:
    drain, pending = Drain(), {"session": {"event"}}
    queue = SimpleNamespace(pending_event_ids_session=pending)
    assert drain.wait(queue, 0.2) is False
    assert drain.closing
    threading.Timer(0.2, pending["session"].clear).start()
    assert drain.wait(queue, 30) is True
    drain.answering = 1
    assert drain.wait(queue, 0.1) is False


def test_an_error_does_not_count_as_answering() -> None:
    drain = Drain()

    async def fail(*_: Any) -> None:
        raise RuntimeError

    call = Draining(fail, drain)({"type": "http", "method": "POST", "path": "/"}, fail, fail)
    with pytest.raises(RuntimeError):
        asyncio.run(call)
    assert drain.answering == 0


@pytest.mark.slow
def test_sigterm_lets_an_accepted_answer_finish(tmp_path: Path) -> None:
    with page(tmp_path) as (live, server):
        first = httpx.get(live.address)
        assert first.status_code == 200
        assert "content-security-policy" in first.headers
        stream_address = ""
        with live.waiting():
            arguments = {"mode": "zero-shot", "labels": LABELS}
            started = live.post("classify", text="wait now, my parcel", **arguments)
            stream_address = f"{live.address}/gradio_api/call/classify/{started.json()['event_id']}"
            server.send_signal(signal.SIGTERM)
            until(lambda: live.post("classify", text="my parcel", **arguments).status_code == 503)
            assert server.poll() is None
        with httpx.stream("GET", stream_address, timeout=30) as stream:
            *_, (event, data) = sse(stream.iter_lines())
        assert event == "complete"
        assert data[0]["label"] == "delivery status"
        assert server.wait(timeout=30) == 0
        assert server.stdout is not None and server.stdout.read() == ""
    assert (tmp_path / "log").read_text() == ""


@pytest.mark.slow
def test_sigterm_does_not_wait_for_ever(tmp_path: Path) -> None:
    with page(tmp_path, seconds=0.5) as (live, server), live.waiting():
        live.post("classify", text="wait now", mode="zero-shot", labels=LABELS)
        start = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGTERM)  # said twice, done once
        assert server.wait(timeout=60) == 0
        assert time.monotonic() - start < 15


def test_gradio_is_imported_without_writing_stubs() -> None:
    program = """if True:
        import ast, inspect
        before, parsed, parse = inspect.getfile, [], ast.parse
        ast.parse = lambda source, *args, **options: parsed.append(source) or parse(source, *args, **options)
        from promptclf.ui import build_app
        assert inspect.getfile is before
        components = [source for source in parsed if "class Textbox(" in str(source)]
        assert not components, len(components)
        import gradio
        assert gradio.Textbox().change
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=240)


def test_a_port_in_use_is_told_from_python_too(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = f"from promptclf.ui import serve; serve(port={port}, model='nowhere')"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "PROMPTCLF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
    *_, line = done.stderr.splitlines()
    error = "promptclf.errors.PromptClfError: port: expected a free one on 127.0.0.1"
    assert line == f"{error}, {port} is in use; choose another"
