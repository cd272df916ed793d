"""A model in a process of its own: the same answers and errors, and how either side ends."""

from __future__ import annotations

import copy
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from live import imported_by, until
from promptclf import LoraClassifier, load_classifier
from promptclf.classifiers.zero_shot import ZeroShotClassifier
from promptclf.errors import ArtifactError, ModelError, PromptClfError, TextTooLongError, TrainingError
from promptclf.lm.model import HFModel
from promptclf.lm.remote import RemoteModel
from promptclf.lm.served import _portable
from promptclf.prompt import Prompt, PromptTemplate
from promptclf.settings import TrainConfig
from promptclf.ui.core.service import Service
from quick import CONFIG, TASK, rows

ANSWERS = [" refund", " delivery", " delivery status"]
TEXTS = ["Where is my parcel?", "the wrong size", "two charges on one card"]


def prompts(texts: list[str] = TEXTS) -> list[Prompt]:
    return [PromptTemplate.load("completion").render(TASK, text) for text in texts]


@pytest.fixture(scope="module")
def running(tiny_llama: Path) -> Iterator[RemoteModel]:
    model = RemoteModel(str(tiny_llama))
    yield model
    model.close()


@pytest.fixture
def remote(running: RemoteModel) -> RemoteModel:
    """A tiny model; whatever a test does to its process, the next one finds it at work."""
    return running.load()


@pytest.fixture
def here(tiny_models: dict[str, HFModel]) -> HFModel:
    """The same model in this process."""
    return tiny_models["llama"]


# ---- what it answers -------------------------------------------------------------------------------


def test_it_answers_as_the_model_does_here(remote: RemoteModel, here: HFModel) -> None:
    assert (remote.info, remote.max_tokens) == (here.info, here.max_tokens)
    for options in ({}, {"restricted": True}, {"epsilon": 1e-6}):
        there, own = (model.score(prompts(), ANSWERS, **options) for model in (remote, here))
        np.testing.assert_array_equal(there, own)
    for layer in (None, 1):
        np.testing.assert_array_equal(remote.embed(TEXTS, layer=layer), here.embed(TEXTS, layer=layer))
    assert remote.count_tokens(prompts()) == here.count_tokens(prompts())
    assert remote.tokens(prompts()[0]) == here.tokens(prompts()[0])
    ids = [index for index, _ in here.tokens(prompts()[0])]
    assert remote.decode(ids) == here.decode(ids)


def test_it_is_shared_and_never_copied(remote: RemoteModel) -> None:
    assert copy.copy(remote) is copy.deepcopy(remote) is remote
    classifier = ZeroShotClassifier(TASK, remote, calibration="none").fit()
    assert classifier.model_ is remote


def test_a_service_with_it(running: RemoteModel, here: HFModel) -> None:
    there, own = Service("somewhere", load=running.load), Service(here)
    assert there.model_words == "somewhere"
    answers = [it.classify(TEXTS[0], "zero-shot", labels=["refund", "delivery"]) for it in (there, own)]
    assert answers[0].probabilities == answers[1].probabilities
    assert there.model_words == own.model_words
    explained = [
        it.explain(it.question(TEXTS[0], labels=["refund", "delivery"]), "zero-shot") for it in (there, own)
    ]
    assert explained[0] == explained[1]


# ---- adapters --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tiny_models: dict[str, HFModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA classifier trained on the tiny model."""
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    LoraClassifier(TASK, tiny_models["llama"], config=CONFIG).fit(*rows(24)).save_pretrained(folder)
    return folder


def test_lora_answers_as_it_does_here(remote: RemoteModel, here: HFModel, saved: Path) -> None:
    there, own = (load_classifier(saved, model=model) for model in (remote, here))
    np.testing.assert_array_equal(there.predict_proba(TEXTS), own.predict_proba(TEXTS))
    plain = here.score(prompts(), ANSWERS)
    np.testing.assert_array_equal(remote.score(prompts(), ANSWERS), plain)
    assert (remote.score(prompts(), ANSWERS, adapter=there.adapter_) != plain).any()


