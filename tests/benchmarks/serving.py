"""How soon the app answers after its start, and how much it answers at once.

    python tests/benchmarks/serving.py                 # cold start, then 200 calls at once against one by one
    python tests/benchmarks/serving.py --rounds 0      # the cold start alone
    python tests/benchmarks/serving.py --starts 0      # the calls alone

A server of its own runs with the embedded model; run it once before, so that the model is converted and the
label prior kept. Both measurements go over HTTP as any program's calls do. CPU time is the server's own.
On a busy machine, compare the ratios, and CPU time rather than wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from promptclf import load_dataset

ROOT = Path(__file__).parents[2]
ONE_BY_ONE, AT_ONCE = 24, 200
FIRST = "My parcel was due on Monday and there is still no sign of it."


@dataclass
class Server:
    """A running ``promptclf serve``."""

    process: subprocess.Popen[str]
    address: str

    async def classify(self, client: httpx.AsyncClient, text: str, **options: Any) -> dict[str, Any]:
        """One call, as a program makes it: begin, then take the answer."""
        calls = f"{self.address}/gradio_api/call"
        started = await client.post(f"{calls}/v2/classify", json={"text": text, **options})
        started.raise_for_status()
        answer = await client.get(f"{calls}/classify/{started.json()['event_id']}")
        *_, event, data = answer.text.strip().splitlines()
        assert event == "event: complete", answer.text
        (result,) = json.loads(data.removeprefix("data: "))
        return dict(result)

    def ask(self, texts: Sequence[str], *, together: bool, **options: Any) -> tuple[float, float]:
        """Wall and CPU seconds for calls with these texts."""

        async def calls() -> list[dict[str, Any]]:
            limits = httpx.Limits(max_connections=len(texts))
            async with httpx.AsyncClient(timeout=600, limits=limits) as client:
                if together:
                    return list(await asyncio.gather(*(self.classify(client, t, **options) for t in texts)))
                return [await self.classify(client, text, **options) for text in texts]

        wall, cpu = time.perf_counter(), self.cpu()
        answers = asyncio.run(calls())
        assert len(answers) == len(texts)
        return time.perf_counter() - wall, self.cpu() - cpu

    def cpu(self) -> float:
        """CPU seconds of the server so far."""
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)


@contextmanager
def serve() -> Iterator[Server]:
    """A server until the block ends; it may not answer yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "promptclf", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            yield Server(process, f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


def first_answer(mode: str) -> tuple[float, float]:
    """Wall and CPU seconds from the start of the process to its first answer over HTTP."""
    start = time.perf_counter()
    with serve() as server:
        while True:
            try:
                server.ask([FIRST], together=False, mode=mode)
            except httpx.TransportError:
                assert server.process.poll() is None, "the server ended"
                time.sleep(0.02)
            else:
                return time.perf_counter() - start, server.cpu()


def together(mode: str, rounds: int, at_once: int) -> None:
    """Calls at once against calls one by one, in turns, on the same texts."""
    data = load_dataset("support")
    texts = list(dict.fromkeys(example.text for split in data.splits.values() for example in split))
    with serve() as server:
        while True:  # until it answers
            try:
                server.ask(texts[:1], together=True, mode=mode)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        ratios = []
        for start in range(rounds):
            few, many = texts[start : start + ONE_BY_ONE], texts[start : start + at_once]
            slow = [seconds / len(few) for seconds in server.ask(few, together=False, mode=mode)]
            fast = [seconds / len(many) for seconds in server.ask(many, together=True, mode=mode)]
            ratios.append((slow[0] / fast[0], slow[1] / fast[1]))
            print(
                f"{mode}: a text one by one {slow[0]:.3f} s wall, {slow[1]:.3f} s CPU; "
                f"{at_once} at once {fast[0]:.3f} s wall, {fast[1]:.3f} s CPU",
                flush=True,
            )
        wall, cpu = (sorted(column) for column in zip(*ratios, strict=True))
        print(
            f"{mode}: at once {median(wall):.2f}x the throughput ({wall[0]:.2f} to {wall[-1]:.2f}), "
            f"by CPU time {median(cpu):.2f}x ({cpu[0]:.2f} to {cpu[-1]:.2f})",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--starts", type=int, default=3, help="how many cold starts (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="how many rounds of calls (default 3)")
    parser.add_argument("--calls", type=int, default=AT_ONCE, help="how many calls at once (default 200)")
    parser.add_argument("--modes", nargs="+", default=["lora", "zero-shot"])
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # it takes the server along
    print(f"threads: {os.environ.get('OMP_NUM_THREADS', 'default')} of {len(os.sched_getaffinity(0))} cores")
    for mode in asked.modes[:1] if asked.starts else []:
        times = [first_answer(mode) for _ in range(asked.starts)]
        walls = ", ".join(f"{wall:.1f}" for wall, _ in times)
        cpus = ", ".join(f"{cpu:.1f}" for _, cpu in times)
        print(f"cold start to the first answer ({mode}): {walls} s wall, {cpus} s CPU", flush=True)
    for mode in asked.modes if asked.rounds else []:
        together(mode, asked.rounds, asked.calls)


if __name__ == "__main__":
    main()
