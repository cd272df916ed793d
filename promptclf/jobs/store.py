"""What outlives a request: jobs and their events, uploaded datasets and feedback.

Everything belongs to an owner, the hash of a secret token that only the owner's browser or client has.
Ids are made here, and no text of a user's becomes part of a path. A write is on the disk when its
method returns. The folder must not lie on a network drive: its file locks and shared memory fail there.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from promptclf.data.dataset import Dataset
from promptclf.errors import DataError, StoreError
from promptclf.jobs.database import Database
from promptclf.task import Example, Task

__all__ = ["Job", "Kind", "State", "Store", "Stored", "is_id", "new_token", "owner_of"]

Kind = Literal["train", "evaluate"]
State = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]

MAX_DATASETS = 20
MAX_ROWS = 100_000
MAX_NAME_CHARS = 100
_TOKEN = re.compile(r"[\w-]{32}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{16}")

_JOB = "id, kind, owner, state, request, created, started, ended, result, error, pid, cancelling"
_STORED = "id, owner, name, created, rows, labels"
_FEEDBACK = ("key", "created", "text", "task", "mode", "predicted", "label", "model")


def new_token() -> str:
    """A secret of 32 characters by which an owner is known; give it to nobody else."""
    return secrets.token_urlsafe(24)


def owner_of(token: str) -> str:
    """Under what name the store keeps what belongs to the bearer of a token: 64 hexadecimal digits.

    Raises
    ------
    DataError
        If it is no token: all who have none would be one owner.
    """
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise DataError("token: expected the token that came with the job; start a job to get one")
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Job:
    """A training or a comparison.

    `request` is what was asked, with "model" and "quantization" of the server that took it. Times are
    UTC in ISO format. `pid` is the worker's while the job runs. `cancelling`: asked to end, still running.
    """

    id: str
    kind: Kind
    owner: str
    state: State
    request: dict[str, Any]
    created: str
    started: str | None = None
    ended: str | None = None
    result: dict[str, Any] | None = None
    error: str | None = None
    pid: int | None = None
    cancelling: bool = False

    @property
    def over(self) -> bool:
        """Whether it is neither queued nor running."""
        return self.state not in ("queued", "running")


@dataclass(frozen=True, slots=True)
class Stored:
    """An uploaded dataset: what there is to know about it without reading its rows.

    `rows` maps split names to counts; `labels` are the task's, in its order.
    """

    id: str
    owner: str
    name: str
    created: str
    rows: dict[str, int]
    labels: list[str]


class Store:
    """The store in a folder; for use by many threads and processes.

    Parameters
    ----------
    folder
        Made if need be, readable by this user only. Jobs keep their files in ``jobs/<id>``.

    Raises
    ------
    StoreError
        If it cannot be opened, or was written by a newer version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self._db = Database(self.folder)

    def close(self) -> None:
        """Close the connections to the file; another use opens new ones."""
        self._db.close()

    # ---- jobs ---------------------------------------------------------------------------------

    def add_job(self, kind: Kind, owner: str, request: Mapping[str, Any], *, limit: int | None = None) -> Job:
        """Queue a job.

        Raises
        ------
        StoreError
            If there are already `limit` jobs queued or running.
        """
        with self._db.open(write=True) as db:
            _check_queue(db, limit)
            values = (_new_id(), kind, owner, json.dumps(dict(request)), _now())
            command = "INSERT INTO jobs (id, kind, owner, request, created) VALUES (?, ?, ?, ?, ?)"
            return _job(db.execute(f"{command} RETURNING {_JOB}", values).fetchone())

    def job(self, job_id: str) -> Job | None:
        """A job, whoever owns it; `promptclf.jobs.jobs.Jobs.job` asks for the owner."""
        found = self._db.rows(f"SELECT {_JOB} FROM jobs WHERE id = ?", job_id) if is_id(job_id) else []
        return _job(found[0]) if found else None

    def jobs(self, owner: str, kind: Kind | None = None, limit: int = 20) -> list[Job]:
        """An owner's jobs, newest first."""
        own = "owner = ? AND kind = ifnull(?, kind)"
        query = f"SELECT {_JOB} FROM jobs WHERE {own} ORDER BY number DESC LIMIT ?"
        return [_job(row) for row in self._db.rows(query, owner, kind, limit)]

    def unfinished(self) -> list[Job]:
        """Everybody's queued and running jobs, oldest first."""
        query = f"SELECT {_JOB} FROM jobs WHERE state IN ('queued', 'running') ORDER BY number"
        return [_job(row) for row in self._db.rows(query)]

    def start_job(self, job_id: str, pid: int) -> bool:
        """Mark a queued job as running; False if it is no longer queued."""
        return self._db.change(
            "UPDATE jobs SET state = 'running', pid = ?, started = ? WHERE id = ? AND state = 'queued'",
            *(pid, _now(), job_id),
        )

    def end_job(
        self,
        job_id: str,
        state: State,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> bool:
        """End a queued or running job; False if it was over already.

        A job that is interrupted after it was asked to end is cancelled.
        """
        return self._db.change(
            "UPDATE jobs SET state = iif(? = 'interrupted' AND cancelling, 'cancelled', ?), ended = ?,"
            " result = ?, error = iif(? = 'interrupted' AND cancelling, NULL, ?), pid = NULL, cancelling = 0"
            " WHERE id = ? AND state IN ('queued', 'running')",
            *(state, state, _now(), None if result is None else json.dumps(dict(result))),
            *(state, error, job_id),
        )

    def cancel_job(self, job_id: str) -> None:
        """Cancel a queued job, and mark a running one for its worker to be stopped."""
        with self._db.open(write=True) as db:
            db.execute(
                "UPDATE jobs SET state = iif(state = 'queued', 'cancelled', state),"
                " ended = iif(state = 'queued', ?, ended), cancelling = state = 'running'"
                " WHERE id = ? AND state IN ('queued', 'running')",
                (_now(), job_id),
            )

    def requeue_job(self, job_id: str, *, limit: int | None = None) -> bool:
        """Queue an interrupted job again; False if it is not interrupted. Errors are those of `add_job`."""
        with self._db.open(write=True) as db:
            _check_queue(db, limit)
            command = (
                "UPDATE jobs SET state = 'queued', ended = NULL, error = NULL"
                " WHERE id = ? AND state = 'interrupted'"
            )
            return db.execute(command, (job_id,)).rowcount == 1

    def add_event(self, job_id: str, event: Mapping[str, Any]) -> None:
        """Append to a job's log."""
        self._db.change("INSERT INTO events (job, event) VALUES (?, ?)", job_id, json.dumps(dict(event)))

    def events(self, job_id: str, after: int = 0) -> list[tuple[int, dict[str, Any]]]:
        """A job's events with their numbers, oldest first; only those numbered above `after`."""
        query = "SELECT number, event FROM events WHERE job = ? AND number > ? ORDER BY number"
        return [(number, json.loads(event)) for number, event in self._db.rows(query, job_id, after)]

    def job_folder(self, job_id: str) -> Path:
        """Where a job keeps its files; it need not exist yet."""
        if not is_id(job_id):
            raise ValueError(f"expected an id of a job, got {job_id!r:.40}")
        return self.folder / "jobs" / job_id

    # ---- datasets -----------------------------------------------------------------------------

    def add_dataset(self, owner: str, dataset: Dataset, task: Task | None = None) -> Stored:
        """Keep a dataset, with another task if one is given.

        Raises
        ------
        DataError
            If it has more than 100,000 rows, or a label that is not one of the task's.
        StoreError
            If the owner has 20 already.
        """
        dataset = replace(dataset, task=task or dataset.task, name=dataset.name[:MAX_NAME_CHARS])
        rows = {split: len(examples) for split, examples in dataset.splits.items()}
        if sum(rows.values()) > MAX_ROWS:
            raise DataError(f"data: expected at most {MAX_ROWS:,} rows, got {sum(rows.values()):,}")
        labels = json.dumps(list(dataset.task.labels))
        values = (_new_id(), owner, dataset.name, _now(), json.dumps(rows), labels, _pack(dataset))
        with self._db.open(write=True) as db:
            (count,) = db.execute("SELECT count(*) FROM datasets WHERE owner = ?", (owner,)).fetchone()
            if count >= MAX_DATASETS:
                raise StoreError(
                    f"data: expected at most {MAX_DATASETS} data sets; delete one of yours first"
                )
            row = db.execute(
                "INSERT INTO datasets (id, owner, name, created, rows, labels, content)"
                f" VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING {_STORED}",
                values,
            ).fetchone()
            return _stored(row)

    def datasets(self, owner: str) -> list[Stored]:
        """An owner's datasets, newest first."""
        query = f"SELECT {_STORED} FROM datasets WHERE owner = ? ORDER BY number DESC"
        return [_stored(row) for row in self._db.rows(query, owner)]

    def stored(self, dataset_id: str, owner: str) -> Stored:
        """What is known about a dataset, without its rows.

        Raises
        ------
        DataError
            If the owner has no such dataset.
        """
        return _stored(self._dataset_row(_STORED, dataset_id, owner))

    def dataset(self, dataset_id: str, owner: str) -> Dataset:
        """A dataset with its task, as it was kept.

        Raises
        ------
        DataError
            If the owner has no such dataset.
        """
        (content,) = self._dataset_row("content", dataset_id, owner)
        return _unpack(content)

    def delete_dataset(self, dataset_id: str, owner: str) -> bool:
        """Delete a dataset; False if the owner has none such. What was trained on it stays."""
        command = "DELETE FROM datasets WHERE id = ? AND owner = ?"
        return is_id(dataset_id) and self._db.change(command, dataset_id, owner)

    def _dataset_row(self, columns: str, dataset_id: str, owner: str) -> Any:
        query = f"SELECT {columns} FROM datasets WHERE id = ? AND owner = ?"
        if not is_id(dataset_id) or not (found := self._db.rows(query, dataset_id, owner)):
            raise DataError(f"task: no data set {dataset_id!r:.40} of yours; upload it again")
        return found[0]

    # ---- feedback -----------------------------------------------------------------------------

    def save_feedback(
        self,
        owner: str,
        *,
        key: str,
        text: str,
        task: str,
        mode: str,
        predicted: str,
        label: str,
        model: Mapping[str, str],
    ) -> None:
        """Keep what an owner says is the right label. Saving the same `key` again changes nothing."""
        values = (key, owner, _now(), text, task, mode, predicted, label, json.dumps(dict(model)))
        self._db.change(
            "INSERT INTO feedback (key, owner, created, text, task, mode, predicted, label, model)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (owner, key) DO NOTHING",
            *values,
        )

    def feedback(self, owner: str) -> list[dict[str, Any]]:
        """An owner's feedback, newest first: key, created, text, task, mode, predicted, label, model."""
        query = f"SELECT {', '.join(_FEEDBACK)} FROM feedback WHERE owner = ? ORDER BY number DESC"
        found = [dict(zip(_FEEDBACK, row, strict=True)) for row in self._db.rows(query, owner)]
        return [{**row, "model": json.loads(row["model"])} for row in found]

    def delete_feedback(self, key: str, owner: str) -> bool:
        """Delete one; False if the owner has none such."""
        return self._db.change("DELETE FROM feedback WHERE key = ? AND owner = ?", key, owner)

    # ---- everything of an owner ---------------------------------------------------------------

    def forget(self, owner: str) -> None:
        """Delete an owner's feedback, datasets and ended jobs with their files. Cancel the others first."""
        with self._db.open(write=True) as db:
            db.execute("DELETE FROM feedback WHERE owner = ?", (owner,))
            db.execute("DELETE FROM datasets WHERE owner = ?", (owner,))
            over = "DELETE FROM jobs WHERE owner = ? AND state NOT IN ('queued', 'running') RETURNING id"
            gone = [job_id for (job_id,) in db.execute(over, (owner,)).fetchall()]
        for job_id in gone:
            shutil.rmtree(self.job_folder(job_id), ignore_errors=True)


def is_id(value: Any) -> bool:
    """Whether a value has the form of the ids that the store makes."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _new_id() -> str:
    return secrets.token_hex(8)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _check_queue(db: sqlite3.Connection, limit: int | None) -> None:
    (count,) = db.execute("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')").fetchone()
    if limit is not None and count >= limit:
        raise StoreError(f"the queue is full: {count} jobs are queued or running; try again later")


def _job(row: Any) -> Job:
    job_id, kind, owner, state, request, created, started, ended, result, error, pid, cancelling = row
    return Job(
        id=job_id,
        kind=kind,
        owner=owner,
        state=state,
        request=json.loads(request),
        created=created,
        started=started,
        ended=ended,
        result=None if result is None else json.loads(result),
        error=error,
        pid=pid,
        cancelling=bool(cancelling),
    )


def _stored(row: Any) -> Stored:
    dataset_id, owner, name, created, rows, labels = row
    return Stored(dataset_id, owner, name, created, json.loads(rows), json.loads(labels))


def _pack(dataset: Dataset) -> bytes:
    values = {
        "task": dataset.task.to_dict(),
        "splits": {
            split: [[e.text, e.label, e.pair, dict(e.meta)] for e in examples]
            for split, examples in dataset.splits.items()
        },
        "name": dataset.name,
        "validation_from_source": dataset.validation_from_source,
        "columns": dict(dataset.columns),
        "revision": dataset.revision,
    }
    return zlib.compress(json.dumps(values).encode(), level=1)


def _unpack(content: bytes) -> Dataset:
    values: dict[str, Any] = json.loads(zlib.decompress(content))
    task, splits = Task.from_dict(values.pop("task")), values.pop("splits")
    values |= {split: tuple(Example(*row) for row in rows) for split, rows in splits.items()}
    return Dataset(task, **values)