def test_adapters_that_do_not_fit(remote: RemoteModel, saved: Path) -> None:
    weights = saved / "adapter_model.safetensors"
    with pytest.raises(ArtifactError, match="does not fit the model"):
        remote.attach(TrainConfig(rank=2), weights)
    with pytest.raises(TrainingError, match="target_modules"):
        remote.attach(TrainConfig(target_modules=("nothing",)))
    with pytest.raises(ValueError, match='expected the name of one that is attached, got "nobody\'s"'):
        remote.score(prompts(), ANSWERS, adapter="nobody's")
    with pytest.raises(ModelError, match="LoRA trains a model from load_model, got RemoteModel"):
        LoraClassifier(TASK, remote, config=CONFIG).fit(*rows(24))


def test_an_adapter_goes_with_its_classifier(remote: RemoteModel, saved: Path) -> None:
    classifier = load_classifier(saved, model=remote)
    name = classifier.adapter_
    assert name in remote._adapters
    del classifier
    gc.collect()
    remote.count_tokens(prompts())
    assert name not in remote._adapters
    with pytest.raises(ValueError, match="expected the name of one that is attached"):
        remote.score(prompts(), ANSWERS, adapter=name)


# ---- errors ----------------------------------------------------------------------------------------


def test_an_error_is_the_one_of_the_model(remote: RemoteModel, here: HFModel) -> None:
    messages = []
    for model in (remote, here):
        with pytest.raises(TextTooLongError) as caught:
            model.score(prompts(["parcel " * 3000]), ANSWERS)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    with pytest.raises(ValueError, match="from the same template") as caught:
        remote.score([*prompts(), PromptTemplate.load("chat").render(TASK, "x")], ANSWERS)
    (note,) = caught.value.__notes__
    assert "Traceback" in note
    assert remote.count_tokens(prompts())


def test_an_error_that_cannot_be_sent_comes_in_words(remote: RemoteModel) -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        remote._call("nonsense")

    class LocalError(Exception):
        """A class that the other side cannot find."""

    error = _portable(LocalError("hello"))
    assert (type(error), str(error)) == (RuntimeError, "LocalError: hello")


# ---- how it ends -----------------------------------------------------------------------------------


