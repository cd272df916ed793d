"""Trainings and comparisons as jobs: asking for one, watching, cancelling and resuming it, using its files.

Whatever is asked about a job goes through `Jobs.job`, which wants to know the owner. The answer about
another owner's job is the answer about one that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from promptclf.errors import DataError, PromptClfError
from promptclf.jobs.scheduler import GRACE, Scheduler
from promptclf.jobs.store import Job, Kind, Store, is_id
from promptclf.schema import EvaluateRequest, TrainRequest, parse
from promptclf.task import packaged_tasks

LIMIT = 5
_REQUESTS: dict[str, type[TrainRequest] | type[EvaluateRequest]] = {
    "train": TrainRequest,
    "evaluate": EvaluateRequest,
}


class Jobs:
    """The jobs of a store and the scheduler that works them off; for use by many threads.

    Parameters
    ----------
    store
        Where they are kept.
    model, quantization
        What the jobs run on; as for `promptclf.load_model`.
    limit
        How many jobs may be queued or running, of all owners.
    training
        Whether this server takes trainings.
    minutes
        A job that runs longer fails; None: no limit.
    """

    def __init__(
        self,
        store: Store,
        *,
        model: str = "embedded",
        quantization: str = "none",
        limit: int = LIMIT,
        training: bool = True,
        minutes: float | None = None,
    ) -> None:
        self.store = store
        self.model, self.quantization = model, quantization
        self.limit, self.training = limit, training
        self._scheduler = Scheduler(store, minutes=minutes)

    def start(self) -> None:
        """Begin to work off the queue, in the background."""
        self._scheduler.start()

    def close(self, timeout: float = GRACE) -> None:
        """Take no more jobs, and stop the worker unless another server looks after it.

        A training saves its state first. After `timeout` seconds the worker is stopped by force. What
        was running is then "interrupted"; what is queued waits for the next start.
        """
        self._scheduler.close(timeout)

    def submit(self, kind: str, request: Mapping[str, Any], owner: str) -> Job:
        """Queue a job.

        Parameters
        ----------
        kind
            "train" or "evaluate".
        request
            The fields of `promptclf.schema.TrainRequest` or `EvaluateRequest`. A token among them is not
            kept.
        owner
            What `promptclf.jobs.store.owner_of` gave.

        Raises
        ------
        DataError
            If a field is not usable, or the owner has no such dataset.
        PromptClfError
            If the queue is full, the server takes no trainings, or it is closing.
        """
        if kind not in _REQUESTS:
            raise DataError(f"kind: expected one of {', '.join(_REQUESTS)}, got {kind!r:.40}")
        self._check_open(kind)
        asked = parse(_REQUESTS[kind], **request).model_dump(exclude={"token"})
        self._check_task(asked["task"], owner)
        asked |= {"model": self.model, "quantization": self.quantization}
        job = self.store.add_job(cast(Kind, kind), owner, asked, limit=self.limit)
        self._scheduler.wake()
        return job

    def job(self, job_id: str, owner: str) -> Job:
        """A job of the owner's.

        Raises
        ------
        DataError
            If there is none, whether or not somebody else has it.
        """
        found = self.store.job(job_id)
        if found is None or found.owner != owner:
            raise DataError(f"job: no job {job_id!r:.40} of yours; see that id and token belong together")
        return found

    def cancel(self, job_id: str, owner: str) -> Job:
        """Cancel a job of the owner's, and return it as it is then; one that is over stays as it was.

        A queued job is cancelled at once. A running one is ``cancelling`` until its worker has stopped.
        """
        self.job(job_id, owner)
        self.store.cancel_job(job_id)
        self._scheduler.wake()
        return self.job(job_id, owner)

    def resume(self, job_id: str, owner: str) -> Job:
        """Queue an interrupted job again: a training goes on from its newest checkpoint, and a comparison
        after its last finished run.

        Raises
        ------
        DataError
            If the owner has no such job, or it is not interrupted.
        PromptClfError
            As for `submit`.
        """
        job = self.job(job_id, owner)
        self._check_open(job.kind)
        if not self.store.requeue_job(job_id, limit=self.limit):
            state = self.job(job_id, owner).state
            raise DataError(f"job: expected an interrupted one, {job_id} is {state}; start a new one")
        self._scheduler.wake()
        return self.job(job_id, owner)

    def folder(self, job_id: str, owner: str) -> Path:
        """The files of a finished job: ``adapter`` of a training; report.html, report.json, report.md and
        predictions.csv of a comparison.

        Raises
        ------
        DataError
            If the owner has no such job, or it is not done.
        """
        job = self.job(job_id, owner)
        if job.state != "done":
            raise DataError(f"job: expected a finished one, {job_id} is {job.state}; wait or start a new one")
        return self.store.job_folder(job_id)

    def watch(self, job_id: str, owner: str, poll: float = 0.2) -> Iterator[dict[str, Any]]:
        """Every event of a job from its beginning, then new ones as they come.

        While the job waits, ``{"event": "queued", "ahead": jobs before it}``; at its end, or when the
        server closes, ``{"event": "end", "state": …, "error": …}``. After a job was resumed, the steps
        since its newest checkpoint come once more. The job goes on when nobody watches.

        Parameters
        ----------
        job_id, owner
            Checked at once, as in `job`.
        poll
            Seconds between looks.
        """
        first = self.job(job_id, owner)
        return self._watch(first, poll)

    def _watch(self, job: Job, poll: float) -> Iterator[dict[str, Any]]:
        closed = self._scheduler.closed
        seen, ahead = 0, -1
        while True:
            going = not closed.is_set()
            now = self.store.job(job.id)  # before its events: what it says then is all that there is
            if now is None:  # its owner had it forgotten
                yield {"event": "end", "state": "cancelled", "error": None}
                return
            for number, event in self.store.events(job.id, seen):
                seen = number
                yield event
            if now.over or not going:
                yield {"event": "end", "state": now.state, "error": now.error}
                return
            if now.state == "queued" and (waiting := self._ahead(job.id)) != ahead:
                ahead = waiting
                yield {"event": "queued", "ahead": ahead}
            closed.wait(poll)

    def _ahead(self, job_id: str) -> int:
        ids = [job.id for job in self.store.unfinished()]
        return ids.index(job_id) if job_id in ids else 0

    def _check_open(self, kind: str) -> None:
        if self._scheduler.closed.is_set():
            raise PromptClfError("the server is closing; try again in a minute")
        if kind == "train" and not self.training:
            raise PromptClfError("this server takes no trainings; run promptclf on a machine of your own")

    def _check_task(self, task: str, owner: str) -> None:
        if task in packaged_tasks():
            return
        if not is_id(task):
            known = ", ".join(packaged_tasks())
            raise DataError(
                f"task: expected one of {known}, or the id of a data set of yours, got {task!r:.60}"
            )
        self.store.stored(task, owner)
