"""The app without a server: what it answers, what it shows, and what it refuses."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeModel
from promptclf.classifier import ZeroShotClassifier
from promptclf.errors import DataError, PromptClfError
from promptclf.prompt import PromptTemplate
from promptclf.task import Task
from promptclf.ui import cards, service
from promptclf.ui.polite import AT_ONCE, PoliteModel
from promptclf.ui.service import MAX_CHARS, Answer, Service, agreement

SUPPORT = {"parcel": "delivery status", "charged": "payment problem", "broken": "damaged item"}
NASTY = [
    "<img src=x onerror=alert(1)>",
    "</article><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "&lt;b&gt; {{7*7}} ${7*7} <!-- -->",
]
INFO = {
    "name": "embedded",
    "source": "tests",
    "revision": "0",
    "quantization": "none",
    "requested_quantization": "none",
    "device": "cpu",
    "dtype": "float32",
}


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("promptclf.ui.polite.PAUSE", 0)
    return tmp_path / "home"


@pytest.fixture
def model() -> FakeModel:
    return FakeModel(SUPPORT, strength=4.0)


@pytest.fixture
def no_adapter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(service, "PACKAGED_TASKS", tmp_path / "tasks")


def make_answer(label: str = "refund", mode: str = "lora", **changes: Any) -> Answer:
    values: dict[str, Any] = {
        "label": label,
        "probabilities": {label: 0.6, "other": 0.4},
        "mode": mode,
        "milliseconds": 12.34,
        "truncated": False,
        "model": INFO,
    }
    return Answer(**{**values, **changes})


# ---- the service ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["zero-shot", "few-shot"])
def test_answers_for_the_packaged_task(model: FakeModel, mode: str) -> None:
    answer = Service(model).classify("Where is my parcel?", mode, "support").to_dict()

    assert answer["label"] == "delivery status"
    assert answer["mode"] == mode
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert list(answer["probabilities"].values()) == sorted(answer["probabilities"].values(), reverse=True)
    assert set(answer["probabilities"]) == set(Task.load("support").labels)
    assert answer["milliseconds"] > 0
    assert answer["model"]["name"] == "fake"
    assert answer["truncated"] is False


def test_few_shot_shows_examples_of_the_train_split(model: FakeModel) -> None:
    it = Service(model)
    it.classify("Where is my parcel?", "few-shot")
    shown = model.calls[-1].texts[0]

    train = {example.text for example in it._dataset("support").train}
    assert sum(text in shown for text in train) >= 2


def test_own_labels_without_examples(model: FakeModel) -> None:
    labels = ["delivery status", "refund"]
    it = Service(model)

    assert it.classify("my parcel", "zero-shot", labels=labels).label == "delivery status"
    for mode in ("few-shot", "lora"):
        with pytest.raises(DataError, match="needs labelled examples"):
            it.classify("my parcel", mode, labels=labels)


@pytest.mark.usefixtures("no_adapter")
def test_lora_without_an_adapter_says_so(model: FakeModel) -> None:
    with pytest.raises(DataError, match="needs a trained adapter"):
        Service(model).classify("my parcel")


def test_the_adapter_of_the_task_is_used(
    model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Any mode may lie there; one that needs no real model stands in for LoRA.
    folder = tmp_path / "tasks" / "support" / "adapter"
    folder.parent.mkdir(parents=True)
    monkeypatch.setattr(service, "PACKAGED_TASKS", tmp_path / "tasks")
    template = PromptTemplate.load("question")
    ZeroShotClassifier(Task.load("support"), model, template).fit().save_pretrained(folder)

    answer = Service(model).classify("my parcel " * 2000)

    assert (answer.mode, answer.label, answer.truncated) == ("lora", "delivery status", True)
    assert model.calls[-1].prompts[0].cue == template.render(Task.load("support"), "x").cue


def test_the_prior_is_estimated_once_and_kept(model: FakeModel, own_home: Path) -> None:
    first = Service(model).classify("my parcel", "zero-shot")
    assert len(model.calls) > 10  # a few prompts at a time

    again = FakeModel(SUPPORT, strength=4.0)
    assert Service(again).classify("my parcel", "zero-shot").probabilities == first.probabilities
    assert len(again.calls) == 1

    [kept] = (own_home / "app").glob("support-zero-shot-*")
    (kept / "promptclf.json").write_text("{}")
    fresh = FakeModel(SUPPORT, strength=4.0)
    assert Service(fresh).classify("my parcel", "zero-shot").probabilities == first.probabilities
    assert len(fresh.calls) > 10

    other = FakeModel(SUPPORT, strength=4.0)
    other.info = FakeModel().info.__class__("other", "tests", "1" * 40, "none", "none", "cpu", "float32")
    Service(other).classify("my parcel", "zero-shot")
    assert len(other.calls) > 10


def test_a_home_that_cannot_be_written_is_no_obstacle(
    model: FakeModel, own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_home.write_text("a file where a folder should be")
    assert Service(model).classify("my parcel", "zero-shot").label == "delivery status"
    assert "not kept" in caplog.text


def test_threads_share_one_fit(model: FakeModel) -> None:
    it = Service(model)
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(it.classify("my parcel", "zero-shot")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 6
    assert len({tuple(answer.probabilities.values()) for answer in answers}) == 1
    assert sum(len(call.prompts) for call in model.calls) == 256 + 6


def test_the_model_is_loaded_at_the_first_use(monkeypatch: pytest.MonkeyPatch, model: FakeModel) -> None:
    loads: list[Any] = []

    def load(name: str, *, quantization: str) -> FakeModel:
        loads.append((name, quantization))
        return model

    monkeypatch.setattr("promptclf.loading.load_model", load)
    it = Service("embedded", quantization="nf4")
    assert it.model_words == "SmolLM2-135M-Instruct"
    assert it.model is it.model is model
    assert it.model_words == "fake · cpu"
    assert loads == [("embedded", "nf4")]


def test_modes_that_are_ready_answer_first(model: FakeModel) -> None:
    it = Service(model)
    assert [mode for mode, _ in it.answers("my parcel")] == ["lora", "few-shot", "zero-shot"]
    it = Service(model)
    it.classify("my parcel", "zero-shot")
    assert [mode for mode, _ in it.answers("my parcel")] == ["zero-shot", "lora", "few-shot"]
    assert next(iter(it.compare("my parcel")["predictions"])) == "zero-shot"


@pytest.mark.usefixtures("no_adapter")
def test_warm_up_gets_ready_and_close_stops_it(model: FakeModel, own_home: Path) -> None:
    it = Service(model)
    assert not it.is_ready("zero-shot", "support")
    it.warm_up()
    assert it._warming is not None
    it._warming.join(timeout=60)
    assert it.is_ready("zero-shot", "support")
    assert it.is_ready("few-shot", "support")
    it.close()

    shutil.rmtree(own_home)
    stopped = Service(model)
    stopped.close()
    with pytest.raises(PromptClfError, match="closing"):
        stopped.classify("my parcel", "zero-shot", "support")
    assert not stopped.is_ready("zero-shot", "support")


def test_the_polite_model_changes_no_number(model: FakeModel) -> None:
    task = Task.load("support")
    texts = [f"text {n} about a {'parcel' if n % 2 else 'lamp'}" for n in range(2 * AT_ONCE + 1)]
    prompts = [PromptTemplate.load("completion").render(task, text) for text in texts]
    answers = [f" {label}" for label in task.labels]
    polite = PoliteModel(model, threading.Event())

    np.testing.assert_array_equal(polite.score(prompts, answers), model.score(prompts, answers))
    assert [len(call.prompts) for call in model.calls[:-1]] == [AT_ONCE, AT_ONCE, 1]
    np.testing.assert_array_equal(polite.embed(texts), model.embed(texts))
    assert polite.count_tokens(prompts) == model.count_tokens(prompts)
    assert polite.tokens(prompts[0]) == model.tokens(prompts[0])
    assert polite.score([], answers).shape == (0, 10)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("text", {"text": ""}),
        ("text", {"text": " \n\t"}),
        ("text", {"text": None}),
        ("text", {"text": 7}),
        ("text", {"text": ["a"]}),
        ("text", {"text": "x" * (MAX_CHARS + 1)}),
        ("text", {"text": "half \ud83d of it"}),
        ("mode", {"mode": "magic"}),
        ("mode", {"mode": None}),
        ("mode", {"mode": ["lora"]}),
        ("task", {"task": "../support"}),
        ("task", {"task": None}),
        ("task", {"task": ["support"]}),
        ("labels", {"labels": "refund"}),
        ("labels", {"labels": {"a": 1, "b": 2}}),
        ("labels", {"labels": 3}),
        ("labels", {"labels": []}),
        ("labels", {"labels": ["one"]}),
        ("labels", {"labels": ["one", 2]}),
        ("labels", {"labels": ["one", None]}),
        ("labels", {"labels": ["one", "  "]}),
        ("labels", {"labels": ["same", " Same "]}),
        ("labels", {"labels": ["a", "b" * 101]}),
        ("labels", {"labels": ["a", "b\x00"]}),
        ("labels", {"labels": ["a", "\udc00"]}),
        ("labels", {"labels": [f"label {n}" for n in range(101)]}),
    ],
)
def test_wrong_arguments_are_named(model: FakeModel, field: str, arguments: dict[str, Any]) -> None:
    values = {"text": "my parcel", "mode": "zero-shot", "task": "support", **arguments}
    with pytest.raises(PromptClfError, match=rf"^{field}: ") as caught:
        Service(model).classify(**values)
    assert len(str(caught.value)) < 250
    assert not model.calls


def test_a_text_may_have_exactly_the_limit(model: FakeModel) -> None:
    answer = Service(model).classify("a" * MAX_CHARS, "zero-shot", labels=["refund", "invoice"])
    assert answer.truncated is False  # one word


def test_a_text_over_the_token_limit_is_cut_and_that_is_told(model: FakeModel) -> None:
    answer = Service(model).classify("parcel " + "word " * 3000, "few-shot")
    assert answer.truncated is True
    assert "only the beginning was read" in cards.answer_card(answer)


@pytest.mark.usefixtures("no_adapter")
def test_compare_gives_answers_reasons_and_a_sentence(model: FakeModel) -> None:
    result = Service(model).compare("my parcel")
    assert set(result) == {"predictions", "unavailable", "agreement"}
    assert set(result["predictions"]) == {"zero-shot", "few-shot"}
    assert set(result["unavailable"]) == {"lora"}
    assert result["agreement"] == "Both modes say “delivery status”."

    own = Service(model).compare("my parcel", labels=["refund", "invoice"])
    assert set(own["predictions"]) == {"zero-shot"}
    assert all("needs labelled examples" in reason for reason in own["unavailable"].values())
    assert own["agreement"] == "Only Zero-shot could answer."
    with pytest.raises(DataError, match=r"^text: "):
        Service(model).answers("")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ("aaa", "All three modes say “a”."),
        ("abc", "All three modes disagree: a text worth labelling."),
        ("aab", "Zero-shot and Few-shot say “a”, LoRA says “b”."),
        ("baa", "Few-shot and LoRA say “a”, Zero-shot says “b”."),
        ("ab", "Both modes disagree: a text worth labelling."),
        ("aa", "Both modes say “a”."),
        ("a", "Only Zero-shot could answer."),
        ("", "No mode could answer."),
    ],
)
def test_agreement(labels: str, sentence: str) -> None:
    modes = ["zero-shot", "few-shot", "lora"]
    assert agreement({m: make_answer(label, m) for m, label in zip(modes, labels)}) == sentence  # noqa: B905


# ---- the cards -----------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Collects tags, attribute names and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


TAGS = {"article", "section", "header", "p", "h1", "h3", "ul", "li", "span", "b", "i"}
ATTRIBUTES = {"class", "dir", "title", "style", "role", "aria-label", "aria-hidden", "aria-busy"}


@pytest.mark.parametrize("nasty", NASTY)
def test_user_text_stays_text(nasty: str) -> None:
    answer = make_answer(nasty)
    for html in (
        cards.answer_card(answer),
        cards.answer_card(answer, heading=nasty),
        cards.note_card(nasty, heading=nasty),
        cards.waiting_card(nasty, heading=nasty),
        cards.thread([(nasty, cards.note_card("x"))]),
        cards.side_by_side([], nasty),
        cards.header(nasty),
        cards.empty(nasty),
        cards.hint(nasty),
        cards.label_list([nasty, "other"]),
    ):
        found = Elements(html)
        assert found.tags <= TAGS
        assert found.attributes <= ATTRIBUTES
        assert nasty in found.text


def test_a_card_shows_the_five_most_probable_labels() -> None:
    shares = {"a": 0.45, "b": 0.2, "c": 0.15, "d": 0.1, "e": 0.06, "f": 0.039, "g": 0.001}
    card = cards.answer_card(make_answer("a", "few-shot", probabilities=shares, milliseconds=1234))
    text = Elements(card).text
    assert card.count('class="pc-track"') == 5
    assert "2 more4%" in text
    assert "unsure" in text
    assert "Few-shot · 1.2 s" in text
    assert "width:45.0%" in card


@pytest.mark.parametrize(
    ("p", "words", "share"),
    [
        (0.97, "confident", "97%"),
        (0.6, "likely", "60%"),
        (0.3, "unsure", "30%"),
        (0.9999, "confident", ">99%"),
    ],
)
def test_how_sure_an_answer_is(p: float, words: str, share: str) -> None:
    text = Elements(cards.answer_card(make_answer("a", probabilities={"a": p, "b": 1 - p}))).text
    assert words in text
    assert share in text


# ---- the page ------------------------------------------------------------------------------------


@pytest.fixture
def app(model: FakeModel) -> Any:
    from promptclf.ui import build_app

    async def build() -> Any:  # without a running loop, gradio makes some and leaves them open
        return build_app(Service(model))

    return asyncio.run(build())


def test_only_the_two_endpoints_are_public(app: Any) -> None:
    info = app.get_api_info()
    assert set(info["named_endpoints"]) == {"/classify", "/compare"}
    assert not info["unnamed_endpoints"]
    names = [p["parameter_name"] for p in info["named_endpoints"]["/classify"]["parameters"]]
    assert names == ["text", "mode", "task", "labels"]
    assert info["named_endpoints"]["/classify"]["parameters"][1]["parameter_default"] == "lora"
    for endpoint in info["named_endpoints"].values():
        assert endpoint["returns"][0]["type"]["type"] == "object"


def test_the_queue_is_limited(app: Any) -> None:
    queue = app._queue
    assert queue.max_size == 32
    assert queue.default_concurrency_limit == 2
    assert app.api_open is False
    assert app.analytics_enabled is False


def test_careful_settings() -> None:
    from promptclf.ui import launch_settings

    settings = launch_settings()
    for name in ("ssr_mode", "run_history", "enable_monitoring", "show_error", "share", "mcp_server", "pwa"):
        assert settings[name] is False
    assert settings["strict_cors"] is True
    for outside in ("http:", "https:", "//", "@import"):
        assert outside not in settings["css"].replace("/*", "").replace("*/", "")


def test_a_conversation(model: FakeModel) -> None:
    from promptclf.ui.classify import History, _add, _add_example, _answer, _clear

    it, history = Service(model), History()
    box, view = _add(it, "my <parcel>", "zero-shot", "support", "", history)
    assert box == ""
    assert "my &lt;parcel&gt;" in view
    assert "pc-waiting" in view
    _add_example(it, "I was charged twice", "zero-shot", "support", "", history)
    *_, view = _answer(it, history)
    assert "pc-waiting" not in view
    assert view.index("delivery status") < view.index("payment problem</")
    assert not history.waiting

    assert _add_example(it, "  ", "zero-shot", "support", "", history) == view
    assert "at most 20,000 characters" in _add_example(it, "x" * 20_001, "zero-shot", "support", "", history)
    _add_example(it, "a parcel", "lora", "own labels", "refund\n\n invoice \n", history)
    *_, view = _answer(it, history)
    assert "needs labelled examples" in view
    assert "pc-empty" in _clear(history)
    assert list(_answer(it, history)) == [_clear(history)]


def test_a_bug_leaves_no_card_waiting(model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from promptclf.ui.classify import History, _add_example, _answer
    from promptclf.ui.compare import _compare

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("secret")

    it, history = Service(model), History()
    monkeypatch.setattr(model, "score", fail)
    _add_example(it, "my parcel", "few-shot", "support", "", history)
    views = [*_answer(it, history), *_compare(it, "my parcel", "support", "")]
    assert "Something went wrong" in views[0]
    assert "Something went wrong" in views[-1]
    assert not any("secret" in view for view in views)


@pytest.mark.usefixtures("no_adapter")
def test_side_by_side(model: FakeModel) -> None:
    from promptclf.ui.compare import _compare

    views = list(_compare(Service(model), "my parcel", "support", ""))
    assert [view.count("pc-waiting") for view in views] == [3, 2, 1, 0, 0]
    assert "Both modes say “delivery status”." in views[-1]
    assert "needs a trained adapter" in views[-1]
    [refused] = _compare(Service(model), "", "support", "")
    assert "text: expected some text" in refused


# ---- what comes in -------------------------------------------------------------------------------


def test_bodies_are_limited() -> None:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    from promptclf.ui.server import MAX_BODY, BodyLimit, SafeHeaders

    async def count(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    routes = [Route("/", count, methods=["POST"])]
    client = TestClient(Starlette(routes=routes, middleware=[Middleware(SafeHeaders), Middleware(BodyLimit)]))

    def chunks(total: int) -> Iterator[bytes]:
        for _ in range(total // 2**16):
            yield b"x" * 2**16

    exact = client.post("/", content=b"x" * MAX_BODY)
    assert (exact.status_code, exact.text) == (200, str(MAX_BODY))
    assert exact.headers["x-content-type-options"] == "nosniff"
    assert client.post("/", content=b"x" * (MAX_BODY + 1)).status_code == 413
    assert client.post("/", content=chunks(MAX_BODY)).status_code == 200  # no length declared
    assert client.post("/", content=chunks(2 * MAX_BODY)).status_code == 413
    assert client.post("/", content=b"x", headers={"content-length": "-1"}).status_code == 413


def test_the_package_is_light_to_import() -> None:
    code = (
        "import sys, os, promptclf.ui, promptclf.ui.service\n"
        "assert not {'gradio', 'torch'} & set(sys.modules), 'too much was imported'\n"
        "assert os.environ['GRADIO_ANALYTICS_ENABLED'] == 'False'\n"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=120)
