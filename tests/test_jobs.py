"""Jobs: one worker at a time, whatever is killed; nothing stuck, nothing left, nothing of another's."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from promptclf.data.dataset import Dataset
from promptclf.errors import DataError, PromptClfError
from promptclf.evaluation.report import Report
from promptclf.jobs import scheduler, worker
from promptclf.jobs.jobs import Jobs
from promptclf.jobs.store import Job, Store, new_token, owner_of
from promptclf.jobs.worker import SAVE_STEPS, Stop, Stopped
from promptclf.modes import load_classifier
from promptclf.task import Example
from quick import TASK, rows

HERE = Path(__file__).parent
TOKEN = new_token()
ANN, BOB = owner_of(TOKEN), owner_of(new_token())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "app")
    yield store
    store.close()


@pytest.fixture
def make(store: Store) -> Iterator[Callable[..., Jobs]]:
    """Makes servers' jobs; at the end all are closed, and no worker is left."""
    made: list[Jobs] = []

    def make(**options: Any) -> Jobs:
        made.append(Jobs(store, **options))
        return made[-1]

    yield make
    for jobs in made:
        jobs.close(0)
    assert not is_at_work(store)


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Chooses what workers do; see job_worker.py."""

    def behave(behaviour: str) -> None:
        command = (sys.executable, str(HERE / "job_worker.py"), behaviour)
        monkeypatch.setattr(scheduler, "WORKER", command)

    return behave


def wait_for(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """What the condition gives, once it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


def wait_over(store: Store, job: Job) -> Job:
    return wait_for(lambda: now if (now := read(store, job)).over else None)  # type: ignore[no-any-return]


def wait_event(store: Store, job: Job, kind: str, **values: Any) -> dict[str, Any]:
    """The first event of that kind, with at least those values."""

    def find() -> dict[str, Any] | None:
        for _, event in store.events(job.id):
            if event["event"] == kind and all(event[key] >= value for key, value in values.items()):
                return event
        assert not read(store, job).over, read(store, job)
        return None

    return wait_for(find)  # type: ignore[no-any-return]


def read(store: Store, job: Job) -> Job:
    found = store.job(job.id)
    assert found is not None
    return found


