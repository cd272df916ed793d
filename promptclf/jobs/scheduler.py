"""Starts one worker at a time, looks after it, and clears away what a dead one left behind.

Whoever holds the lock on ``worker.lock`` knows that no worker lives. A scheduler that gets it ends the
jobs whose worker died, and hands the lock to the next worker as its standard input: nothing can come
between, and the lock is free again when the last process of the worker is gone. So several servers of a
machine can share a folder, and a worker survives its server. The last server that closes stops the worker.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from promptclf.errors import StoreError
from promptclf.jobs.store import Job, Store, is_id
from promptclf.jobs.worker import LOCK, TEMPORARY, tidy

logger = logging.getLogger(__name__)

WORKER = (sys.executable, "-m", "promptclf.jobs.worker")
TURN_SECONDS = 0.5
TROUBLE_SECONDS = 10.0  # until the next try
START_SECONDS = 60.0  # that a worker has to begin, and to leave when its job is over
GRACE = 10.0  # seconds that it has to stop when it is told to

# No tokens, no passwords: a worker gets what it needs to find its files, its model and its device.
_KEPT = (
    *("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "HOME", "USER", "LOGNAME"),
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ"),
    *("XDG_CACHE_HOME", "PROMPTCLF_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    "PROMPTCLF_DTYPE",
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
)


class Scheduler:
    """A thread that works off the queue of a store.

    Parameters
    ----------
    store
        Whose jobs.
    minutes
        Jobs that run longer fail; None: no limit.
    """

    def __init__(self, store: Store, *, minutes: float | None = None) -> None:
        self.store, self.minutes = store, minutes
        self.closed = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._present: IO[bytes] | None = None  # locked for reading: this server looks after the folder
        self._child: tuple[str, subprocess.Popen[bytes]] | None = None
        self._worker: int | None = None  # the process that has the lock, as far as is known
        self._waiting: tuple[str, float] | None = None  # what it is to do, and since when
        self._untidy = True

    def start(self) -> None:
        """Begin to work; more calls change nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Look at the queue now: it has changed."""
        self._untidy = True
        self._wake.set()

    def close(self, timeout: float = GRACE) -> None:
        """End the thread; the last server to close also stops the worker, after `timeout` by force."""
        self.closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        if self._present is None:
            return
        with self._present as present:
            self._present = None
            try:
                if _try_lock(present, fcntl.LOCK_EX):
                    self._end_worker(timeout)
                self._reap()
            except StoreError:  # the next start will see what became of the job
                logger.exception("the end of the worker could not be noted")
        if self._child is not None:  # another server looks after it, but only its parent can take note
            threading.Thread(target=self._child[1].wait, name="worker's end", daemon=True).start()

    # ---- the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while not self.closed.is_set():
            pause = TURN_SECONDS
            try:
                if self._is_present():
                    self._turn()
            except Exception:  # a full disk, say: jobs wait until it has room again
                logger.exception("the queue could not be worked off; trying again")
                pause = TROUBLE_SECONDS
            self._wake.wait(pause)
            self._wake.clear()

    def _is_present(self) -> bool:
        """Whether this server is counted; it waits while the last one of others is closing."""
        if self._present is None:
            file = (self.store.folder / "servers.lock").open("a+b")
            if _try_lock(file, fcntl.LOCK_SH):
                self._present = file
            else:
                file.close()
        return self._present is not None

    def _turn(self) -> None:
        self._reap()
        lock = self._lock()
        if lock is None:
            self._look_after_worker()
            return
        with lock:  # closing it leaves the worker's lock alone
            self._clear_away()
            self._start_next(lock)

    def _lock(self) -> IO[bytes] | None:
        """The lock, if no worker has it."""
        file = (self.store.folder / LOCK).open("a+b")
        if _try_lock(file, fcntl.LOCK_EX):
            return file
        file.close()
        return None

    # ---- a worker's life ----------------------------------------------------------------------

    def _start_next(self, lock: IO[bytes]) -> None:
        job = next((job for job in self.store.unfinished() if job.state == "queued"), None)
        if job is None:
            return
        folder = self.store.job_folder(job.id)
        temporary = folder / TEMPORARY
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            with (folder / "log.txt").open("ab") as log:
                child = subprocess.Popen(
                    [*WORKER, str(folder)],
                    stdin=lock,
                    stdout=log,
                    stderr=log,
                    env=environment(temporary),
                    start_new_session=True,  # an interrupt from the terminal is for the server alone
                )
        except OSError as error:
            logger.error("no worker could be started: %s", error)
            self.store.end_job(job.id, "failed", error="no process could be started for it; try again later")
            return
        self._child, self._worker, self._untidy = (job.id, child), child.pid, True
        logger.info("job %s: worker %d", job.id, child.pid)

    def _look_after_worker(self) -> None:
        """Stop a worker that is to end, and what one that died left running."""
        self._untidy = True
        job = self._running()
        if job is not None:
            self._worker = job.pid
        if self._worker is not None and not _is_alive(self._worker):
            self._kill()  # only its own children can still hold the lock
        elif job is None:
            if self._is_late("begin or leave", START_SECONDS):
                self._kill()
        elif job.cancelling:
            _signal(job.pid, signal.SIGTERM)  # it hears the first one only
            if self._is_late(job.id, GRACE):
                logger.warning("job %s: it did not stop and is killed", job.id)
                self._kill()
        elif self._is_overdue(job):
            self._kill()
            error = f"it was stopped after {self.minutes:g} minutes; use fewer rows or epochs"
            self.store.end_job(job.id, "failed", error=error)
        else:
            self._waiting = None

    def _is_overdue(self, job: Job) -> bool:
        if self.minutes is None or job.started is None:
            return False
        return datetime.now(UTC) - datetime.fromisoformat(job.started) > timedelta(minutes=self.minutes)

    def _is_late(self, what: str, seconds: float) -> bool:
        """Whether so much time has passed since this was first asked about the same thing."""
        if self._waiting is None or self._waiting[0] != what:
            self._waiting = (what, time.monotonic())
        return time.monotonic() - self._waiting[1] > seconds

    def _kill(self) -> None:
        """End the worker and all that it started: they are a group, whose number lasts as long as they."""
        if self._worker is not None:
            with suppress(OSError):  # they are gone
                os.killpg(self._worker, signal.SIGKILL)

    def _reap(self, timeout: float = 0) -> None:
        """Take note of the end of this server's own worker, if it has come."""
        if self._child is None:
            return
        job_id, child = self._child
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            return
        self._child, self._worker = None, child.pid
        job = self.store.job(job_id)
        if status and job is not None and job.state == "queued" and not self.closed.is_set():
            logger.error("job %s: the worker ended with status %d before it began", job_id, status)
            error = "its process could not start; the log of the job says more"
            self.store.end_job(job_id, "failed", error=error)

    def _clear_away(self) -> None:
        """End jobs whose worker died, and remove what nobody needs. Only for who holds the lock."""
        self._reap(timeout=GRACE)  # it let go of the lock, so this takes no time
        self._worker = self._waiting = None
        while (job := self._running()) is not None:
            logger.warning("job %s: its worker died", job.id)
            self.store.end_job(job.id, "interrupted", error="its process ended before the job did")
            self._untidy = True
        if self._untidy:
            self._untidy = False
            for folder in (self.store.folder / "jobs").glob("*"):
                if is_id(folder.name):
                    tidy(folder, self.store.job(folder.name))

    def _end_worker(self, timeout: float) -> None:
        deadline, told = time.monotonic() + timeout, None
        while (lock := self._lock()) is None:
            self._reap()
            if self._child is not None:
                self._worker = self._child[1].pid
            elif (job := self._running()) is not None:
                self._worker = job.pid
            if self._worker != told:
                told = self._worker
                _signal(told, signal.SIGTERM)
            if time.monotonic() > deadline + GRACE:
                logger.error("worker %s could not be ended", self._worker)
                return
            dead = self._worker is not None and not _is_alive(self._worker)
            if dead or time.monotonic() > deadline:
                self._kill()
            time.sleep(0.05)
        with lock:
            self._clear_away()

    def _running(self) -> Job | None:
        return next((job for job in self.store.unfinished() if job.state == "running"), None)


def environment(temporary: Path) -> dict[str, str]:
    """What a worker sees of this process's environment, and the threads that it may use."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = max(1, cores - 1)  # one stays for the server
    if asked.isdecimal():
        threads = max(1, min(int(asked), threads))
    return kept | {
        "OMP_NUM_THREADS": str(threads),
        "TMPDIR": str(temporary),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _signal(pid: int | None, number: int) -> None:
    if pid is not None:
        with suppress(OSError):  # it is gone
            os.kill(pid, number)