def test_one_that_was_killed_is_started_again(
    remote: RemoteModel, here: HFModel, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lora = load_classifier(saved, model=remote)
    before, pid = lora.predict_proba(TEXTS), remote._process.pid
    os.kill(pid, signal.SIGSTOP)
    told = outcome_of(lambda: remote.score(prompts(), ANSWERS))
    until(lambda: remote._process._waiting)
    os.kill(pid, signal.SIGKILL)
    assert told() == "the model's process ended (status -9); try again"
    np.testing.assert_array_equal(remote.score(prompts(), ANSWERS), here.score(prompts(), ANSWERS))
    np.testing.assert_array_equal(lora.predict_proba(TEXTS), before)
    assert remote._process.pid != pid
    (message,) = caplog.messages
    assert message == "the model's process ended (status -9); try again; starting the model again"


def test_it_leaves_signals_to_who_started_it(remote: RemoteModel) -> None:
    pid = remote._process.pid
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert remote.count_tokens(prompts())
    assert remote._process.pid == pid


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def outcome_of(call: Callable[[], Any]) -> Callable[[], str]:
    """Begin a call that fails; what is returned waits for the message of its error."""
    messages: list[str] = []

    def run() -> None:
        try:
            call()
        except PromptClfError as error:
            messages.append(str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def outcome() -> str:
        thread.join(60)
        return messages[0]

    return outcome


# ---- a model that changes, with a made-up one that takes no time to load -----------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a made-up model, and an adapter beside it."""
    monkeypatch.setattr("promptclf.lm.remote.SERVED", "served_fake")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "revision").write_text("these weights")
    (tmp_path / "adapter").write_text("0.5")
    return tmp_path / "model"


@pytest.fixture
def made_up(place: Path) -> Iterator[RemoteModel]:
    model = RemoteModel(str(place))
    yield model
    model.close()


def killed(model: RemoteModel) -> RemoteModel:
    """The next call starts another process."""
    os.kill(model._process.pid, signal.SIGKILL)
    until(lambda: model._process.ended)
    return model


def test_a_model_that_comes_and_goes(
    made_up: RemoteModel, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "promptclf")
    name = made_up.load().attach(TrainConfig(), place.with_name("adapter"))
    plain = made_up.score(prompts(), ANSWERS)
    place.rename(place.with_name("elsewhere"))
    killed(made_up)
    for _ in range(2):
        with pytest.raises(PromptClfError, match="model: there is no such folder"):
            made_up.score(prompts(), ANSWERS)
        until(lambda: made_up._process.ended)  # it tries once, and the next one again
        with pytest.raises(ModelError, match="model: there is no such folder"):
            made_up.load()
        until(lambda: made_up._process.ended)
    place.with_name("elsewhere").rename(place)
    np.testing.assert_array_equal(made_up.score(prompts(), ANSWERS, adapter=name), plain + 0.5)
    # What the process logs is logged here, at the level that is set here when it is started.
    assert ("promptclf.lm.loading", "loading model") in {(r.name, r.getMessage()) for r in caplog.records}


def test_a_model_with_other_weights_is_refused(made_up: RemoteModel, place: Path) -> None:
    before = made_up.load().score(prompts(), ANSWERS)
    (place / "revision").write_text("other weights")
    told = "fake: expected the weights of before (these weight), got others (other weight); start again"
    with pytest.raises(PromptClfError) as caught:
        killed(made_up).score(prompts(), ANSWERS)
    assert str(caught.value) == told
    (place / "revision").write_text("these weights")
    until(lambda: made_up._process.ended)
    np.testing.assert_array_equal(made_up.score(prompts(), ANSWERS), before)


def test_an_adapter_that_is_lost(made_up: RemoteModel, place: Path) -> None:
    kept = made_up.load().attach(TrainConfig(), place.with_name("adapter"))
    place.with_name("other").write_text("7")
    lost = made_up.attach(TrainConfig(), place.with_name("other"))
    place.with_name("other").unlink()
    plain = killed(made_up).score(prompts(), ANSWERS)
    np.testing.assert_array_equal(made_up.score(prompts(), ANSWERS, adapter=kept), plain + 0.5)
    for _ in range(2):
        with pytest.raises(FileNotFoundError) as caught:
            made_up.score(prompts(), ANSWERS, adapter=lost)
        assert len(caught.value.__notes__) == 1


def test_closing_tells_who_waits(made_up: RemoteModel, place: Path) -> None:
    (place / "endless").touch()
    killed(made_up)
    told = outcome_of(made_up.load)
    until(lambda: made_up._process._waiting)
    pid = made_up._process.pid
    made_up.close()
    assert told() == "the model is closed"
    assert not alive(pid)
    until(lambda: made_up._process.ended)
    with pytest.raises(PromptClfError, match="the model is closed"):
        made_up.count_tokens(prompts())
    made_up.close()


@pytest.mark.parametrize("moment", ["", "model.load();"])
def test_it_ends_with_who_started_it(place: Path, moment: str) -> None:
    if not moment:
        (place / "endless").touch()
    for name in ("random", "promptclf"):  # what lies in the current folder is not imported
        place.with_name(f"{name}.py").write_text("raise SystemExit('the wrong one')")
    code = (
        "import sys, time; from promptclf.lm import remote; remote.SERVED = 'served_fake'\n"
        f"model = remote.RemoteModel(sys.argv[1]); {moment} print(model._process.pid, flush=True)\n"
        "time.sleep(600)"
    )
    command = [sys.executable, "-P", "-c", code, str(place)]
    paths = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen(
        command, cwd=place.parent, env=os.environ | paths, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        time.sleep(0 if moment else 2)  # loading has begun
        assert alive(pid)
        starter.kill()
    until(lambda: not alive(pid))


# ---- what it is for --------------------------------------------------------------------------------


def test_each_side_imports_its_own_half(remote: RemoteModel) -> None:
    """That the server does without torch, test_app_server.py shows."""
    assert imported_by(remote._process.pid) == {"torch"}  # transformers alone would import scipy
    spared = ("gradio", "numpy", "torch")
    code = f"import sys, promptclf.ui.start; print([name for name in {spared} if name in sys.modules])"
    command = [sys.executable, "-W", "ignore", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
