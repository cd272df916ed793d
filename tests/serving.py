"""The app as people run it: ``promptclf serve`` in a process of its own, with the embedded model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from live import first_line, free_port
from promptclf.jobs.store import Store

ROOT = Path(__file__).parent.parent
START_SECONDS = 240


@dataclass(frozen=True)
class App:
    """A running server: its process, its address, the line that it printed, and the store behind it."""

    pid: int
    address: str
    line: str
    store: Store


@contextmanager
def serve(home: Path, *arguments: str) -> Iterator[tuple[App, subprocess.Popen[str], Path]]:
    """``promptclf serve`` with `home` as its home, until the block ends, and the file with its errors."""
    port = free_port()
    command = [sys.executable, "-m", "promptclf", "serve", "--port", str(port), *arguments]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    environment |= {"PROMPTCLF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    errors = home / "stderr"
    with errors.open("w") as told:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            env=environment,
            # Tests that run in the background of a shell ignore interrupts, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    store = Store(home / "app")
    with process:
        try:
            line = first_line(process, START_SECONDS)
            assert line, errors.read_text()
            yield App(process.pid, f"http://127.0.0.1:{port}", line, store), process, errors
        finally:
            store.close()
            process.kill()
