"""A worker whose work is made up: test_jobs.py has the scheduler start it in place of the real one.

python tests/job_worker.py BEHAVIOUR JOB_FOLDER
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from promptclf.errors import DataError
from promptclf.jobs.store import Job, Store
from promptclf.jobs.worker import Event, Stop, Work, main

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
Tell = Callable[[Event], None]


def quick(job: Job, store: Store, tell: Tell, stop: Stop) -> dict[str, Any]:
    """A few events, a file, and a moment between its beginning and its end."""
    begin = time.monotonic()
    for step in range(3):
        tell({"event": "step", "step": step})
        stop.check()
    (store.job_folder(job.id) / "report.html").write_text("<html>")
    time.sleep(0.05)
    return {"pid": os.getpid(), "time": [begin, time.monotonic()]}


def steps(job: Job, store: Store, tell: Tell, stop: Stop) -> dict[str, Any]:
    """Steps without end; it stops between two of them."""
    for step in range(10**6):
        tell({"event": "step", "step": step, "pid": os.getpid()})
        stop.check()
        time.sleep(0.02)
    return {}


def waiting(job: Job, store: Store, tell: Tell, stop: Stop) -> dict[str, Any]:
    """Waits for a process that it started, as a comparison does; it can be stopped at once."""
    with stop.at_once(), subprocess.Popen(SLEEP) as child:
        tell({"event": "child", "pid": child.pid})
        try:
            child.wait()
        finally:
            child.kill()
    return {}


def deaf(job: Job, store: Store, tell: Tell, stop: Stop) -> dict[str, Any]:
    """Hears no signal, and has a child."""
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    child = subprocess.Popen(SLEEP)
    tell({"event": "child", "pid": child.pid})
    child.wait()
    return {}


def orphan(job: Job, store: Store, tell: Tell, stop: Stop) -> dict[str, Any]:
    """Is killed, and its child lives on."""
    tell({"event": "child", "pid": subprocess.Popen(SLEEP).pid})
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def leaves_child(job: Job, store: Store, tell: Tell, stop: Stop) -> dict[str, Any]:
    """Is done, and its child lives on."""
    child = subprocess.Popen(SLEEP)
    child.returncode = 0  # or Python would warn
    return {"pid": child.pid}


def lingers(job: Job, store: Store, tell: Tell, stop: Stop) -> dict[str, Any]:
    """Is done, and its process does not end."""
    threading.Thread(target=time.sleep, args=[600]).start()
    return {"pid": os.getpid()}


def refuses(job: Job, store: Store, tell: Tell, stop: Stop) -> dict[str, Any]:
    """Meets an error of the user's, with a path in it."""
    raise DataError(f"{store.job_folder(job.id)}/checkpoints: expected rows, got none; add some")


def breaks(job: Job, store: Store, tell: Tell, stop: Stop) -> dict[str, Any]:
    """Meets a bug."""
    raise RuntimeError("canary")


def runs_out(job: Job, store: Store, tell: Tell, stop: Stop) -> dict[str, Any]:
    """Has not enough memory."""
    raise MemoryError


def tells(job: Job, store: Store, tell: Tell, stop: Stop) -> dict[str, Any]:
    """What it sees of the world."""
    import tempfile

    return {
        "environment": dict(os.environ),
        "arguments": sys.argv,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "session": os.getsid(0) == os.getpid(),
        "temporary": tempfile.gettempdir(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0
        and sorted(os.listdir("/proc/self/fd")),
    }


WORK: dict[str, Work] = {
    work.__name__: work
    for work in (quick, steps, waiting, deaf, orphan, leaves_child, lingers, refuses, breaks, runs_out, tells)
}

if __name__ == "__main__":
    chosen = WORK[sys.argv[1]]
    sys.exit(main(sys.argv[2], {"train": chosen, "evaluate": chosen}))
