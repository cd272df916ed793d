"""How soon `promptclf serve` answers after its start: ``python tests/benchmarks/cold_start.py``.

An earlier start, which is not counted, converts the embedded model, keeps the label prior and lets Python
keep the libraries compiled. CPU time is that of the server and of the process with the model, which start
side by side. What either takes to import its libraries, as it does, and nothing else, is printed beside it.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]
LIBRARIES = {
    "the page": "from promptclf.ui import build_app",
    "the model": "from promptclf.lm.light import import_to_predict; import_to_predict()",
}
# Python keeps what it compiles unless it is told not to.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
TEXT = "My parcel was due on Monday and there is still no sign of it."


def first_answer(mode: str) -> tuple[float, float]:
    """Wall and CPU seconds from the start of the process to its first answer over HTTP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "promptclf", "serve", "--port", str(port)]
    # One client: to make another for each attempt takes half a core from what is measured.
    calls = httpx.Client(base_url=f"http://127.0.0.1:{port}/gradio_api/call", timeout=600)
    start = time.perf_counter()
    with (
        calls,
        subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as server,
    ):
        try:
            while True:
                try:
                    ask(calls, mode)
                except httpx.TransportError:
                    assert server.poll() is None, "the server ended"
                    time.sleep(0.02)
                else:
                    took, process = time.perf_counter() - start, psutil.Process(server.pid)
                    used = [each.cpu_times() for each in (process, *process.children())]
                    return took, sum(times.user + times.system for times in used)
        finally:
            server.terminate()


def imports(libraries: str) -> tuple[float, float]:
    """Wall and CPU seconds of a process that does nothing but import what a half of the app stands on."""
    start = time.perf_counter()
    rarely = "from promptclf.garbage import collect_rarely; collect_rarely()"
    command = [sys.executable, "-c", f"{rarely}; {libraries}"]
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
    assert status == 0, "the libraries cannot be imported"
    return time.perf_counter() - start, used.ru_utime + used.ru_stime


def ask(calls: httpx.Client, mode: str) -> None:
    """One call, as a program makes it: begin, then take the answer."""
    started = calls.post("/v2/classify", json={"text": TEXT, "mode": mode})
    started.raise_for_status()
    answer = calls.get(f"/classify/{started.json()['event_id']}")
    assert "event: complete" in answer.text, answer.text


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--starts", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--modes", nargs="+", default=["lora", "zero-shot"])
    asked = parser.parse_args()
    print(f"threads: {os.environ.get('OMP_NUM_THREADS', 'default')} of {len(os.sched_getaffinity(0))} cores")
    for mode in asked.modes:
        first_answer(mode)
    for side, libraries in LIBRARIES.items():
        report(f"imports of the libraries of {side}", [imports(libraries) for _ in range(asked.starts)])
    for mode in asked.modes:
        times = [first_answer(mode) for _ in range(asked.starts)]
        report(f"from the start to the first answer ({mode})", times)


def report(what: str, times: list[tuple[float, float]]) -> None:
    """Print each start's seconds."""
    walls, cpus = (", ".join(f"{seconds:.1f}" for seconds in some) for some in zip(*times, strict=True))
    print(f"{what}: {walls} s wall, {cpus} s CPU", flush=True)


if __name__ == "__main__":
    main()
