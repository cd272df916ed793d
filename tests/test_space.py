"""What is different on a Space: its model, ZeroGPU, and feedback that is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
import numpy as np
import pytest

from promptclf.errors import ArtifactError, PromptClfError, TextTooLongError
from promptclf.lm.embedded import HUB_ID
from promptclf.lm.loading import load_model
from promptclf.lm.model import HFModel
from promptclf.prompt import Message, Prompt
from promptclf.ui.core import ready, zerogpu
from promptclf.ui.core.ready import Ready, Source
from promptclf.ui.core.zerogpu import (
    LONGEST,
    SHORTEST,
    feedback_is_lost,
    lend_gpu,
    on_space,
    on_zero_gpu,
    seconds_for,
)
from promptclf.ui.space import space_service

PROMPTS = [Prompt((Message("user", f"Text: parcel number {n}\n"),), "Label:", chat=False) for n in range(3)]
ANSWERS = [" billing", " delivery"]
VARIABLES = ("SPACE_ID", "SPACES_ZERO_GPU", "PROMPTCLF_MODEL", "PROMPTCLF_QUANTIZATION")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not on a Space, with a home of one's own."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path / "home"))


# ---- where this runs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "space", "zero"),
    [
        ({}, False, False),
        ({"SPACE_ID": ""}, False, False),
        ({"SPACE_ID": "me/app"}, True, False),
        ({"SPACE_ID": "me/app", "SPACES_ZERO_GPU": "false"}, True, False),
        ({"SPACE_ID": "me/app", "SPACES_ZERO_GPU": "true"}, True, True),
        ({"SPACE_ID": "me/app", "SPACES_ZERO_GPU": "1"}, True, True),
    ],
)
def test_where_this_runs(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], space: bool, zero: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (on_space(), on_zero_gpu(), feedback_is_lost()) == (space, zero, space)


def test_feedback_on_a_volume_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPACE_ID", "me/app")
    volumes = {"/"}
    monkeypatch.setattr(os.path, "ismount", lambda folder: str(folder) in volumes)
    assert feedback_is_lost()  # "/" is a mount everywhere
    for volume in (tmp_path, tmp_path / "home"):
        volumes.add(str(volume))
        assert not feedback_is_lost()
        volumes.remove(str(volume))


@pytest.mark.parametrize(
    ("environment", "name", "quantization"),
    [
        ({}, "embedded", "none"),
        ({"SPACE_ID": "me/app"}, HUB_ID, "none"),
        ({"SPACE_ID": "me/app", "PROMPTCLF_MODEL": "", "PROMPTCLF_QUANTIZATION": ""}, HUB_ID, "none"),
        ({"PROMPTCLF_MODEL": "a/b", "PROMPTCLF_QUANTIZATION": "nf4"}, "a/b", "nf4"),
    ],
)
def test_the_environment_names_the_model(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], name: str, quantization: str
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setitem(sys.modules, "spaces", None)  # importing it would fail
    service = space_service()
    assert (service.model_name, service.quantization) == (name, quantization)


# ---- ZeroGPU ---------------------------------------------------------------------------------------


class FakeSpaces(ModuleType):
    """The package ``spaces`` as it is on ZeroGPU.

    A function runs in a forked process, in a thread of it; arguments and results are pickled, and an
    exception comes back as an error of gradio with the name of its class.

    Attributes
    ----------
    asked : list of int
        The seconds that each call asked for.
    """

    def __init__(self) -> None:
        super().__init__("spaces")
        self.asked: list[int] = []

    def GPU(self, task: Callable[..., Any], *, duration: Callable[..., int]) -> Callable[..., Any]:  # noqa: N802
        """What ``spaces.GPU(function, duration=...)`` gives."""

        def call(*args: Any, **options: Any) -> Any:
            self.asked.append(duration(*args, **options))
            context = multiprocessing.get_context("fork")
            receive, send = context.Pipe(duplex=False)
            worker = context.Process(target=_work, args=(task, pickle.dumps((args, options)), send))
            worker.start()
            send.close()
            try:
                if not receive.poll(60):
                    raise gr.Error("GPU task aborted")
                done, value = receive.recv()
            finally:
                worker.kill()
                worker.join()
            if not done:
                raise gr.Error(value)
            return value

        return call


def _work(task: Callable[..., Any], pickled: bytes, send: Any) -> None:
    import torch

    torch.set_num_threads(1)  # a fork leaves the other threads of a pool behind

    def run() -> None:
        args, options = pickle.loads(pickled)  # our own bytes
        try:
            send.send((True, task(*args, **options)))
        except Exception as error:
            send.send((False, type(error).__name__))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> FakeSpaces:
    """On a ZeroGPU Space."""
    fake = FakeSpaces()
    monkeypatch.setenv("SPACE_ID", "me/app")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setitem(sys.modules, "spaces", fake)
    return fake


@pytest.fixture
def own_llama(tiny_llama: Path, tmp_path: Path) -> Path:
    """A folder of this test alone: what is loaded from it may be changed."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "llama"))


