"""The process that does one job: ``python -m promptclf.jobs.worker JOB_FOLDER``; the scheduler starts it.

It writes what happens into the store itself, so that it needs no server to finish. SIGTERM stops it
where the job can go on from later. Its standard input is the locked file ``worker.lock``: the lock holds
as long as this process or one that it started lives, however they end.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptclf.data.dataset import load_dataset
from promptclf.errors import PromptClfError, TrainingStop
from promptclf.garbage import collect_rarely
from promptclf.jobs.store import Job, State, Store
from promptclf.task import PACKAGED_TASKS, packaged_tasks

if TYPE_CHECKING:
    from promptclf.data.dataset import Dataset

logger = logging.getLogger(__name__)

LOCK = "worker.lock"
ADAPTER, CHECKPOINTS, RUNS, TEMPORARY = "adapter", "checkpoints", "runs", "tmp"
SAVE_STEPS = 10  # what a killed training does again at most; saving takes a small part of ten steps
PATIENCE = 5.0  # seconds for a training to come to the end of its step
NICENESS = 10

Event = dict[str, Any]


class Stopped(TrainingStop):
    """SIGTERM came. Not an Exception: nothing on the way may take it for a failure."""


class Stop:
    """What SIGTERM does: it ends the work at its next `check`, or at once where that is asked for."""

    def __init__(self) -> None:
        self.asked = self._at_once = self._over = False

    def listen(self) -> None:
        """Take over SIGTERM, and SIGALRM for those that do not come to a `check` in time."""
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGALRM, self._insist)

    def check(self) -> None:
        """Raise `Stopped` if it was asked for."""
        if self.asked:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Stopped

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, SIGTERM raises `Stopped` wherever the work is."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def over(self) -> None:
        """There is nothing left to stop."""
        self._over = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _ask(self, *_: Any) -> None:
        if self.asked or self._over:
            return
        self.asked = True
        signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)  # again, should a library catch it all
        if self._at_once:
            raise Stopped

    def _insist(self, *_: Any) -> None:
        if not self._over:
            raise Stopped


Work = Callable[[Job, Store, Callable[[Event], None], Stop], dict[str, Any]]


def train(job: Job, store: Store, tell: Callable[[Event], None], stop: Stop) -> dict[str, Any]:
    """Fit a LoRA classifier, from the newest checkpoint if there is one, and save it to ``adapter``."""
    folder, asked = store.job_folder(job.id), job.request
    with stop.at_once():
        from promptclf.classifiers.lora import LoraClassifier
        from promptclf.evaluation.measure import columns
        from promptclf.lm.loading import load_model
        from promptclf.settings import TrainConfig

        dataset = read_data(job, store).limit(rows=asked["rows"], seed=asked["seed"])
        tell({"event": "begin", "rows": dataset.describe()["rows"]})
        model = load_model(asked["model"], quantization=asked["quantization"])
        config = TrainConfig(
            rank=asked["rank"],
            alpha=2 * asked["rank"],
            learning_rate=asked["learning_rate"],
            batch_size=asked["batch_size"],
            epochs=asked["epochs"],
            save_steps=SAVE_STEPS,
        )

    def callback(event: Event) -> None:
        tell(event)
        stop.check()

    classifier = LoraClassifier(
        dataset.task,
        model,
        truncate=True,
        config=config,
        seed=asked["seed"],
        callback=callback,
        checkpoints=folder / CHECKPOINTS,
        resume=True,
    )
    validation = columns(dataset.validation) if dataset.validation else None
    classifier.fit(*columns(dataset.train), validation=validation)
    classifier.save_pretrained(folder / ADAPTER)
    training: dict[str, Any] = classifier.training_
    best = next(row for row in training["history"] if row["epoch"] == training["best_epoch"])
    return {
        "adapter": ADAPTER,
        "task": dataset.task.name,
        "validation": best,
        "training": training,
        "temperature": classifier.temperature_,
        "model": model.info.to_dict(),
        "dataset": dataset.describe(),
    }


def evaluate(job: Job, store: Store, tell: Callable[[Event], None], stop: Stop) -> dict[str, Any]:
    """Compare modes; a comparison that was interrupted does not repeat its finished runs."""
    folder, asked = store.job_folder(job.id), job.request
    with stop.at_once():
        from promptclf.evaluation.compare import run_comparison

        dataset = read_data(job, store)
        dataset = dataset.limit(asked["rows"], asked["test_rows"], asked["seed"])
        tell({"event": "begin", "rows": dataset.describe()["rows"]})
        run_comparison(
            dataset,
            modes=asked["modes"],
            model=asked["model"],
            quantizations=(asked["quantization"],),
            seeds=1,  # more of them would show the spread of few-shot, and take its time again each
            seed=asked["seed"],
            truncate=True,
            out=folder,
            progress=tell,
        )
    return {
        "report": "report.json",
        "html": "report.html",
        "markdown": "report.md",
        "predictions": "predictions.csv",
    }


WORK: dict[str, Work] = {"train": train, "evaluate": evaluate}


def read_data(job: Job, store: Store) -> Dataset:
    """The dataset of the job's owner, or that of a packaged task; never a path."""
    name = job.request["task"]
    return load_dataset(PACKAGED_TASKS / name) if name in packaged_tasks() else store.dataset(name, job.owner)


