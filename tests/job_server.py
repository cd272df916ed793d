"""A server without a page: works off a store's queue until it is told to end; test_jobs.py runs it.

python tests/job_server.py STORE BEHAVIOUR
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

from promptclf.jobs import scheduler
from promptclf.jobs.jobs import Jobs
from promptclf.jobs.store import Store


def main(folder: str, behaviour: str) -> None:
    """Print a line when the queue is being worked off, and another when all has ended."""
    scheduler.WORKER = (sys.executable, str(Path(__file__).with_name("job_worker.py")), behaviour)
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    jobs = Jobs(Store(folder))
    jobs.start()
    while jobs._scheduler._present is None:  # until it is counted among the servers
        time.sleep(0.01)
    print("ready", flush=True)
    end.wait()
    jobs.close()
    print("closed", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
