"""The app as people run it: a server of its own with the embedded model, called over HTTP."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from live import imported_by, sse
from promptclf.lm.model import HFModel
from promptclf.task import PACKAGED_TASKS
from serving import ROOT, App, serve

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MODES = ["zero-shot", "few-shot", *(["lora"] if (PACKAGED_TASKS / "support" / "adapter").is_dir() else [])]
HTTPX_KEEPS = 5  # seconds, by default
TEXT = "My parcel was due on Monday and there is still no sign of it."


@pytest.fixture(scope="module")
def server(embedded: HFModel, promptclf_home: Path) -> Iterator[App]:
    """A running server. Interrupted at the end, it leaves without a traceback."""
    with serve(promptclf_home) as (running, process, errors):
        yield running
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert rest == ""
    assert errors.read_text() == "interrupted\n"
    assert process.returncode == 130


@pytest.fixture(scope="module")
def client(server: App) -> Iterator[Any]:
    from gradio_client import Client

    client = Client(server.address, verbose=False, analytics_enabled=False)
    yield client
    client.close()


def test_one_line_tells_the_address(server: App) -> None:
    assert server.line == f"promptclf is running on {server.address}"
    page = httpx.get(server.address)
    assert page.status_code == 200
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("mode", MODES)
def test_classify(client: Any, mode: str) -> None:
    answer = client.predict(text=TEXT, mode=mode, api_name="/classify")

    shown = {"schema_version", "label", "probabilities", "mode", "milliseconds", "truncated", "model"}
    assert set(answer) == shown
    assert answer["mode"] == mode
    assert len(answer["probabilities"]) == 10
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["label"] == next(iter(answer["probabilities"]))
    assert answer["milliseconds"] > 0
    assert answer["model"]["name"] == "embedded"
    # The same question has the same answer: what is kept between calls changes nothing.
    again = client.predict(text=TEXT, mode=mode, api_name="/classify")
    assert again["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-4)


def test_classify_with_own_labels(client: Any) -> None:
    labels = ["positive", "negative"]
    texts = [
        "What a lovely evening, we laughed all the way home.",
        "The film was far too long.",
    ]
    found = [
        client.predict(text=text, mode="zero-shot", labels=labels, api_name="/classify")["label"]
        for text in texts
    ]
    assert found == labels


def test_compare(client: Any) -> None:
    result = client.predict(text=TEXT, api_name="/compare")
    assert list(result["predictions"]) == MODES
    assert len(result["predictions"]) + len(result["unavailable"]) == 3
    assert result["agreement"].endswith(".")
    single = client.predict(text=TEXT, mode="few-shot", api_name="/classify")
    assert result["predictions"]["few-shot"]["probabilities"] == pytest.approx(
        single["probabilities"], abs=1e-4
    )

    own = client.predict(text=TEXT, labels=["refund", "delivery"], api_name="/compare")
    assert list(own["predictions"]) == ["zero-shot"]
    assert all("needs labelled examples" in reason for reason in own["unavailable"].values())


def test_a_connection_is_kept_for_longer_than_httpx_does(server: App) -> None:
    connection = HTTPConnection(server.address.removeprefix("http://"), timeout=60)
    ends = []
    for pause in (0, HTTPX_KEEPS + 1):
        time.sleep(pause)
        connection.request("GET", "/gradio_api/info")
        assert len(connection.getresponse().read()) > 1000
        ends.append(connection.sock.getsockname())
    connection.close()
    assert ends[0] == ends[1]


def test_the_server_does_without_torch(server: App, client: Any) -> None:
    client.predict(text=TEXT, api_name="/compare")
    assert "torch" not in imported_by(server.pid)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": ""}, "text: expected text of 1 to 20,000 characters, got none"),
        ({"text": 5}, "text: expected text of 1 to 20,000 characters, got 5"),
        ({"text": "x" * 20_001}, "text: expected text of 1 to 20,000 characters, got 20,001"),
        ({"text": "x", "mode": "magic"}, "mode: expected one of zero-shot, few-shot, lora"),
        ({"text": "x", "mode": "few-shot", "labels": ["a", "b"]}, "mode: Few-shot needs labelled examples"),
        ({"text": "x", "task": "other"}, "task: expected one of support or a data set"),
        ({"text": "x", "labels": "refund"}, "labels: expected a list"),
        ({"text": "x", "labels": ["a"]}, "labels: expected a list of 2 to 100 labels"),
    ],
)
def test_wrong_arguments(client: Any, arguments: dict[str, Any], message: str) -> None:
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=f"^{message}"):
        client.predict(api_name="/classify", **arguments)


def test_what_is_not_offered_is_refused(server: App) -> None:
    api = f"{server.address}/gradio_api"
    assert httpx.post(f"{api}/run/classify", json={"data": [TEXT]}).status_code == 404  # past the queue
    too_large = {"data": ["x" * 2**21]}
    assert httpx.post(f"{api}/call/classify", json=too_large).status_code == 413
    assert httpx.get(f"{server.address}/monitoring/summary").status_code >= 400
    assert httpx.get(f"{api}/mcp/schema").status_code == 404


# ---- README's "Use it over the network" ----------------------------------------------------------

ADDRESS = "http://127.0.0.1:7860"


def network_block(language: str) -> str:
    """The code in a language that README's section shows."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"## Use it over the network\n(.*?)\n## ", readme, re.DOTALL)
    (code,) = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert ADDRESS in code
    return str(code)


def test_readmes_client(server: App, capsys: pytest.CaptureFixture[str]) -> None:
    code = network_block("python").replace(ADDRESS, server.address)
    quick = code.replace("test_rows=50", "rows=20, test_rows=5")
    assert quick != code
    exec(compile(quick, "README.md", "exec"), {})  # our own text
    label, *events = capsys.readouterr().out.splitlines()
    assert label == "delivery status"
    assert events[0] == "queued"
    assert "score" in events
    assert events[-1] == "report"


def test_readmes_curl(server: App) -> None:
    code = network_block("bash").replace(ADDRESS, server.address)
    done = subprocess.run(["bash", "-ec", code], capture_output=True, text=True, timeout=120, check=True)
    ((event, (answer,)),) = sse(iter(done.stdout.splitlines()))
    assert (event, answer["label"], answer["mode"]) == ("complete", "delivery status", "lora")