@pytest.fixture
def lent(own_llama: Path, spaces: FakeSpaces) -> HFModel:
    """A model on a borrowed GPU."""
    model = load_model(str(own_llama), device="cpu")
    assert "score" not in vars(model)
    return lend_gpu(model, spaces.GPU)


forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@forks
def test_a_borrowed_gpu_gives_the_same(
    lent: HFModel, tiny_models: dict[str, HFModel], spaces: FakeSpaces
) -> None:
    own = tiny_models["llama"]
    assert isinstance(lent, HFModel)
    for restricted in (False, True):
        here, there = (model.score(PROMPTS, ANSWERS, restricted=restricted) for model in (own, lent))
        np.testing.assert_allclose(there, here, rtol=1e-5)
    np.testing.assert_allclose(lent.embed(["a parcel", "b"]), own.embed(["a parcel", "b"]), rtol=1e-4)
    assert len(spaces.asked) == 3
    lent.count_tokens(PROMPTS)
    lent.encode(PROMPTS, ANSWERS)
    assert len(spaces.asked) == 3, "what needs no GPU borrows none"


@forks
def test_errors_come_back_as_what_they_are(lent: HFModel) -> None:
    long = Prompt((Message("user", "parcel " * 2000),), "Label:", chat=False)
    with pytest.raises(TextTooLongError, match=r"^text 1: expected at most \d+ tokens"):
        lent.score([long], ANSWERS)
    with pytest.raises(PromptClfError, match=r"^ZeroGPU: ValueError$"):  # a bug: spaces tells no more
        lent.score([*PROMPTS, Prompt(PROMPTS[0].messages, "Other:", chat=False)], ANSWERS)


@forks
def test_a_lock_that_another_thread_holds_does_not_stop_it(lent: HFModel) -> None:
    held, enough = threading.Event(), threading.Event()
    # Not reentrant: the worker's thread may get the number of the one that holds it here.
    vars(lent)["lock"] = threading.Lock()

    def hold() -> None:
        with lent.lock:
            held.set()
            enough.wait(120)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        assert lent.score(PROMPTS, ANSWERS).shape == (3, 2)
        assert not lent.lock.acquire(blocking=False), "the lock of this process is the one that is held"
    finally:
        enough.set()
        holder.join()


def test_the_time_asked_for_grows_with_the_work() -> None:
    small, large = 135_000_000, 8_000_000_000
    assert SHORTEST <= seconds_for(200, small) <= SHORTEST + 2
    texts = [seconds_for(characters, large) for characters in (200, 20_000, 200_000, 2_000_000)]
    assert texts == sorted(texts) and len(set(texts)) > 2
    assert seconds_for(200, small) < seconds_for(200, large) < LONGEST
    assert seconds_for(10**9, large) == LONGEST


@forks
def test_the_time_asked_for_is_that_of_the_call(
    lent: HFModel, spaces: FakeSpaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    weights = sum(parameter.numel() for parameter in lent.module.parameters())
    monkeypatch.setattr(zerogpu, "seconds_for", lambda *work: asked.append(work) or 17)
    lent.score(PROMPTS, ANSWERS)
    lent.embed(["a parcel", "b"])
    prompts = sum(len(prompt.text) for prompt in PROMPTS)
    assert asked == [(prompts + 3 * len("".join(ANSWERS)), weights), (len("a parcelb"), weights)]
    assert spaces.asked == [17, 17]


def test_on_zero_gpu_model_and_adapters_are_loaded_at_once(
    spaces: FakeSpaces, own_llama: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PROMPTCLF_MODEL", str(own_llama))
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "0")
    got: list[tuple[Source, str]] = []
    monkeypatch.setattr(Ready, "classifier", lambda self, source, mode: got.append((source, mode)))
    service = space_service()
    assert "score" in vars(service.model)
    assert service.model.info.name == own_llama.name
    assert got == [(Source("support"), "lora")]
    assert os.environ["HF_DEACTIVATE_ASYNC_LOAD"] == "1"
    assert spaces.asked == [], "nobody is there yet whose time it could take"

    def refuse(*_: Any, **__: Any) -> None:
        raise ArtifactError("the adapter was trained on another model")

    monkeypatch.undo()
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setenv("PROMPTCLF_MODEL", str(own_llama))
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    monkeypatch.setattr(ready, "load_classifier", refuse)
    assert space_service().model.info.name == own_llama.name
    assert "no LoRA for support: the adapter was trained on another model" in caplog.text


@pytest.mark.usefixtures("spaces")
def test_on_zero_gpu_there_is_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from promptclf.ui import build_app

    async def tabs() -> set[Any]:
        return {block.id for block in build_app().blocks.values() if isinstance(block, gr.Tab)}

    assert "train" not in asyncio.run(tabs())
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert "train" in asyncio.run(tabs())
