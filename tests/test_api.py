"""The endpoints over HTTP: what they promise, what they refuse, how they stream, and whom they answer."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes import FakeModel
from live import Live, live, sse, until
from promptclf.data.dataset import Dataset
from promptclf.jobs.jobs import Jobs
from promptclf.jobs.store import Store, new_token, owner_of
from promptclf.schema import MAX_CHARS, MAX_FILE_ROWS

HERE = Path(__file__).parent
CONTRACT = HERE / "api_contract.json"
FILE = {"_type": "gradio.FileData"}
ENDPOINTS = (
    "classify",
    "classify_file",
    "compare",
    "evaluate",
    "train",
    "job",
    "cancel",
    "tasks",
    "feedback",
)
TEXT = "Where is my parcel?"

pytestmark = pytest.mark.integration


@pytest.fixture
def server(live_server: Live) -> Iterator[Live]:
    yield live_server
    for job in live_server.store.unfinished():
        live_server.store.end_job(job.id, "failed", error="the test is over")


# ---- the contract --------------------------------------------------------------------------------


def contract(server: Live) -> dict[str, Any]:
    """What /gradio_api/info says of each endpoint, without the snippets that name the address."""
    endpoints = httpx.get(f"{server.address}/gradio_api/info").json()["named_endpoints"]
    for endpoint in endpoints.values():
        endpoint.pop("code_snippets")
    return dict(endpoints)


def test_the_contract_is_kept(server: Live) -> None:
    """A change here is a change for everybody's programs: raise SCHEMA_VERSION, or do not make it.

    Something new that old programs need not know may be added: python tests/test_api.py writes the file.
    """
    found = contract(server)
    assert found == json.loads(CONTRACT.read_text(encoding="utf-8"))
    assert set(found) == {f"/{name}" for name in ENDPOINTS}


def test_the_whole_app_keeps_it_too(tmp_path: Path) -> None:
    """Events of the page have names as well, and must not take those of the endpoints."""
    from promptclf.ui.app import build_app
    from promptclf.ui.core.service import Service

    async def build() -> Any:  # without a running loop, gradio makes some and leaves them open
        return build_app(Service(FakeModel()), Jobs(Store(tmp_path)))

    app = asyncio.run(build())
    assert app.get_api_info()["named_endpoints"] == json.loads(CONTRACT.read_text(encoding="utf-8"))


def test_every_argument_is_described(server: Live) -> None:
    for name, endpoint in contract(server).items():
        assert 10 < len(endpoint["description"]) < 130, name
        for argument in endpoint["parameters"]:
            assert len(argument["python_type"]["description"]) > 5, (name, argument)
            assert argument["type"], (name, argument)
        (result,) = endpoint["returns"]
        assert "schema_version" in result["type"]["properties"], name


# ---- one text ------------------------------------------------------------------------------------


def test_classify(server: Live) -> None:
    ((event, (answer,)),) = server.events("classify", text=TEXT, mode="few-shot")
    assert event == "complete"
    assert (answer["schema_version"], answer["label"], answer["mode"]) == (1, "delivery status", "few-shot")
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert next(iter(answer["probabilities"])) == "delivery status"
    assert answer["model"]["name"] == "fake"
    own = server.events("classify", text=TEXT, mode="zero-shot", labels=["refund", "delivery status"])
    assert own[0][1][0]["label"] == "delivery status"


def test_compare(server: Live) -> None:
    ((_, (found,)),) = server.events("compare", text=TEXT, labels=["refund", "delivery status"])
    assert set(found) == {"schema_version", "predictions", "unavailable", "agreement"}
    assert set(found["predictions"]) == {"zero-shot"}
    assert "schema_version" not in found["predictions"]["zero-shot"]


@pytest.mark.parametrize(
    ("endpoint", "arguments", "message"),
    [
        ("classify", {"text": ""}, "text: expected text of 1 to 20,000 characters, got none"),
        (
            "classify",
            {"text": "x" * (MAX_CHARS + 1)},
            "text: expected text of 1 to 20,000 characters, got 20,",
        ),
        ("classify", {"text": {"a": 1}}, "text: expected text of 1 to 20,000 characters, got {'a': 1}"),
        ("classify", {"text": "a", "mode": "magic"}, "mode: expected one of zero-shot, few-shot, lora, got"),
        ("classify", {"text": "a", "labels": "a,b"}, "labels: expected a list of 2 to 100 labels, each of"),
        ("classify", {"text": "a", "task": "/etc/passwd"}, "task: expected the name of a packaged task or"),
        ("classify", {"text": "a", "task": "0123456789abcdef"}, "task: expected one of support or a data"),
        ("classify", {"text": "a", "adapter": "x"}, "adapter: expected the id of a finished training of"),
        ("classify", {"text": "a", "token": "x"}, "token: expected the owner token that came with your"),
        ("compare", {"text": 3}, "text: expected text of 1 to 20,000 characters, got 3"),
        ("evaluate", {"modes": ["magic"]}, "modes: expected a list of one or more of zero-shot, few-shot"),
        ("evaluate", {"test_rows": -1}, "test_rows: expected a whole number from 2 to 100,000, got -1"),
        ("evaluate", {"token": "x"}, "token: expected the owner token"),
        ("train", {"epochs": 99}, "epochs: expected a whole number from 1 to 5, got 99"),
        ("train", {"learning_rate": "high"}, "learning_rate: expected a number above 0 and up to 0.1, got"),
        ("train", {"task": "nope"}, "task: expected one of support, or the id of a data set of yours, got"),
        (
            "job",
            {"job": "x", "token": "t" * 32},
            "job: expected the id of a job, as it was given to you, got",
        ),
        (
            "cancel",
            {"job": "0" * 16, "token": None},
            "token: expected the owner token that came with the job",
        ),
        ("tasks", {"token": "' OR 1=1 --"}, "token: expected the owner token that came with your first"),
        (
            "feedback",
            {"text": "a", "predicted": "x", "label": "refund", "key": "1"},
            "key: expected a random",
        ),
    ],
)
def test_a_wrong_argument_is_named(
    server: Live, endpoint: str, arguments: dict[str, Any], message: str
) -> None:
    assert server.error(endpoint, **arguments).startswith(message)
    assert not server.store.unfinished()


def test_a_missing_or_unknown_argument_is_named(server: Live) -> None:
    missing = server.post("classify", mode="lora")
    assert (missing.status_code, missing.json()) == (400, {"error": "text: expected a value, got none"})
    unknown = server.post("classify", text=TEXT, colour="red")
    assert unknown.status_code == 400
    assert unknown.json()["error"].startswith("colour: expected an argument of this endpoint, got another")
    started = httpx.post(f"{server.address}/gradio_api/call/classify", json={"data": [TEXT]}).json()
    answer = httpx.get(f"{server.address}/gradio_api/call/classify/{started['event_id']}").text
    assert "data: expected 6 values (text, mode, task, labels, adapter, token), got 1" in answer


@pytest.mark.parametrize("path", ["classify/abcdef", "v2/classify/abcdef", "nothing/abcdef"])
def test_a_result_that_was_never_asked_for_is_unknown(server: Live, path: str) -> None:
    answer = httpx.get(f"{server.address}/gradio_api/call/{path}")
    assert (answer.status_code, answer.json()["error"].split(",")[0]) == (
        404,
        "event: expected the id that a call was answered with",
    )
    started = server.post("classify", text=TEXT, mode="few-shot").json()
    once = f"{server.address}/gradio_api/call/classify/{started['event_id']}"
    assert "event: complete" in httpx.get(once, timeout=60).text
    assert httpx.get(once).status_code == 404  # a result is given once
    nowhere = httpx.post(f"{server.address}/gradio_api/call/v2/nothing", json={"text": TEXT})
    assert nowhere.status_code == 404 and "/gradio_api/info" in nowhere.json()["error"]


def test_what_went_wrong_inside_stays_inside(server: Live) -> None:
    assert server.error("classify", text="fail now", mode="few-shot") is None


def test_the_queue_cannot_be_gone_round(server: Live) -> None:
    for endpoint in ("classify", "train"):
        answer = httpx.post(f"{server.address}/gradio_api/run/{endpoint}", json={"data": [TEXT]})
        assert answer.status_code == 404


def test_a_large_body_is_refused(server: Live) -> None:
    assert server.post("classify", text="x" * 2**20).status_code == 413


@pytest.mark.parametrize("field", ["text", "task", "labels"])
def test_no_address_is_fetched(server: Live, field: str) -> None:
    address = {"path": "http://example.com/x", "url": "http://example.com/x", "meta": FILE}
    values = {"text": TEXT, field: [address] if field == "labels" else address}
    assert server.error("classify", **values) == "file: expected an uploaded one, got an address"


# ---- files ---------------------------------------------------------------------------------------


def upload(server: Live, name: str, content: bytes) -> dict[str, Any]:
    (path,) = httpx.post(f"{server.address}/gradio_api/upload", files={"files": (name, content)}).json()
    return {"path": path, "orig_name": name, "meta": FILE}


def test_classify_file(server: Live) -> None:
    rows = [["id", "text", "label"], *([str(n), f"my parcel {n}", "=1+1"] for n in range(20))]
    content = "\n".join(",".join(row) for row in rows).encode()
    events = server.events("classify_file", file=upload(server, "mails.csv", content), mode="few-shot")

    assert [event for event, _ in events[:-1]] == ["generating"] * (len(events) - 1)
    *steps, last = [data[0] for _, data in events]
    assert [step["done"] for step in steps] == sorted(step["done"] for step in steps)
    assert steps[0]["done"] == 0
    assert steps[0]["file"] is None
    assert (last["rows"], last["done"], last["labels"]) == (20, 20, {"delivery status": 20})
    labelled = httpx.get(last["file"]["url"])
    assert labelled.status_code == 200
    header, *found = csv.reader(labelled.text.splitlines())
    assert header[:5] == ["id", "text", "label (input)", "label", "probability"]
    assert header[-1] == "truncated"
    assert found[0][:4] == ["0", "my parcel 0", "'=1+1", "delivery status"]
    assert len(found) == 20


def test_classify_lines_to_jsonl(server: Live) -> None:
    file = upload(server, "mails.txt", "my parcel\n\n我的包裹\n".encode())
    *_, (_, (last,)) = server.events("classify_file", file=file, mode="few-shot", output="jsonl")
    lines = [json.loads(line) for line in httpx.get(last["file"]["url"]).text.splitlines()]
    assert [line["text"] for line in lines] == ["my parcel", "我的包裹"]
    assert lines[0]["label"] == "delivery status"
    assert sum(lines[0]["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", b"text,label\none\n", {}, "file: a.csv, row 1 (line 2): expected 2 fields"),
        ("a.csv", b"a,b\n1,2\n", {}, "file: a.csv: expected a text column such as"),
        ("a.csv", b"text\na\n", {"column": "words"}, "file: a.csv: expected a column 'words' for the text"),
        ("a.csv", b"PK\x03\x04zip", {}, "file: a.csv: expected CSV or JSONL text, got zip or xlsx content"),
        ("a.txt", b"\xff\xfe\n", {}, "file: the file, line 1: expected UTF-8 text"),
        ("a.txt", b"a\n" * (MAX_FILE_ROWS + 1), {}, "file: expected at most 10,000 texts, got 10,001"),
        ("a.txt", b"a\n" + b"b" * (MAX_CHARS + 1), {}, "file: row 2: expected at most 20,000 characters"),
        ("a.csv", b"text\na\n", {"output": "xlsx"}, "output: expected csv or jsonl, got 'xlsx'"),
        ("a.csv", b"text\na\n", {"mode": "lora", "labels": ["a", "b"]}, "mode: LoRA needs labelled examples"),
    ],
)
def test_a_file_that_will_not_do(
    server: Live, name: str, content: bytes, options: dict[str, Any], message: str
) -> None:
    told = server.error("classify_file", file=upload(server, name, content), **options)
    assert told.startswith(message)
    assert "/tmp" not in told


def test_only_uploaded_files_are_read(server: Live, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    link = Path(upload(server, "a.txt", b"x")["path"]).with_name("link.txt")
    link.symlink_to(secret)
    told = "file: expected one that was uploaded before, got another; upload it first"
    for file in (str(secret), {"path": str(secret)}, {"path": str(link)}, {"path": "a\x00b"}, None, 7, {}):
        assert server.error("classify_file", file=file, mode="few-shot") == told
    for path in (str(secret), str(HERE / "test_api.py")):  # gradio's own refusal
        assert server.error("classify_file", file={"path": path, "meta": FILE}, mode="few-shot") is None


# ---- long work -----------------------------------------------------------------------------------


def test_evaluate_streams_and_ends_with_the_report(server: Live) -> None:
    started = server.post("evaluate", modes=["zero-shot"], test_rows=10, seed=3).json()
    job = server.only_job()
    assert job.kind == "evaluate"
    wanted = {"task": "support", "modes": ["zero-shot"], "rows": None, "test_rows": 10, "seed": 3}
    assert {key: job.request[key] for key in wanted} == wanted
    assert "token" not in job.request
    address = f"{server.address}/gradio_api/call/evaluate/{started['event_id']}"
    with httpx.stream("GET", address, timeout=30) as stream:
        events = sse(stream.iter_lines())
        (first,) = next(events)[1]
        assert (first["event"], first["job"], first["report"]) == ("queued", job.id, None)
        assert owner_of(first["token"]) == job.owner
        assert server.store.start_job(job.id, 1)
        server.store.add_event(job.id, {"event": "fit", "name": "zero-shot", "rows": 5})
        (fit,) = next(data for _, data in events if data[0]["event"] != "waiting")
        assert (fit["event"], fit["progress"]["rows"]) == ("fit", 5)
        server.finish(job, {"report": "report.json"}, report={"schema": 1, "rows": 10})
        *_, (event, (last,)) = events
    assert event == "complete"
    assert (last["event"], last["report"]) == ("report", {"schema": 1, "rows": 10})


def test_an_evaluation_that_fails_says_why(server: Live) -> None:
    started = server.post("evaluate").json()
    job = server.only_job()
    server.store.start_job(job.id, 1)
    server.store.end_job(job.id, "failed", error="zero-shot: memory ran out")
    answer = httpx.get(f"{server.address}/gradio_api/call/evaluate/{started['event_id']}", timeout=30).text
    assert f"job: {job.id} is failed; zero-shot: memory ran out" in answer


def test_leaving_an_evaluation_cancels_it(server: Live) -> None:
    started = server.post("evaluate").json()
    job = server.only_job()
    address = f"{server.address}/gradio_api/call/evaluate/{started['event_id']}"
    with httpx.stream("GET", address, timeout=30) as stream:
        next(sse(stream.iter_lines()))
        assert server.store.job(job.id).state == "queued"  # type: ignore[union-attr]
    until(lambda: server.store.job(job.id).state == "cancelled")  # type: ignore[union-attr]


def test_train_gives_a_job_and_a_token(server: Live) -> None:
    ((_, (begun,)),) = server.events("train", rows=50, epochs=1, rank=4)
    assert set(begun) == {"schema_version", "job", "token", "state"}
    job = server.only_job()
    assert (job.id, job.kind, job.owner) == (begun["job"], "train", owner_of(begun["token"]))
    assert (job.request["rows"], job.request["epochs"], job.request["rank"]) == (50, 1, 4)
    again = server.events("train", token=begun["token"])[0][1][0]
    assert (again["token"], again["job"] == begun["job"]) == (begun["token"], False)


def test_job_tells_what_is_new(server: Live) -> None:
    begun = server.events("train")[0][1][0]
    mine = {"job": begun["job"], "token": begun["token"]}
    first = server.events("job", **mine)[0][1][0]
    assert (first["state"], first["events"], first["next"], first["result"]) == ("queued", [], 0, None)
    server.store.start_job(begun["job"], 1)
    for step in (1, 2):
        server.store.add_event(begun["job"], {"event": "step", "step": step, "loss": 0.5})
    seen = server.events("job", **mine)[0][1][0]
    assert [event["step"] for event in seen["events"]] == [1, 2]
    assert seen["state"] == "running"
    server.store.add_event(begun["job"], {"event": "step", "step": 3, "loss": 0.4})
    server.store.end_job(begun["job"], "done", {"adapter": "adapter"})
    new = server.events("job", **mine, after=seen["next"])[0][1][0]
    assert [event["step"] for event in new["events"]] == [3]
    assert (new["state"], new["result"]) == ("done", {"adapter": "adapter"})
    assert server.events("job", **mine, after=new["next"])[0][1][0]["events"] == []


def test_cancel(server: Live) -> None:
    begun = server.events("train")[0][1][0]
    mine = {"job": begun["job"], "token": begun["token"]}
    assert server.events("cancel", **mine)[0][1][0]["state"] == "cancelled"
    running = server.events("train")[0][1][0]
    server.store.start_job(running["job"], 1)
    asked = server.events("cancel", job=running["job"], token=running["token"])[0][1][0]
    assert (asked["state"], asked["cancelling"]) == ("running", True)


def test_the_queue_of_jobs_has_an_end(server: Live) -> None:
    for _ in range(5):
        server.events("train")
    assert server.error("train").startswith("the queue is full: 5 jobs are queued or running")
    assert len(server.store.unfinished()) == 5


# ---- whose it is ---------------------------------------------------------------------------------


def test_nobody_else_finds_a_job(server: Live) -> None:
    begun = server.events("train")[0][1][0]
    stranger = new_token()
    for endpoint in ("job", "cancel"):
        theirs = server.error(endpoint, job=begun["job"], token=stranger)
        nobodys = server.error(endpoint, job="0" * 16, token=stranger)
        assert theirs == nobodys.replace("0" * 16, begun["job"])
        assert theirs.startswith("job: no job")
    assert server.only_job().state == "queued"


def test_nobody_else_finds_a_data_set(server: Live, dataset: Dataset) -> None:
    token = new_token()
    stored = server.store.add_dataset(owner_of(token), dataset)
    mine = {"task": stored.id, "token": token}

    own = server.events("tasks", token=token)[0][1][0]["tasks"]
    assert [(task["task"], task["own"]) for task in own] == [("support", False), (stored.id, True)]
    assert (own[1]["name"], own[1]["labels"]) == ("desk", ["billing", "delivery", "account"])
    assert (own[1]["rows"]["train"], own[1]["modes"]) == (36, ["zero-shot", "few-shot"])
    answer = server.events("classify", text="my parcel", mode="few-shot", **mine)[0][1][0]
    assert set(answer["probabilities"]) == set(dataset.task.labels)

    for other in ({"task": stored.id}, {"task": stored.id, "token": new_token()}):
        assert server.error("classify", text="my parcel", mode="few-shot", **other).startswith("task: ")
        assert server.error("compare", text="my parcel", **other).startswith("task: ")
        assert server.error("train", **other).startswith("task: ")
        assert server.error("evaluate", **other).startswith("task: ")
    for token in (None, new_token()):
        names = [task["task"] for task in server.events("tasks", token=token)[0][1][0]["tasks"]]
        assert names == ["support"]


def test_nobody_else_uses_an_adapter(server: Live) -> None:
    begun = server.events("train")[0][1][0]
    server.store.end_job(begun["job"], "done", {"adapter": "adapter"})
    (server.store.job_folder(begun["job"]) / "adapter").mkdir(parents=True)
    for token in (None, new_token()):
        told = server.error("classify", text=TEXT, adapter=begun["job"], token=token)
        assert told.startswith("adapter: expected the id of a finished training of yours on this task, got")
    # Its owner gets as far as the adapter itself, which is empty here.
    told = server.error("classify", text=TEXT, adapter=begun["job"], token=begun["token"])
    assert told.startswith(f"jobs/{begun['job']}/adapter")


def test_feedback_is_stored_once_and_for_its_owner(server: Live) -> None:
    key = uuid.uuid4().hex
    said = {"text": TEXT, "predicted": "refund", "label": "delivery status", "mode": "few-shot", "key": key}
    saved = server.events("feedback", **said)[0][1][0]
    assert (saved["saved"], saved["key"]) == (True, key)
    server.events("feedback", **said, token=saved["token"])
    (row,) = server.store.feedback(owner_of(saved["token"]))
    assert {field: row[field] for field in said} == said
    assert row["model"]["name"] == "fake"
    assert server.store.feedback(owner_of(new_token())) == []

    wrong = {**said, "label": "nonsense", "token": saved["token"]}
    assert server.error("feedback", **wrong).startswith("label: expected one of delivery status, ")
    own = {**said, "labels": ["refund", "delivery status"], "key": uuid.uuid4().hex}
    token = server.events("feedback", **own)[0][1][0]["token"]
    assert server.store.feedback(owner_of(token))[0]["task"] == "own"


# ---- from other programs -------------------------------------------------------------------------


@pytest.fixture
def gradio_client(server: Live) -> Iterator[Any]:
    from gradio_client import Client

    client = Client(server.address, verbose=False, analytics_enabled=False)
    yield client
    client.close()


def test_predict_and_submit(server: Live, gradio_client: Any) -> None:
    answer = gradio_client.predict(text=TEXT, mode="few-shot", api_name="/classify")
    assert answer["label"] == "delivery status"
    jobs = [gradio_client.submit(text=f"{TEXT} {n}", mode="few-shot", api_name="/classify") for n in range(9)]
    assert [job.result(timeout=30)["label"] for job in jobs] == ["delivery status"] * 9


def test_a_stream_comes_as_it_is_made(server: Live, gradio_client: Any) -> None:
    running = gradio_client.submit(modes=["zero-shot"], test_rows=10, api_name="/evaluate")
    job = server.only_job()
    events = (event for event in running if event["event"] != "waiting")
    assert next(events)["event"] == "queued"
    server.store.start_job(job.id, 1)
    server.store.add_event(job.id, {"event": "fit", "name": "zero-shot", "rows": 5})
    assert next(events)["progress"]["rows"] == 5
    server.finish(job, {"report": "report.json"}, report={"schema": 1, "rows": 10})
    *_, last = events
    assert (last["event"], last["report"]) == ("report", {"schema": 1, "rows": 10})


def test_submit_and_cancel(server: Live, gradio_client: Any) -> None:
    running = gradio_client.submit(modes=["zero-shot"], api_name="/evaluate")
    job = server.only_job()
    until(running.outputs)
    assert running.outputs()[0]["job"] == job.id
    assert running.cancel()
    until(lambda: server.store.job(job.id).state == "cancelled")  # type: ignore[union-attr]
    assert running.status().code.name == "CANCELLED"


def test_a_wrong_argument_reaches_the_client(gradio_client: Any) -> None:
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=r"^mode: expected one of zero-shot, few-shot, lora, got 'magic'$"):
        gradio_client.predict(text=TEXT, mode="magic", api_name="/classify")


def test_a_full_queue_says_so(server: Live, gradio_client: Any) -> None:
    from gradio_client.utils import QueueError

    def states(calls: list[Any]) -> set[str]:
        return {call.status().code.name for call in calls}

    asked = {"text": "wait now", "labels": ["a", "b"], "mode": "zero-shot"}
    with server.waiting():
        calls = [gradio_client.submit(**asked, api_name="/classify") for _ in range(4)]
        until(lambda: states(calls) == {"PROCESSING"})
        waiting = [gradio_client.submit(**asked, api_name="/classify") for _ in range(8)]
        until(lambda: states(waiting) == {"IN_QUEUE"})
        with pytest.raises(QueueError, match="full"):
            gradio_client.predict(**asked, api_name="/classify")
        assert server.post("classify", **asked).status_code == 503
    assert {call.result(timeout=60)["label"] for call in [*calls, *waiting]} == {"a"}


def test_plain_http_with_curl(server: Live) -> None:
    """As README shows it."""
    call = f"{server.address}/gradio_api/call/v2/classify"
    script = f"""
    id=$(curl -s {call} -H 'Content-Type: application/json' \
      -d '{{"text": "{TEXT}", "mode": "few-shot"}}' | sed 's/.*: *"//; s/".*//')
    curl -sN {server.address}/gradio_api/call/classify/$id
    """
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    ((event, (answer,)),) = sse(iter(done.stdout.splitlines()))
    assert (event, answer["label"]) == ("complete", "delivery status")


if __name__ == "__main__":
    import tempfile

    with live(Path(tempfile.mkdtemp())) as running:
        found = json.dumps(contract(running), indent=1, ensure_ascii=False)
    CONTRACT.write_text(found + "\n", encoding="utf-8")