def tidy(folder: Path, job: Job | None) -> None:
    """Remove what a job's folder holds that nobody will need; call it while no worker is at work."""
    if job is None or job.state == "cancelled":
        shutil.rmtree(folder, ignore_errors=True)
        return
    # A process that was killed while it wrote leaves temporary files and staging folders.
    left = [*folder.glob("tmp*"), *folder.glob(f"{RUNS}/tmp*"), *folder.glob(f".{ADAPTER}.*")]
    if job.state in ("done", "failed"):
        left += [folder / CHECKPOINTS, folder / RUNS]
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def main(folder: str, work: Mapping[str, Work] = WORK) -> int:
    """Do the job of a folder, and write its end into the store.

    Returns
    -------
    The exit status: 0 if the job is over, or was taken back before it began.

    Raises
    ------
    PromptClfError
        If the lock is not this process's, or the store cannot be used.
    """
    stop = Stop()
    stop.listen()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    place = Path(folder)
    store = Store(place.parent.parent)
    _check_lock(store.folder / LOCK)
    os.nice(NICENESS)
    with suppress(OSError):  # if memory runs out, the server is to stay
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    if not store.start_job(place.name, os.getpid()):
        return 0
    job = store.job(place.name)
    assert job is not None
    begin = time.monotonic()

    def tell(event: Event) -> None:
        store.add_event(job.id, {"seconds": round(time.monotonic() - begin, 3), **event})

    state, result, error = _attempt(lambda: work[job.kind](job, store, tell, stop), stop)
    if error is not None:
        error = error.replace(f"{place}{os.sep}", "")  # where the server keeps its files is its own affair
    store.end_job(job.id, state, result, error)
    return 0


def _attempt(
    work: Callable[[], dict[str, Any]], stop: Stop
) -> tuple[State, dict[str, Any] | None, str | None]:
    """How the work ends: state, result, error."""
    try:
        try:
            return "done", work(), None
        finally:
            stop.over()
    except Stopped:
        return "interrupted", None, None
    except PromptClfError as error:
        return "failed", None, str(error)
    except MemoryError:
        return "failed", None, "memory ran out; try fewer rows, or a smaller batch"
    except Exception:
        logger.exception("the job failed")
        return "failed", None, "something went wrong; the log of the job says more"


def _check_lock(path: Path) -> None:
    try:
        held = os.path.samestat(os.fstat(0), path.stat())
        fcntl.flock(0, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no change where the scheduler has locked it
    except OSError:
        held = False
    if not held:
        raise PromptClfError(f"expected {path.name}, locked, as standard input; the app starts its workers")


if __name__ == "__main__":
    collect_rarely()
    sys.exit(main(sys.argv[1]))