def is_gone(pid: int) -> bool:
    """Whether a process has ended; who takes note of it does not matter."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def is_at_work(store: Store) -> bool:
    lock = scheduler.Scheduler(store)._lock()
    if lock is not None:
        lock.close()
    return lock is None


# ---- asking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "request_", "message"),
    [
        ("delete", {}, "kind: expected one of train, evaluate, got 'delete'"),
        ("train", {"epochs": 0}, "epochs: expected"),
        ("train", {"epochs": "3"}, "epochs: expected"),
        ("train", {"rank": 10**9}, "rank: expected"),
        ("train", {"learning_rate": float("nan")}, "learning_rate: expected"),
        ("train", {"model": "evil/model"}, "model: "),
        ("train", {"task": "suport"}, "task: expected one of support"),
        ("train", {"task": "../../etc/passwd"}, "task: expected"),
        ("train", {"task": "0" * 16}, "task: no data set '0000000000000000' of yours"),
        ("evaluate", {"modes": ["magic"]}, "modes: expected"),
        ("evaluate", {"rows": -1}, "rows: expected"),
    ],
)
def test_what_cannot_be_done_is_refused(store: Store, kind: Any, request_: Any, message: str) -> None:
    jobs = Jobs(store)
    with pytest.raises(DataError, match=f"^{message}"):
        jobs.submit(kind, request_, ANN)
    assert store.unfinished() == []


def test_a_request_is_completed_and_holds_no_token(store: Store) -> None:
    job = Jobs(store, model="a/b", quantization="nf4").submit("train", {"rank": 4, "token": TOKEN}, ANN)
    assert job.request["rank"] == 4 and job.request["epochs"] == 3 and job.request["task"] == "support"
    assert (job.request["model"], job.request["quantization"]) == ("a/b", "nf4")
    assert "token" not in job.request
    store.close()
    assert TOKEN.encode() not in (store.folder / "store.sqlite3").read_bytes()


def test_the_queue_is_bounded(store: Store) -> None:
    jobs = Jobs(store, limit=2)
    for _ in range(2):
        jobs.submit("train", {}, ANN)
    with pytest.raises(PromptClfError, match="the queue is full"):
        jobs.submit("evaluate", {}, BOB)


def test_a_server_may_take_no_trainings_and_a_closing_one_takes_nothing(store: Store) -> None:
    jobs = Jobs(store, training=False)
    with pytest.raises(PromptClfError, match="takes no trainings"):
        jobs.submit("train", {}, ANN)
    jobs.submit("evaluate", {}, ANN)
    jobs.close()
    with pytest.raises(PromptClfError, match="closing"):
        jobs.submit("evaluate", {}, ANN)


def test_what_is_anothers_is_as_if_it_were_not_there(store: Store, dataset: Dataset) -> None:
    jobs = Jobs(store)
    job = jobs.submit("train", {}, ANN)
    told = set()
    for ask in (jobs.job, jobs.cancel, jobs.resume, jobs.folder, jobs.watch):
        for job_id, owner in [(job.id, BOB), ("0" * 16, ANN), ("../x", ANN), ("\ud800", ANN), (None, ANN)]:
            with pytest.raises(DataError) as error:
                ask(job_id, owner)  # type: ignore[operator]
            told.add(str(error.value).replace(repr(job_id), "X"))
    assert told == {"job: no job X of yours; see that id and token belong together"}
    assert read(store, job) == job
    stored = store.add_dataset(BOB, dataset)
    with pytest.raises(DataError, match=r"^task: no data set"):
        jobs.submit("train", {"task": stored.id}, ANN)
    assert jobs.submit("train", {"task": stored.id}, BOB).request["task"] == stored.id


# ---- working --------------------------------------------------------------------------------------


def test_a_job_from_beginning_to_end(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    behave("quick")
    jobs = make()
    job = jobs.submit("evaluate", {}, ANN)
    watching = jobs.watch(job.id, ANN, poll=0.01)
    assert next(watching) == {"event": "queued", "ahead": 0}
    with pytest.raises(DataError, match=r"^job: expected a finished one, \w+ is queued"):
        jobs.folder(job.id, ANN)
    jobs.start()
    events = list(watching)
    assert [event.get("step") for event in events] == [0, 1, 2, None]
    assert events[-1] == {"event": "end", "state": "done", "error": None}
    assert all(event["seconds"] >= 0 for event in events[:-1])
    done = jobs.job(job.id, ANN)
    assert done.result is not None and done.result["pid"] != os.getpid()
    # Who comes later sees the same.
    assert list(jobs.watch(job.id, ANN)) == events
    folder = jobs.folder(job.id, ANN)
    wait_for(lambda: {path.name for path in folder.iterdir()} == {"report.html", "log.txt"})
    with pytest.raises(DataError, match=r"^job: expected an interrupted one, \w+ is done"):
        jobs.resume(job.id, ANN)
    assert jobs.cancel(job.id, ANN) == done


def test_jobs_run_one_at_a_time_in_their_order(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    behave("quick")
    servers = [make() for _ in range(3)]
    asked = [servers[i % 3].submit("train", {"seed": i}, ANN) for i in range(5)]
    for jobs in servers:
        jobs.start()
    ended = [wait_over(store, job) for job in asked]
    assert [job.state for job in ended] == ["done"] * 5
    spans = [job.result["time"] for job in ended if job.result]
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    assert len({job.result["pid"] for job in ended if job.result}) == 5


def test_waiting_jobs_know_their_place(store: Store) -> None:
    jobs = Jobs(store)
    first, second = jobs.submit("train", {}, ANN), jobs.submit("train", {}, BOB)
    watching = jobs.watch(second.id, BOB, poll=0.01)
    assert next(watching)["ahead"] == 1
    jobs.cancel(first.id, ANN)
    assert next(watching)["ahead"] == 0
    jobs.close()
    assert next(watching) == {"event": "end", "state": "queued", "error": None}
    assert list(watching) == []


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("refuses", "checkpoints: expected rows, got none; add some"),
        ("breaks", "something went wrong; the log of the job says more"),
        ("runs_out", "memory ran out; try fewer rows, or a smaller batch"),
    ],
)
def test_errors_reach_the_owner_and_say_no_more_than_they_should(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None], behaviour: str, error: str
) -> None:
    behave(behaviour)
    jobs = make()
    jobs.start()
    job = jobs.submit("train", {}, ANN)
    assert list(jobs.watch(job.id, ANN))[-1] == {"event": "end", "state": "failed", "error": error}
    assert ("canary" in (store.job_folder(job.id) / "log.txt").read_text()) == (behaviour == "breaks")


def test_a_worker_that_cannot_start_fails_its_job_once(
    store: Store, make: Callable[..., Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "WORKER", (sys.executable, "-c", "raise SystemExit(3)"))
    jobs = make()
    jobs.start()
    ended = wait_over(store, jobs.submit("train", {}, ANN))
    assert (ended.state, ended.error) == (
        "failed",
        "its process could not start; the log of the job says more",
    )
    monkeypatch.setattr(scheduler, "WORKER", ("/nowhere/python",))
    ended = wait_over(store, jobs.submit("train", {}, ANN))
    assert (ended.state, ended.error) == ("failed", "no process could be started for it; try again later")


def test_a_worker_sees_no_secrets_and_leaves_room_for_the_server(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    behave("tells")
    monkeypatch.setenv("HF_TOKEN", "hf_CANARY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    jobs = make()
    jobs.start()
    job = jobs.submit("train", {"token": TOKEN}, ANN)
    found = wait_over(store, job).result
    assert found is not None
    assert "CANARY" not in json.dumps(found) and TOKEN not in json.dumps(found)
    threads = int(found["environment"]["OMP_NUM_THREADS"])
    assert 1 <= threads <= max(1, (os.cpu_count() or 1) - 1)
    assert found["nice"] >= os.getpriority(os.PRIO_PROCESS, 0) + 10 or found["nice"] == 19
    assert found["session"] and found["arguments"][1:] == ["tells", str(store.job_folder(job.id))]
    assert found["temporary"] == str(store.job_folder(job.id) / "tmp")
    assert found["environment"]["PROMPTCLF_HOME"] == os.environ["PROMPTCLF_HOME"]
    assert len(found["open_files"]) < 12  # none of the server's


def test_a_worker_that_nobody_scheduled_refuses(store: Store) -> None:
    job = Jobs(store).submit("train", {}, ANN)
    command = [sys.executable, str(HERE / "job_worker.py"), "quick", str(store.job_folder(job.id))]
    for given in (subprocess.DEVNULL, (store.folder / "store.sqlite3").open("rb")):
        done = subprocess.run(command, stdin=given, capture_output=True, text=True, check=False)
        assert done.returncode != 0 and "expected worker.lock, locked, as standard input" in done.stderr
        if given is not subprocess.DEVNULL:
            given.close()  # type: ignore[union-attr]
    assert read(store, job) == job


# ---- cancelling -----------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    behave("quick")
    jobs = make()
    job, other = jobs.submit("train", {}, ANN), jobs.submit("train", {}, ANN)
    assert jobs.cancel(job.id, ANN).state == "cancelled"
    jobs.start()
    assert wait_over(store, other).state == "done"
    assert store.events(job.id) == [] and not store.job_folder(job.id).exists()


@pytest.mark.parametrize("behaviour", ["steps", "waiting"])
def test_a_running_job_is_cancelled_soon(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None], behaviour: str
) -> None:
    behave(behaviour)
    jobs = make()
    jobs.start()
    job = jobs.submit("train", {}, ANN)
    pid = wait_event(store, job, "step" if behaviour == "steps" else "child")["pid"]
    start = time.monotonic()
    assert jobs.cancel(job.id, ANN).cancelling
    assert list(jobs.watch(job.id, ANN))[-1] == {"event": "end", "state": "cancelled", "error": None}
    assert time.monotonic() - start < scheduler.GRACE / 2  # nothing had to be killed
    wait_for(lambda: is_gone(pid) and not store.job_folder(job.id).exists())
    with pytest.raises(DataError, match="is cancelled; start a new one"):
        jobs.resume(job.id, ANN)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_worker_that_does_not_hear_is_killed_with_its_children(
    store: Store,
    make: Callable[..., Jobs],
    behave: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    stopped: bool,
) -> None:
    monkeypatch.setattr(scheduler, "GRACE", 0.3)
    behave("deaf")
    jobs = make()
    jobs.start()
    job = jobs.submit("train", {}, ANN)
    child = wait_event(store, job, "child")["pid"]
    pid = read(store, job).pid
    assert pid is not None
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    jobs.cancel(job.id, ANN)
    assert wait_over(store, job).state == "cancelled"
    assert is_gone(child) and is_gone(pid)


def test_cancelling_and_starting_at_the_same_time(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    """Whenever the cancel comes, the job ends as cancelled or done, and the next one runs."""
    behave("quick")
    jobs = make()
    jobs.start()
    rng = random.Random(0)
    for _ in range(8):
        job = jobs.submit("train", {}, ANN)
        time.sleep(rng.uniform(0, 0.6))  # from before the start to after the end
        told = jobs.cancel(job.id, ANN)
        ended = wait_over(store, job)
        if told.state == "cancelled":
            assert ended == told and store.events(job.id) == []
        assert ended.state in ("cancelled", "done") and not ended.cancelling
    assert wait_over(store, jobs.submit("train", {}, ANN)).state == "done"


def test_a_job_has_a_time_limit(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    behave("deaf")
    jobs = make(minutes=0.01)
    jobs.start()
    job = jobs.submit("train", {}, ANN)
    child = wait_event(store, job, "child")["pid"]
    ended = wait_over(store, job)
    assert (ended.state, ended.error) == (
        "failed",
        "it was stopped after 0.01 minutes; use fewer rows or epochs",
    )
    wait_for(lambda: is_gone(child) and not is_at_work(store))


# ---- how a worker hears ----------------------------------------------------------------------------


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stop]:
    """Listening in this process."""
    monkeypatch.setattr(worker, "PATIENCE", 0.05)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    stop = Stop()
    stop.listen()
    yield stop
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_sigterm_waits_for_the_next_check(stop: Stop) -> None:
    stop.check()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped):
        stop.check()
    time.sleep(0.1)  # no alarm comes after it


def test_sigterm_does_not_wait_for_long(stop: Stop) -> None:
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped):
        time.sleep(60)


def test_sigterm_at_once(stop: Stop) -> None:
    with pytest.raises(Stopped), stop.at_once():
        signal.raise_signal(signal.SIGTERM)
    entered = False
    with pytest.raises(Stopped), stop.at_once():  # it came before
        entered = True
    assert not entered


def test_sigterm_after_the_end_does_nothing(stop: Stop) -> None:
    signal.raise_signal(signal.SIGTERM)
    stop.over()
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.1)


# ---- what dies ------------------------------------------------------------------------------------


def test_a_killed_worker_leaves_nothing_running(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    behave("orphan")
    jobs = make()
    jobs.start()
    job = jobs.submit("train", {}, ANN)
    ended = wait_over(store, job)
    assert (ended.state, ended.error) == ("interrupted", "its process ended before the job did")
    assert is_gone(wait_for(lambda: store.events(job.id))[0][1]["pid"])
    assert not (store.job_folder(job.id) / "tmp").exists()
    behave("quick")
    assert jobs.resume(job.id, ANN).state in ("queued", "running")
    assert wait_over(store, job).state == "done"
    assert [event["event"] for event in jobs.watch(job.id, ANN)] == ["child", "step", "step", "step", "end"]


def test_what_a_finished_worker_leaves_running_is_ended(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    behave("leaves_child")
    jobs = make()
    jobs.start()
    done = wait_over(store, jobs.submit("train", {}, ANN))
    assert done.state == "done" and done.result is not None
    wait_for(lambda: is_gone(done.result["pid"]))
    behave("quick")
    assert wait_over(store, jobs.submit("train", {}, ANN)).state == "done"


def test_a_worker_that_does_not_leave_is_made_to(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    behave("lingers")
    jobs = make()
    jobs.start()
    done = wait_over(store, jobs.submit("train", {}, ANN))
    assert done.state == "done" and done.result is not None
    monkeypatch.setattr(scheduler, "START_SECONDS", 0.1)
    wait_for(lambda: is_gone(done.result["pid"]))
    assert read(store, done) == done


def test_closing_interrupts_what_runs_and_keeps_what_waits(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    behave("steps")
    jobs = make()
    jobs.start()
    first, second = jobs.submit("train", {}, ANN), jobs.submit("train", {}, ANN)
    pid = wait_event(store, first, "step")["pid"]
    start = time.monotonic()
    jobs.close()
    assert time.monotonic() - start < scheduler.GRACE / 2
    assert is_gone(pid) and not is_at_work(store)
    assert (read(store, first).state, read(store, second).state) == ("interrupted", "queued")
    assert read(store, first).error is None  # it was stopped, and did not die
    behave("quick")
    again = make()
    again.start()
    again.resume(first.id, ANN)
    assert {wait_over(store, job).state for job in (first, second)} == {"done"}


def test_closing_kills_what_does_not_end(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    behave("deaf")
    jobs = make()
    jobs.start()
    job = jobs.submit("train", {}, ANN)
    child = wait_event(store, job, "child")["pid"]
    jobs.close(0.2)
    assert is_gone(child) and not is_at_work(store)
    assert read(store, job).state == "interrupted"


@pytest.mark.parametrize("moment", [0, 0.1, 0.4])
def test_closing_while_a_worker_starts(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None], moment: float
) -> None:
    behave("steps")
    jobs = make()
    jobs.start()
    job = jobs.submit("train", {}, ANN)
    wait_for(lambda: is_at_work(store))
    time.sleep(moment)
    jobs.close()
    assert not is_at_work(store)
    assert read(store, job).state in ("queued", "interrupted")


def test_closing_is_safe_without_a_start_and_twice(store: Store) -> None:
    jobs = Jobs(store)
    jobs.close()
    jobs.close()
    jobs.start()  # too late, and without effect
    jobs.close()
    assert not is_at_work(store)


# ---- several servers ------------------------------------------------------------------------------


class Server:
    """A server in a process of its own; see job_server.py."""

    def __init__(self, store: Store, behaviour: str) -> None:
        command = [sys.executable, str(HERE / "job_server.py"), str(store.folder), behaviour]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        with self.process:
            return self.process.wait(60)


def test_a_worker_survives_its_server_and_the_next_one_takes_it_over(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    server = Server(store, "steps")
    job = Jobs(store).submit("train", {}, ANN)
    first = wait_event(store, job, "step")["pid"]
    server.end(signal.SIGKILL)
    step = store.events(job.id)[-1][1]["step"]
    behave("quick")
    jobs = make()
    jobs.start()
    waiting = jobs.submit("train", {}, BOB)
    wait_event(store, job, "step", step=step + 20)
    assert {event["pid"] for _, event in store.events(job.id)} == {first}  # no second one
    assert read(store, job).state == "running" and read(store, waiting).state == "queued"
    jobs.cancel(job.id, ANN)
    assert wait_over(store, job).state == "cancelled"
    assert wait_for(lambda: is_gone(first))
    assert wait_over(store, waiting).state == "done"


def test_kills_of_server_and_worker_leave_no_job_stuck(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    owner = Jobs(store)
    for kill in range(3):
        server = Server(store, "steps")
        job = owner.submit("train", {"seed": kill}, ANN)
        pid = wait_event(store, job, "step")["pid"]
        server.end(signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
    assert [job.state for job in store.jobs(ANN)] == ["running", "interrupted", "interrupted"]
    jobs = make()
    jobs.start()
    wait_for(lambda: {job.state for job in store.jobs(ANN)} == {"interrupted"})


def test_the_last_server_stops_the_worker(store: Store) -> None:
    one, two = Server(store, "steps"), Server(store, "steps")
    job = Jobs(store).submit("train", {}, ANN)
    pid = wait_event(store, job, "step")["pid"]
    assert one.end(signal.SIGTERM) == 0
    step = store.events(job.id)[-1][1]["step"]
    wait_event(store, job, "step", step=step + 5)
    assert two.end(signal.SIGTERM) == 0
    assert is_gone(pid) and not is_at_work(store)
    assert read(store, job).state == "interrupted"


# ---- watching -------------------------------------------------------------------------------------


def test_many_may_watch_and_nobody_has_to(
    store: Store, make: Callable[..., Jobs], behave: Callable[[str], None]
) -> None:
    behave("quick")
    jobs = make()
    job = jobs.submit("train", {}, ANN)
    seen: list[list[Any]] = []

    def watch() -> None:
        seen.append([event for event in jobs.watch(job.id, ANN, poll=0.01) if event["event"] != "queued"])

    threads = [threading.Thread(target=watch) for _ in range(4)]
    for thread in threads:
        thread.start()
    leaver = jobs.watch(job.id, ANN)
    next(leaver)
    jobs.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 4 and all(events == seen[0] for events in seen) and len(seen[0]) == 4


def test_watching_ends_when_the_job_is_forgotten(store: Store) -> None:
    jobs = Jobs(store)
    job = jobs.submit("train", {}, ANN)
    watching = jobs.watch(job.id, ANN, poll=0.01)
    next(watching)
    jobs.cancel(job.id, ANN)
    store.forget(ANN)
    assert next(watching) == {"event": "end", "state": "cancelled", "error": None}


# ---- the real work --------------------------------------------------------------------------------


def desk() -> Dataset:
    """120 train rows: 30 steps of 4 rows an epoch, and five epochs before training may end."""
    parts = [
        tuple(Example(*row) for row in zip(*rows(count, start), strict=True))
        for count, start in [(120, 0), (12, 200), (6, 300)]
    ]
    return Dataset(TASK, *parts, name="desk")


def losses(store: Store, job: Job) -> list[tuple[int, float]]:
    """(step, loss) in the order in which they were told."""
    return [(event["step"], event["loss"]) for _, event in store.events(job.id) if event["event"] == "step"]


@pytest.mark.slow
def test_a_training_that_is_killed_and_stopped_ends_as_if_it_had_not_been(
    store: Store, make: Callable[..., Jobs], tiny_llama: Path, tiny_models: dict[str, Any]
) -> None:
    data = store.add_dataset(ANN, desk())
    request = {"task": data.id, "rank": 4, "batch_size": 4, "epochs": 5}
    jobs = make(model=str(tiny_llama))
    jobs.start()
    whole = wait_over(store, jobs.submit("train", request, ANN))
    assert whole.state == "done" and whole.result is not None, whole
    assert set(whole.result["validation"]) == {"epoch", "macro_f1", "accuracy", "log_loss"}
    assert whole.result["training"]["rows"] == 120 and whole.result["model"]["name"] == tiny_llama.name
    told = [event["event"] for _, event in store.events(whole.id)]
    assert told[0] == "begin" and {"step", "epoch"} < set(told)
    expected = losses(store, whole)
    assert [step for step, _ in expected] == list(range(1, whole.result["training"]["steps"] + 1))

    job = jobs.submit("train", request, ANN)
    wait_event(store, job, "step", step=SAVE_STEPS + 3)
    pid = read(store, job).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert wait_over(store, job).state == "interrupted"
    killed = losses(store, job)
    jobs.resume(job.id, ANN)
    wait_event(store, job, "step", step=killed[-1][0] + 2 * SAVE_STEPS)
    jobs.close()
    assert read(store, job).state == "interrupted"
    stopped = losses(store, job)
    again = make(model=str(tiny_llama))
    again.start()
    again.resume(job.id, ANN)
    done = wait_over(store, job)
    assert done.state == "done", done

    # Every step that was told, at whichever attempt, had the loss of the undisturbed training ...
    found = losses(store, job)
    assert set(found) == set(expected)
    assert found[len(killed)][0] > killed[-1][0] - SAVE_STEPS  # ... and little was done again
    assert found[len(stopped)][0] == stopped[-1][0] + 1  # or nothing
    folders = [again.folder(one.id, ANN) for one in (whole, job)]
    weights = [(folder / "adapter" / "adapter_model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
    for folder in folders:
        wait_for(lambda folder=folder: {path.name for path in folder.iterdir()} == {"adapter", "log.txt"})
    classifier = load_classifier(folders[1] / "adapter", model=tiny_models["llama"])
    assert set(classifier.predict(["Where is my parcel?"])) <= set(TASK.labels)


@pytest.mark.slow
def test_a_comparison_that_is_killed_goes_on_after_its_finished_runs(
    store: Store, make: Callable[..., Jobs], tiny_llama: Path, dataset: Dataset
) -> None:
    data = store.add_dataset(ANN, dataset)
    jobs = make(model=str(tiny_llama))
    jobs.start()
    request = {"task": data.id, "modes": ["zero-shot", "few-shot"], "test_rows": 9}
    job = jobs.submit("evaluate", request, ANN)
    wait_event(store, job, "done")  # the baseline's
    wait_for(lambda: [event["event"] for _, event in store.events(job.id)].count("start") == 2)
    pid = read(store, job).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)  # in the middle of the next run, whose process lives on
    assert wait_over(store, job).state == "interrupted"
    # The scheduler takes the dead worker's lock over while it clears away, and lets it go.
    wait_for(lambda: not is_at_work(store), seconds=5)
    jobs.resume(job.id, ANN)
    events = list(jobs.watch(job.id, ANN))
    assert events[-1] == {"event": "end", "state": "done", "error": None}
    assert [event["name"] for event in events if event["event"] == "kept"] == ["TF-IDF + SVM"]
    done = read(store, job)
    assert done.result is not None
    folder = jobs.folder(job.id, ANN)
    report = Report.from_dict(json.loads((folder / done.result["report"]).read_text()))
    assert report.rows == 9 and [r.name for r in report.results] == ["zero-shot", "few-shot", "TF-IDF + SVM"]
    names = {"log.txt", *done.result.values()}
    wait_for(lambda: {path.name for path in folder.iterdir()} == names)


@pytest.mark.slow
def test_a_comparison_is_cancelled_with_its_processes(
    store: Store, make: Callable[..., Jobs], tiny_llama: Path
) -> None:
    jobs = make(model=str(tiny_llama))
    jobs.start()
    job = jobs.submit("evaluate", {"modes": ["lora"], "test_rows": 10}, ANN)
    wait_event(store, job, "start")
    jobs.cancel(job.id, ANN)
    assert wait_over(store, job).state == "cancelled"
    wait_for(lambda: not is_at_work(store) and not store.job_folder(job.id).exists(), seconds=5)


def test_data_that_is_deleted_before_the_training_begins(
    store: Store, make: Callable[..., Jobs], dataset: Dataset
) -> None:
    data = store.add_dataset(ANN, dataset)
    jobs = make()
    job = jobs.submit("train", {"task": data.id}, ANN)
    store.delete_dataset(data.id, ANN)
    jobs.start()
    ended = wait_over(store, job)
    assert (ended.state, ended.error) == (
        "failed",
        f"task: no data set {data.id!r} of yours; upload it again",
    )
