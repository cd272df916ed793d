"""The endpoints about long work: /evaluate, /train, /job and /cancel.

Annotations are evaluated here: gradio describes an endpoint only if its types are no strings. What comes
in is checked by `promptclf.jobs.jobs` and `promptclf.schema`.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from promptclf.errors import PromptClfError
from promptclf.jobs.jobs import Jobs
from promptclf.jobs.store import Job, Store, new_token, owner_of
from promptclf.schema import (
    SCHEMA_VERSION,
    EvaluateEvent,
    JobRequest,
    JobResult,
    Mode,
    TasksRequest,
    TrainResult,
    parse,
)

POLL = 0.2  # seconds between two looks at a job
BEAT = 1.0  # seconds after which a caller hears that nothing happened; gradio sees then if one has left
AT_ONCE = 500  # events of a job in one answer


class JobEndpoints:
    """What they do. The first line of a docstring is shown on the page about the API."""

    def __init__(self, jobs: Jobs, store: Store) -> None:
        self.jobs, self.store = jobs, store

    async def evaluate(
        self,
        task: str = "support",
        modes: list[Mode] | None = None,
        rows: int | None = None,
        test_rows: int | None = None,
        seed: int = 0,
        token: str | None = None,
    ) -> AsyncIterator[EvaluateEvent]:
        """Compare modes on a test split; tells the progress, then gives the report.

        Cancelling the request cancels the evaluation.

        Args:
            task: A packaged task, or the id of a data set of yours; /tasks lists them.
            modes: Some of zero-shot, few-shot and lora; all if it is not said.
            rows: How many rows to learn from; all if it is not said.
            test_rows: How many rows to score; all if it is not said.
            seed: Of everything random.
            token: Your owner token, for a data set of yours.
        """
        request: dict[str, Any] = {"task": task, "rows": rows, "test_rows": test_rows, "seed": seed}
        if modes is not None:
            request["modes"] = modes
        token = _token(token)
        job = self.jobs.submit("evaluate", request, owner_of(token))
        owner, after, heard = job.owner, 0, time.monotonic()
        try:
            yield _step(job, token, {"event": "queued"})
            while True:
                # The state comes first: what happened before it is then among the events.
                job = self.jobs.job(job.id, owner)
                events = await asyncio.to_thread(self.store.events, job.id, after)
                if not events and not job.over and time.monotonic() - heard > BEAT:
                    events = [(after, {"event": "waiting", "state": job.state})]
                for number, event in events:
                    after, heard = number, time.monotonic()
                    yield _step(job, token, event)
                if job.over:
                    break
                await asyncio.sleep(POLL)
        finally:
            self.jobs.cancel(job.id, owner)  # nothing happens if it is over
        if job.state != "done" or job.result is None:
            raise PromptClfError(f"job: {job.id} is {job.state}; {job.error or 'start it again'}")
        report = self.jobs.folder(job.id, owner) / job.result["report"]
        text = await asyncio.to_thread(report.read_text, "utf-8")
        yield {**_step(job, token, {"event": "report"}), "report": json.loads(text)}

    def train(
        self,
        task: str = "support",
        rows: int | None = None,
        epochs: int = 3,
        learning_rate: float = 1e-3,
        rank: int = 8,
        batch_size: int = 8,
        seed: int = 0,
        token: str | None = None,
    ) -> TrainResult:
        """Begin to train a LoRA adapter; returns the job's id and the owner token that it belongs to.

        Args:
            task: A packaged task, or the id of a data set of yours; /tasks lists them.
            rows: How many labelled rows to learn from, validation included; all if it is not said.
            epochs: Passes over the rows, 1 to 5.
            learning_rate: At its highest; up to 0.1.
            rank: Of the adapter, 1 to 64.
            batch_size: Rows a step, 1 to 64.
            seed: Of everything random.
            token: Your owner token; without one, you get a new one.
        """
        request = {
            "task": task,
            "rows": rows,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "rank": rank,
            "batch_size": batch_size,
            "seed": seed,
        }
        token = _token(token)
        job = self.jobs.submit("train", request, owner_of(token))
        return {"schema_version": SCHEMA_VERSION, "job": job.id, "token": token, "state": job.state}

    def job(self, job: str, token: str, after: int = 0) -> JobResult:
        """Say how a job of yours stands, with its events.

        Args:
            job: Its id.
            token: Your owner token.
            after: Only events after this number; `next` of the last answer.
        """
        asked = parse(JobRequest, job=job, token=token, after=after)
        return self._told(self.jobs.job(asked.job, owner_of(asked.token)), asked.after)

    def cancel(self, job: str, token: str) -> JobResult:
        """Cancel a job of yours.

        Args:
            job: Its id.
            token: Your owner token.
        """
        asked = parse(JobRequest, job=job, token=token)
        return self._told(self.jobs.cancel(asked.job, owner_of(asked.token)), 0)

    def _told(self, job: Job, after: int) -> JobResult:
        events = self.store.events(job.id, after)[:AT_ONCE]
        return {
            "schema_version": SCHEMA_VERSION,
            "job": job.id,
            "kind": job.kind,
            "state": job.state,
            "cancelling": job.cancelling,
            "request": job.request,
            "created": job.created,
            "started": job.started,
            "ended": job.ended,
            "events": [event for _, event in events],
            "next": events[-1][0] if events else after,
            "result": job.result,
            "error": job.error,
        }


def _token(token: str | None) -> str:
    """The token of whoever asks, or a new one."""
    return parse(TasksRequest, token=token).token or new_token()


def _step(job: Job, token: str, event: dict[str, Any]) -> EvaluateEvent:
    return {
        "schema_version": SCHEMA_VERSION,
        "event": event["event"],
        "job": job.id,
        "token": token,
        "progress": event,
        "report": None,
    }
