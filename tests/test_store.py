"""The store: what is written stays, whatever is killed; and nobody reaches what is another's."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from promptclf.data.dataset import Dataset
from promptclf.errors import DataError, StoreError
from promptclf.jobs import store as store_module
from promptclf.jobs.store import Store, new_token, owner_of
from promptclf.task import Example, Task

ANN, BOB = owner_of(new_token()), owner_of(new_token())
FEEDBACK: dict[str, Any] = {
    "key": "f" * 32,
    "text": "Where is it?",
    "task": "support",
    "mode": "lora",
    "predicted": "refund",
    "label": "delivery",
    "model": {"name": "embedded"},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "app")
    yield store
    store.close()


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `count` threads return that begin together."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


# ---- owners ---------------------------------------------------------------------------------------


def test_tokens_are_secret_and_owners_are_their_hashes() -> None:
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000 and {len(token) for token in tokens} == {32}
    assert len({owner_of(token) for token in tokens}) == 1000
    token = new_token()
    assert owner_of(token) == owner_of(token) and len(owner_of(token)) == 64 and token not in owner_of(token)


@pytest.mark.parametrize("token", ["", None, 5, "short", "x" * 33, "é" * 32, "x" * 31 + "\n", ["x" * 32]])
def test_what_is_no_token_owns_nothing(token: Any) -> None:
    with pytest.raises(DataError, match=r"^token: expected"):
        owner_of(token)


# ---- jobs -----------------------------------------------------------------------------------------


def test_the_life_of_a_job(store: Store) -> None:
    job = store.add_job("train", ANN, {"task": "support", "text": "é\U0001f600"})
    assert (job.kind, job.owner, job.state, job.over) == ("train", ANN, "queued", False)
    assert job.request == {"task": "support", "text": "é\U0001f600"}
    assert datetime.fromisoformat(job.created).utcoffset() == timedelta(0)
    assert (job.started, job.ended, job.result, job.error, job.pid) == (None, None, None, None, None)

    assert store.start_job(job.id, 4711)
    running = store.job(job.id)
    assert running is not None and (running.state, running.pid, running.over) == ("running", 4711, False)
    assert store.end_job(job.id, "done", {"adapter": "adapter"})
    done = store.job(job.id)
    assert done is not None and (done.state, done.result, done.pid) == ("done", {"adapter": "adapter"}, None)
    assert done.over and str(done.ended) >= str(done.started) >= done.created

    # What is over stays as it is.
    assert not store.end_job(job.id, "failed", error="late") and not store.start_job(job.id, 1)
    store.cancel_job(job.id)
    assert not store.requeue_job(job.id)
    assert store.job(job.id) == done


def test_jobs_are_listed_newest_first_and_only_to_their_owner(store: Store) -> None:
    kinds: list[Any] = ["train", "evaluate", "train"]
    made = [store.add_job(kind, ANN, {}) for kind in kinds]
    other = store.add_job("train", BOB, {})
    assert store.jobs(ANN) == made[::-1]
    assert store.jobs(ANN, "train") == [made[2], made[0]]
    assert store.jobs(ANN, limit=1) == [made[2]]
    assert store.jobs(BOB) == [other] and store.jobs("nobody") == []
    store.start_job(made[0].id, 1)
    store.end_job(made[1].id, "failed", error="no")
    assert [job.id for job in store.unfinished()] == [made[0].id, made[2].id, other.id]


@pytest.mark.parametrize("job_id", ["", "0" * 16, "../../etc", "A" * 16, None, 5, ["x"], "\ud800", "0" * 17])
def test_ids_that_are_none(store: Store, job_id: Any) -> None:
    assert store.job(job_id) is None
    if job_id != "0" * 16:
        with pytest.raises(ValueError, match="expected an id"):
            store.job_folder(job_id)


def test_cancelling(store: Store) -> None:
    def state(job_id: str) -> tuple[str, bool, str | None]:
        job = store.job(job_id)
        assert job is not None
        return job.state, job.cancelling, job.error

    queued, running, quick = (store.add_job("train", ANN, {}).id for _ in range(3))
    store.cancel_job(queued)
    assert state(queued) == ("cancelled", False, None)
    assert not store.start_job(queued, 1)

    store.start_job(running, 1)
    store.cancel_job(running)
    assert state(running) == ("running", True, None)
    assert store.end_job(running, "interrupted", error="its process ended")
    assert state(running) == ("cancelled", False, None)

    store.start_job(quick, 2)
    store.cancel_job(quick)  # too late: the worker had finished
    assert store.end_job(quick, "done", {})
    assert state(quick) == ("done", False, None)


def test_what_was_interrupted_can_be_queued_again(store: Store) -> None:
    job = store.add_job("train", ANN, {})
    assert not store.requeue_job(job.id)
    store.start_job(job.id, 1)
    store.end_job(job.id, "interrupted", error="its process ended")
    assert store.requeue_job(job.id, limit=1)
    assert store.job(job.id) == replace(job, started=store.jobs(ANN)[0].started)
    store.start_job(job.id, 1)
    store.end_job(job.id, "interrupted")
    store.add_job("train", BOB, {})
    with pytest.raises(StoreError, match="the queue is full: 1 jobs"):
        store.requeue_job(job.id, limit=1)


def test_the_queue_is_bounded_for_all_who_come_at_once(store: Store) -> None:
    def add(number: int) -> str:
        try:
            return store.add_job("train", ANN, {"number": number}, limit=5).id
        except StoreError as error:
            return str(error)

    found = at_once(16, add)
    assert found.count("the queue is full: 5 jobs are queued or running; try again later") == 11
    assert len(store.unfinished()) == 5


def test_only_one_starts_a_job(store: Store) -> None:
    for _ in range(20):
        job = store.add_job("train", ANN, {})
        started = at_once(4, lambda number, job=job: store.start_job(job.id, number + 1))
        assert sorted(started) == [False, False, False, True]
        running = store.job(job.id)
        assert running is not None and running.pid == started.index(True) + 1


def test_a_job_is_started_or_cancelled_never_both(store: Store) -> None:
    for _ in range(40):
        job = store.add_job("train", ANN, {})
        actions = (lambda job=job: store.start_job(job.id, 1), lambda job=job: store.cancel_job(job.id))
        started = at_once(2, lambda number, actions=actions: actions[number]())[0]
        found = store.job(job.id)
        assert found is not None
        assert (found.state, found.cancelling) == (("running", True) if started else ("cancelled", False))


def test_events_are_numbered_and_apart(store: Store) -> None:
    one, two = (store.add_job("train", ANN, {}).id for _ in range(2))
    for step in range(3):
        store.add_event(one, {"event": "step", "step": step, "loss": 0.1})
        store.add_event(two, {"event": "other"})
    found = store.events(one)
    assert [event["step"] for _, event in found] == [0, 1, 2]
    assert store.events(one, after=found[1][0]) == found[2:]
    assert store.events(one, after=found[2][0]) == []
    assert len(store.events(two)) == 3 and store.events("0" * 16) == []
    with pytest.raises(StoreError):
        store.add_event("0" * 16, {})  # of no job


# ---- datasets -------------------------------------------------------------------------------------

HARD = Task("hard", ("None", "01", "NA", "标签", "=1+1", "<script>"), descriptions={"NA": "not a number"})


@pytest.fixture
def hard() -> Dataset:
    """Labels and texts that others lose on the way."""
    texts = ["01", "null", " \t", "a\r\nb", "é\U0001f600", '"', "'; DROP TABLE jobs; --", "\u202e", "\x85"]
    rows = tuple(Example(text, HARD.labels[i % 6], meta={"n": str(i)}) for i, text in enumerate(texts))
    return Dataset(
        HARD,
        rows,
        (replace(rows[0], pair="second"),),
        rows[:2],
        name="hard",
        validation_from_source=False,
        columns={"text": "Text", "label": "y"},
        revision="f" * 40,
    )


def test_datasets_come_back_as_they_were(store: Store, hard: Dataset) -> None:
    stored = store.add_dataset(ANN, hard)
    assert (stored.owner, stored.name) == (ANN, "hard")
    assert (stored.rows, stored.labels) == ({"train": 9, "validation": 1, "test": 2}, list(HARD.labels))
    found = store.dataset(stored.id, ANN)
    assert found == hard and found.fingerprint == hard.fingerprint and found.task == HARD
    assert store.datasets(ANN) == [stored] and store.stored(stored.id, ANN) == stored


def test_a_dataset_can_be_kept_with_another_task(store: Store, hard: Dataset) -> None:
    more = Task("mine", (*HARD.labels, "spare"), instruction="Decide.")
    stored = store.add_dataset(ANN, replace(hard, name="n" * 300), more)
    assert store.dataset(stored.id, ANN).task == more and stored.labels[-1] == "spare"
    assert stored.name == "n" * 100
    with pytest.raises(DataError, match="expected one of the 2 labels"):
        store.add_dataset(ANN, hard, Task("mine", ("None", "01")))


def test_there_are_limits_on_datasets(store: Store, hard: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_ROWS", 11)
    with pytest.raises(DataError, match=r"^data: expected at most 11 rows, got 12"):
        store.add_dataset(ANN, hard)
    monkeypatch.setattr(store_module, "MAX_ROWS", 12)
    monkeypatch.setattr(store_module, "MAX_DATASETS", 2)
    found = [store.add_dataset(ANN, hard).id for _ in range(2)]
    with pytest.raises(StoreError, match=r"^data: expected at most 2 data sets; delete one"):
        store.add_dataset(ANN, hard)
    store.add_dataset(BOB, hard)
    assert store.delete_dataset(found[0], ANN)
    store.add_dataset(ANN, hard)


def test_datasets_of_others_are_as_if_they_were_not_there(store: Store, hard: Dataset) -> None:
    stored = store.add_dataset(ANN, hard)
    assert store.datasets(BOB) == [] and not store.delete_dataset(stored.id, BOB)
    for read in (store.dataset, store.stored):
        told = set()
        for dataset_id, owner in [(stored.id, BOB), ("0" * 16, ANN), ("../hard", ANN), (None, ANN)]:
            with pytest.raises(DataError) as error:
                read(dataset_id, owner)  # type: ignore[arg-type]
            told.add(str(error.value).replace(repr(dataset_id), "X"))
        assert told == {"task: no data set X of yours; upload it again"}
    assert store.delete_dataset(stored.id, ANN) and not store.delete_dataset(stored.id, ANN)
    with pytest.raises(DataError):
        store.dataset(stored.id, ANN)


# ---- feedback -------------------------------------------------------------------------------------


def test_feedback_is_kept_once_a_key(store: Store) -> None:
    for _ in range(3):
        store.save_feedback(ANN, **FEEDBACK)
    store.save_feedback(ANN, **{**FEEDBACK, "key": "e" * 32, "label": "refund"})
    newest, oldest = store.feedback(ANN)
    assert (newest["label"], oldest["label"]) == ("refund", "delivery")
    assert {**oldest, "created": ""} == {**FEEDBACK, "created": ""}
    assert datetime.fromisoformat(oldest["created"])


def test_feedback_belongs_to_its_owner(store: Store) -> None:
    store.save_feedback(ANN, **FEEDBACK)
    store.save_feedback(BOB, **{**FEEDBACK, "text": "Bob's"})  # the same key, and yet his own
    assert [row["text"] for row in store.feedback(ANN)] == [FEEDBACK["text"]]
    assert store.delete_feedback(FEEDBACK["key"], BOB) and not store.delete_feedback(FEEDBACK["key"], BOB)
    assert len(store.feedback(ANN)) == 1 and store.feedback(BOB) == []


def test_half_a_character_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match="surrogate"):
        store.save_feedback(ANN, **{**FEEDBACK, "text": "\ud800"})
    assert store.feedback(ANN) == []


def test_what_is_deleted_has_left_the_disk(store: Store) -> None:
    store.save_feedback(ANN, **{**FEEDBACK, "text": "canary" * 400})
    store.save_feedback(ANN, **{**FEEDBACK, "key": "e" * 32})
    files = [store.folder / "store.sqlite3", store.folder / "store.sqlite3-wal"]
    assert any(b"canary" in file.read_bytes() for file in files)
    store.delete_feedback(FEEDBACK["key"], ANN)
    store.close()
    assert not any(b"canary" in file.read_bytes() for file in files if file.exists())


def test_forget_takes_all_of_one_owner(store: Store, hard: Dataset) -> None:
    jobs = {}
    for owner in (ANN, BOB):
        store.save_feedback(owner, **FEEDBACK)
        store.add_dataset(owner, hard)
        jobs[owner] = store.add_job("train", owner, {}).id
        store.job_folder(jobs[owner]).mkdir(parents=True)
        (store.job_folder(jobs[owner]) / "report.html").write_text("text")
        store.add_event(jobs[owner], {"event": "step"})
        store.end_job(jobs[owner], "done", {})
    running = store.add_job("train", ANN, {})
    store.forget(ANN)
    assert store.feedback(ANN) == [] and store.datasets(ANN) == [] and store.jobs(ANN) == [running]
    assert store.events(jobs[ANN]) == [] and not store.job_folder(jobs[ANN]).exists()
    assert store.feedback(BOB) and store.datasets(BOB) and store.events(jobs[BOB])
    assert (store.job_folder(jobs[BOB]) / "report.html").exists()


# ---- the file -------------------------------------------------------------------------------------

WRITER = """
import sys, threading, uuid
from pathlib import Path
from promptclf.jobs.store import Store

