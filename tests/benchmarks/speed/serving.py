"""Answering many at once: a real server, asked over plain HTTP by itself on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.speed import device
from benchmarks.speed.runner import Group, Variant
from benchmarks.speed.worker import Job
from benchmarks.speed.workload import texts

START_SECONDS = 300
BUSY = 503  # the server's queue is full: ask again
PAUSE = 0.05
WARM_TEXTS = 8


class Calls(Job):
    """Calls of /classify, up to `at_once` of them under way; each reads its answer to the end."""

    def __init__(self, calls: int, at_once: int, mode: str) -> None:
        super().__init__()
        self.texts, self.at_once, self.mode = texts(calls), at_once, mode
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "promptclf", "serve", "--port", str(port)]
        self.log = (Path(self.folder.name) / "log").open("w+")
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        too_late = threading.Timer(START_SECONDS, self.server.kill)
        too_late.start()
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        too_late.cancel()
        if " on http" not in line:
            self.close()
            raise RuntimeError("the server did not start")
        self.address = line.split()[-1]

    def close(self) -> None:
        self.server.terminate()
        try:
            self.server.wait(30)
        except subprocess.TimeoutExpired:
            self.server.kill()
        self.log.close()
        self.folder.cleanup()

    def peak_memory(self) -> float:
        children = psutil.Process(self.server.pid).children()  # one of them has the model
        return sum(map(device.peak_memory, (self.server.pid, *(child.pid for child in children))))

    def warm_up(self) -> None:
        asyncio.run(self._ask(self.texts[:WARM_TEXTS]))

    def run(self) -> None:
        self.facts = {"asked_again": asyncio.run(self._ask(self.texts))}

    async def _ask(self, asked: list[str]) -> int:
        """Returns how often a call had to be made again because the server was full."""
        turn = asyncio.Semaphore(self.at_once)
        async with httpx.AsyncClient(base_url=self.address, timeout=600, limits=httpx.Limits()) as client:

            async def call(text: str) -> int:
                async with turn:
                    return await self._call(client, text)

            return sum(await asyncio.gather(*map(call, asked)))

    async def _call(self, client: httpx.AsyncClient, text: str) -> int:
        again = 0
        arguments = {"text": text, "mode": self.mode}
        while True:
            started = await client.post("/gradio_api/call/v2/classify", json=arguments)
            if started.status_code != BUSY:
                break
            again += 1
            await asyncio.sleep(PAUSE)
        started.raise_for_status()
        address = f"/gradio_api/call/classify/{started.json()['event_id']}"
        event = ""
        async with client.stream("GET", address) as stream:
            async for line in stream.aiter_lines():
                event = line.removeprefix("event: ") if line.startswith("event: ") else event
                if line.startswith("data: ") and event == "complete":
                    if not json.loads(line.removeprefix("data: "))[0]["label"]:
                        raise RuntimeError(f"no answer: {line}")
                    return again
        raise RuntimeError(f"the call ended with {event!r}")


def groups(full: bool) -> list[Group]:
    """All groups; `full` asks more one at a time."""
    cores = os.cpu_count() or 1

    def calls(name: str, count: int, at_once: int) -> Variant:
        arguments: dict[str, Any] = {"calls": count, "at_once": at_once, "mode": "lora"}
        return Variant(name, "benchmarks.speed.serving:Calls", count, arguments, threads=cores)

    return [
        Group(
            "serving",
            (calls("200 at once", 200, 200), calls("one at a time", 200 if full else 25, 1)),
            clock="wall",
        )
    ]
