"""`promptclf.Client` against a live server: its results, its errors, and its handles of jobs."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live import Live, free_port, until
from promptclf import Client, DataError, PromptClfError
from promptclf.client import JobHandle
from promptclf.jobs.store import owner_of

ROOT = Path(__file__).parent.parent
TEXT = "Where is my parcel?"

pytestmark = pytest.mark.integration


@pytest.fixture
def server(live_server: Live) -> Iterator[Live]:
    yield live_server
    for job in live_server.store.unfinished():
        live_server.store.end_job(job.id, "failed", error="the test is over")


@pytest.fixture
def client(server: Live) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


# ---- texts ---------------------------------------------------------------------------------------


def test_classify_and_compare(client: Client) -> None:
    answer = client.classify(TEXT, mode="few-shot")
    assert (answer["label"], answer["mode"], answer["schema_version"]) == ("delivery status", "few-shot", 1)
    labels = ("refund", "delivery status")
    assert client.classify(TEXT, mode="zero-shot", labels=labels)["label"] == "delivery status"
    found = client.compare(TEXT, labels=labels)
    assert set(found["predictions"]) == {"zero-shot"}
    assert set(found["unavailable"]) == {"few-shot", "lora"}


def test_classify_file(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "mails.csv"
    source.write_text("id,words\n1,my parcel\n2,=1+1\n", encoding="utf-8")
    written = client.classify_file(source, mode="few-shot", column="words")
    assert written == tmp_path / "mails-labelled.csv"
    rows = list(csv.DictReader(written.read_text(encoding="utf-8").splitlines()))
    assert [row["id"] for row in rows] == ["1", "2"]
    assert (rows[0]["label"], rows[1]["words"]) == ("delivery status", "'=1+1")

    out = client.classify_file(str(source), tmp_path / "out.jsonl", mode="few-shot", column="words")
    first, second = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    assert (first["label"], second["words"]) == ("delivery status", "=1+1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("mails-labelled.csv", "mails.csv", "out.jsonl")
    ]


def test_a_file_that_fails_leaves_the_old_one(client: Client, tmp_path: Path) -> None:
    source, out = tmp_path / "mails.csv", tmp_path / "out.csv"
    source.write_text("a,b\n1,2\n", encoding="utf-8")
    out.write_text("kept", encoding="utf-8")
    with pytest.raises(PromptClfError, match=r"^file: mails.csv: expected a text column such as .* column$"):
        client.classify_file(source, out)
    assert out.read_text(encoding="utf-8") == "kept"
    with pytest.raises(DataError, match="path: expected a file, got"):
        client.classify_file(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"^out: expected a file ending in \.csv or \.jsonl, got"):
        client.classify_file(source, tmp_path / "out.xlsx")


def test_tasks(client: Client) -> None:
    (support,) = client.tasks()["tasks"]
    assert (support["task"], len(support["labels"]), support["own"]) == ("support", 10, False)


def test_feedback(server: Live, client: Client) -> None:
    saved = client.feedback(
        TEXT, predicted="refund", label="delivery status", mode="few-shot", key=uuid.uuid4().hex
    )
    assert saved["saved"]
    assert client.token == saved["token"]
    (row,) = server.store.feedback(owner_of(str(client.token)))
    assert (row["text"], row["label"]) == (TEXT, "delivery status")


# ---- long work -----------------------------------------------------------------------------------


def test_evaluate(server: Live, client: Client) -> None:
    events: list[Any] = []

    def run() -> None:
        events.extend(client.evaluate(modes=["zero-shot"], test_rows=10))

    running = threading.Thread(target=run)
    running.start()
    job = server.only_job()
    server.store.start_job(job.id, 1)
    server.store.add_event(job.id, {"event": "score", "rows": 10})
    server.finish(job, {"report": "report.json"}, report={"schema": 1, "rows": 10})
    running.join(timeout=30)
    told = [event["event"] for event in events if event["event"] != "waiting"]
    assert told == ["queued", "score", "report"]
    assert events[-1]["report"] == {"schema": 1, "rows": 10}
    assert owner_of(str(client.token)) == job.owner


def test_leaving_the_loop_cancels_the_evaluation(server: Live, client: Client) -> None:
    for event in client.evaluate():
        assert event["event"] == "queued"
        break
    until(lambda: server.store.job(event["job"]).state == "cancelled")  # type: ignore[union-attr]


def test_an_evaluation_that_fails(server: Live, client: Client) -> None:
    events = client.evaluate()
    first = next(events)
    server.store.end_job(first["job"], "failed", error="zero-shot: memory ran out")
    with pytest.raises(PromptClfError, match=f"^job: {first['job']} is failed; zero-shot: memory ran out$"):
        list(events)


def test_train(server: Live, client: Client) -> None:
    handle = client.train(rows=50, epochs=1)
    assert handle.state()["state"] == "queued"
    assert server.only_job().request["rows"] == 50
    server.store.start_job(handle.job, 1)
    for step in (1, 2):
        server.store.add_event(handle.job, {"event": "step", "step": step})
    steps = handle.events(poll=0.05)
    assert [next(steps)["step"], next(steps)["step"]] == [1, 2]
    server.store.add_event(handle.job, {"event": "epoch"})
    server.store.end_job(handle.job, "done", {"adapter": "adapter"})
    assert [event["event"] for event in steps] == ["epoch"]
    assert handle.result(poll=0.05) == {"adapter": "adapter"}
    # Another day, another client: the token is the key.
    with Client(server.address, handle.token) as later:
        assert later.job(handle.job).state()["state"] == "done"


def test_cancel(server: Live, client: Client) -> None:
    handle = client.train()
    assert handle.cancel()["state"] == "cancelled"
    with pytest.raises(PromptClfError, match=f"^job: {handle.job} is cancelled; no result$"):
        handle.result(poll=0.05)


def test_nobody_else_has_a_handle(server: Live, client: Client) -> None:
    handle = client.train()
    with Client(server.address, "t" * 32) as stranger:
        for refused in (stranger.job(handle.job).state, stranger.job(handle.job).cancel):
            with pytest.raises(PromptClfError, match=f"^job: no job '{handle.job}' of yours"):
                refused()
    with (
        Client(server.address) as nobody,
        pytest.raises(PromptClfError, match=r"^token: expected the owner token that came with the job"),
    ):
        JobHandle(nobody, handle.job).state()


# ---- errors --------------------------------------------------------------------------------------


def test_a_place_for_a_file_is_there_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "mails.csv").write_text("text\nmy parcel\n")
    nobody = Client.__new__(Client)  # would have to ask an app
    with pytest.raises(DataError, match="out: expected a file in an existing folder, got"):
        nobody.classify_file(tmp_path / "mails.csv", tmp_path / "nowhere" / "out.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "magic"}, "mode: expected one of zero-shot, few-shot, lora, got 'magic'"),
        ({"labels": "a,b"}, "labels: expected a list of 2 to 100 labels, each of 1 to 100 characters, got"),
        ({"task": "nope"}, "task: expected one of support or a data set of yours, got 'nope'"),
        ({"text": ""}, "text: expected text of 1 to 20,000 characters, got none"),
        ({"text": "fail now", "mode": "few-shot"}, "http://127.0.0.1:"),
        ({"text": "x" * 2**20}, "http://127.0.0.1:"),
    ],
)
def test_errors_are_the_packages_own(client: Client, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptClfError) as caught:
        client.classify(**{"text": TEXT, **arguments})
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)
    if message.startswith("http"):
        assert "the app failed; its log says more" in str(caught.value) or "got 413 " in str(caught.value)


def test_a_full_queue(server: Live, client: Client) -> None:
    asked = {"text": "wait now", "labels": ["a", "b"], "mode": "zero-shot"}
    with server.waiting():
        calls = [server.post("classify", **asked) for _ in range(13)]
        assert {call.status_code for call in calls[:12]} == {200}
        with pytest.raises(PromptClfError, match=r"the queue is full; try again in a while$"):
            client.classify(**asked)


def test_nobody_answers() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(PromptClfError, match=rf"^{address}: no answer \(.*\); is the app running\?$"):
        Client(address)


def test_another_schema_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptclf.client.SCHEMA_VERSION", 2)
    with pytest.raises(PromptClfError, match="expected schema version 2, got 1; update promptclf"):
        client.tasks()


# ---- manners -------------------------------------------------------------------------------------


def test_the_hubs_token_stays_at_home(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_CANARY")
    with Client(server.address) as client:
        assert "hf_CANARY" not in str(client._client.headers)
    with Client(server.address, hf_token="hf_GIVEN") as client:
        assert "hf_GIVEN" in str(client._client.headers)


def test_the_client_is_imported_when_it_is_first_used() -> None:
    code = (
        "import sys, promptclf; promptclf.Client;"
        "print([name for name in ('gradio_client', 'gradio', 'torch', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
