"""Whose data and adapters the app answers with, and how it gets ready."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeModel
from promptclf.errors import DataError, ModelError, PromptClfError
from promptclf.jobs.store import Store
from promptclf.prompt import PromptTemplate
from promptclf.task import Task
from promptclf.ui.core import ready
from promptclf.ui.core.answer import Answer
from promptclf.ui.core.polite import AT_ONCE, PoliteModel
from promptclf.ui.core.ready import KEPT, KEPT_DATA, Source
from promptclf.ui.core.service import Service
from visitors import COLOURS, SUPPORT, Visitor


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model() -> FakeModel:
    return FakeModel(SUPPORT, strength=4.0)


@pytest.fixture
def no_adapter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ready, "PACKAGED_TASKS", tmp_path / "tasks")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


# ---- whose data ----------------------------------------------------------------------------------


def test_a_visitor_has_data_and_adapters_of_their_own(model: FakeModel, store: Store) -> None:
    it, mine, other = Service(model, store=store), Visitor(store), Visitor(store)
    data = mine.upload()
    assert it.classify("a red thing", "few-shot", data, owner=mine.owner).label in COLOURS.labels
    with pytest.raises(DataError, match="needs a trained adapter"):
        it.classify("a red thing", "lora", data, owner=mine.owner)

    first = mine.train(data, model)
    assert it.classify("a red thing", "lora", data, owner=mine.owner).mode == "lora"
    second = mine.train(data, model, cue="question")
    cue = PromptTemplate.load("question").cue
    it.classify("a red thing", "lora", data, owner=mine.owner)
    assert model.calls[-1].prompts[0].cue == cue  # the newest, unless another is named
    it.classify("a red thing", "lora", data, owner=mine.owner, adapter=first)
    assert model.calls[-1].prompts[0].cue != cue
    assert it.ready.trainings(Source(data, mine.owner))[0].id == second

    calls = len(model.calls)
    for arguments in (
        {"task": data, "owner": other.owner},
        {"task": data, "owner": None},
        {"task": data, "owner": other.owner, "adapter": first},
        {"task": "support", "owner": other.owner, "adapter": first},
        {"task": "support", "owner": mine.owner, "adapter": first},  # it was trained on something else
    ):
        for mode in ("zero-shot", "few-shot", "lora"):
            if mode == "lora" or arguments["task"] == data:
                with pytest.raises(DataError):
                    it.classify("a red thing", mode, **arguments)
    assert len(model.calls) == calls


def test_what_was_deleted_is_gone_at_once(model: FakeModel, store: Store) -> None:
    it, mine = Service(model, store=store), Visitor(store)
    data = mine.upload()
    it.classify("a red thing", "few-shot", data, owner=mine.owner)
    store.delete_dataset(data, mine.owner)
    with pytest.raises(DataError, match=r"^task: expected one of support or a data set of yours"):
        it.classify("a red thing", "few-shot", data, owner=mine.owner)


def test_what_is_kept_of_visitors_is_bounded(model: FakeModel, store: Store) -> None:
    it = Service(model, store=store)
    it.classify("my parcel", "few-shot")
    for _ in range(KEPT + 3):
        visitor = Visitor(store)
        it.classify("a red thing", "few-shot", visitor.upload(), owner=visitor.owner)
    assert len(it.ready._kept) == KEPT + 1
    assert len(it.ready._data) == KEPT_DATA + 1
    assert it.is_ready("few-shot", Source("support"))
    assert len(it.ready._locks) == KEPT + 1


def test_a_packaged_task_is_ready_for_everyone(model: FakeModel, store: Store) -> None:
    it, visitor = Service(model, store=store), Visitor(store)
    it.classify("my parcel", "few-shot")
    assert it.is_ready("few-shot", Source("support", visitor.owner))
    assert it.is_ready("few-shot", Source("support", visitor.owner, "0" * 16))  # few-shot needs no adapter
    assert not it.is_ready("zero-shot", Source("support"))


# ---- getting ready -------------------------------------------------------------------------------


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


def test_nothing_of_a_visitor_is_kept_beside_the_store(
    model: FakeModel, store: Store, own_home: Path
) -> None:
    visitor = Visitor(store)
    data = visitor.upload()
    Service(model, store=store).classify("a red thing", "zero-shot", data, owner=visitor.owner)
    assert not list(own_home.rglob("*zero-shot*"))


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

    monkeypatch.setattr("promptclf.lm.loading.load_model", load)
    it = Service("embedded", quantization="nf4")
    assert it.model_words == "SmolLM2-135M-Instruct"
    assert (it.model_name, it.quantization) == ("embedded", "nf4")
    assert it.model is it.model is model
    assert it.model_words == "fake · cpu · float32"
    assert loads == [("embedded", "nf4")]
    assert (Service(model).model_name, Service(model).quantization) == ("fake", "none")


def test_modes_that_are_ready_answer_first(model: FakeModel) -> None:
    it = Service(model)
    assert [mode for mode, _ in it.answers("my parcel")] == ["lora", "few-shot", "zero-shot"]
    it = Service(model)
    it.classify("my parcel", "zero-shot")
    assert [mode for mode, _ in it.answers("my parcel")] == ["zero-shot", "lora", "few-shot"]
    assert next(iter(it.compare("my parcel")["predictions"])) == "zero-shot"


@pytest.mark.usefixtures("no_adapter")
def test_warm_up_gets_ready_and_close_stops_it(model: FakeModel, own_home: Path) -> None:
    it, source = Service(model), Source("support")
    assert not it.is_ready("zero-shot", source)
    it.warm_up()
    (warming,) = it._background
    warming.join(timeout=60)
    assert it.is_ready("zero-shot", source)
    assert it.is_ready("few-shot", source)
    it.warm_up()
    assert it._background == [warming]
    it.close()

    shutil.rmtree(own_home)
    stopped = Service(model)
    stopped.close()
    with pytest.raises(PromptClfError, match="closing"):
        stopped.classify("my parcel", "zero-shot", "support")
    assert not stopped.is_ready("zero-shot", source)


def test_close_does_not_wait_for_a_model_that_is_still_loading() -> None:
    ended = threading.Event()

    def load() -> FakeModel:
        assert ended.wait(60)
        raise ModelError("the model is closed")

    it = Service("embedded", load=load, cancel=ended.set)
    it.warm_up()
    (warming,) = it._background
    assert warming.is_alive()
    it.close()
    assert not warming.is_alive()


def test_a_model_that_cannot_be_loaded_is_loaded_once_before_someone_asks(
    capfd: pytest.CaptureFixture[str],
) -> None:
    tries: list[str] = []

    def load() -> FakeModel:
        tries.append("try")
        raise RuntimeError("killed")

    it = Service("embedded", load=load)
    it.warm_up()
    it._background[0].join(60)
    assert tries == ["try"]
    assert not capfd.readouterr().err
    with pytest.raises(RuntimeError, match="killed"):
        _ = it.model


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
    ("change", "polite"), [(lambda patch: None, True), (lambda patch: patch("SPACES_ZERO_GPU", "1"), False)]
)
def test_on_zerogpu_a_prior_is_one_call(
    model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Callable[[str, str], None]], None],
    polite: bool,
) -> None:
    change(monkeypatch.setenv)
    Service(model).classify("my parcel", "zero-shot")
    assert (len(model.calls) > 10) is polite


def test_the_package_is_light_to_import() -> None:
    code = (
        "import sys, os, promptclf.ui\n"
        "assert not {'gradio', 'torch'} & set(sys.modules), 'too much was imported'\n"
        "assert os.environ['GRADIO_ANALYTICS_ENABLED'] == 'False'\n"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=120)