def write():
    while True:
        key = uuid.uuid4().hex
        store.save_feedback("o", key=key, text="t", task="t", mode="m", predicted="p", label="l", model={})
        sys.stdout.write(key + "\\n")
        sys.stdout.flush()

store = Store(Path(sys.argv[1]))
for _ in range(3):
    threading.Thread(target=write, daemon=True).start()
write()
"""


def test_what_was_acknowledged_survives_kills(store: Store) -> None:
    """Kill -9 while four threads write: each key that was told is in the store, and the file is sound."""
    told: list[str] = []
    for kill in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.folder)], stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            told += [process.stdout.readline().strip() for _ in range(20 + 7 * kill)]
            process.send_signal(signal.SIGKILL)
            told += [line.strip() for line in process.stdout if line.endswith("\n")]
        kept = {row["key"] for row in store.feedback("o")}
        assert set(told) <= kept and len(told) >= 20
    with store._db.open() as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_many_threads_at_once(store: Store) -> None:
    def work(number: int) -> int:
        for i in range(10):
            store.save_feedback(ANN, **{**FEEDBACK, "key": f"{number}-{i}"})
            store.feedback(ANN)
        return len(store.feedback(ANN))

    assert max(at_once(8, work)) == 80
    assert len(store._db._idle) <= 8


def test_many_processes_make_one_store(tmp_path: Path) -> None:
    code = "from promptclf.jobs.store import Store; print(Store(sys.argv[1]).add_job('train', 'o', {}).id)"
    command = [sys.executable, "-c", f"import sys; {code}", str(tmp_path / "app")]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    found = [process.communicate(timeout=60) for process in processes]
    assert {error for _, error in found} == {""}
    store = Store(tmp_path / "app")
    assert {job.id for job in store.jobs("o")} == {out.strip() for out, _ in found}
    store.close()


def test_the_folder_is_for_its_user_only(store: Store) -> None:
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_a_full_disk_is_told_and_passes(store: Store) -> None:
    with store._db.open() as db:
        db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match="full"):
        store.save_feedback(ANN, **{**FEEDBACK, "text": "x" * 100_000})
    assert store.feedback(ANN) == []
    store.save_feedback(ANN, **FEEDBACK)
    assert len(store.feedback(ANN)) == 1


def test_a_locked_store_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptclf.jobs.database.BUSY_SECONDS", 0.1)
    other = sqlite3.connect(store.folder / "store.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.close()
    with pytest.raises(StoreError, match="locked"):
        store.add_job("train", ANN, {})
    assert store.jobs(ANN) == []  # who reads does not wait
    other.close()
    store.add_job("train", ANN, {})


def test_an_error_in_a_write_undoes_all_of_it(store: Store) -> None:
    def write() -> None:
        with store._db.open(write=True) as db:
            db.execute("DELETE FROM feedback")
            raise KeyboardInterrupt

    store.save_feedback(ANN, **FEEDBACK)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert len(store.feedback(ANN)) == 1


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "store.sqlite3").write_bytes(zlib.compress(os.urandom(5000)))
    with pytest.raises(StoreError, match="not a database"):
        Store(damaged)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="expected a folder"):
        Store(tmp_path / "file")
    newer = Store(tmp_path / "newer")
    with newer._db.open() as db:
        db.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreError, match="expected version 1, got 99; update promptclf"):
        Store(tmp_path / "newer")
