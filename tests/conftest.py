"""Fixtures for all tests: no internet, a home of their own, a fake model and three tiny real ones."""

from __future__ import annotations

import os

# Read by the libraries when they are imported, so it comes first.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["PROMPTCLF_DTYPE"] = "float32"  # what is close on one machine is close on all

import gc
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import settings

from fakes import KEYWORDS, FakeModel
from promptclf.errors import ModelError
from promptclf.lm.embedded import find_gguf, home
from promptclf.task import Example, Task

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from live import Live
    from promptclf.data.dataset import Dataset
    from promptclf.lm.model import HFModel
    from serving import App

# The same texts in every run; a machine that is busy is not a failure.
settings.register_profile("promptclf", derandomize=True, deadline=None, database=None)
settings.load_profile("promptclf")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: when others are done, no process is left with one of them."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """What is imported by now stays: to look it through again and again takes a twentieth of the time."""
    gc.freeze()


# ---- isolation ------------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def promptclf_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home for the session. Only converted models are shared: with the user's home if it has them.

    ``PROMPTCLF_TEST_HOME`` names another home to share them with.
    """
    usual = Path(os.environ.get("PROMPTCLF_TEST_HOME") or home()) / "models"
    own = tmp_path_factory.mktemp("home")
    if "PROMPTCLF_TEST_HOME" in os.environ:
        usual.mkdir(parents=True, exist_ok=True)
    if usual.is_dir():
        (own / "models").symlink_to(usual.resolve(), target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTCLF_HOME", str(own))
        yield own


@pytest.fixture(autouse=True)
def refused_connections(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Any, ...]]:
    """Connections that the test tried to open to other machines; each was refused."""
    refused: list[tuple[Any, ...]] = []
    if request.node.get_closest_marker("network"):
        return refused

    def guard(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(own: socket.socket, address: Any) -> Any:
            # Anything but a tuple is a Unix socket.
            if isinstance(address, tuple) and not _is_loopback(address[0]):
                refused.append(address)
                raise ConnectionRefusedError(f"tests must not connect to {address}")
            return real(own, address)

        return call

    resolve = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None and not _is_loopback(host):
            refused.append((host, *args[:1]))
            raise socket.gaierror(socket.EAI_NONAME, f"tests must not look up {host}")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guard(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guard(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return refused


def _is_loopback(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host)
    return name in ("localhost", "::1", "0.0.0.0", "") or name.startswith("127.")


# ---- a task, its data, and a model that reads keywords -------------------------------------------


@pytest.fixture(scope="session")
def task() -> Task:
    """Three labels; `FakeModel` knows a keyword for each."""
    return Task(
        "desk",
        ("billing", "delivery", "account"),
        instruction="Decide what the customer writes about.",
        descriptions={"billing": "invoices and payments", "delivery": "parcels"},
    )


@pytest.fixture(scope="session")
def dataset(task: Task) -> Dataset:
    """36 train, 12 validation and 18 test rows, balanced, no text twice."""
    from promptclf.data.dataset import Dataset

    openings = [
        "Hello, my",
        "Where is the",
        "A question about one",
        "Please look at this",
        "The wrong",
        "Your",
    ]
    endings = ["again", "from Monday", "please help"]
    rows = [
        Example(f"{opening} {keyword} {ending}", label)
        for ending in endings
        for opening in openings
        for keyword, label in KEYWORDS.items()
    ]
    extra = [
        Example(f"No {word} {why}", label)
        for why in ("yet", "here", "at all", "ever")
        for word, label in KEYWORDS.items()
    ]
    return Dataset(task, train=tuple(rows[:36]), validation=tuple(extra), test=tuple(rows[36:]), name="desk")


@pytest.fixture
def fake_model() -> FakeModel:
    """See `fakes.FakeModel`; build your own for other keywords, a bias or a token limit."""
    return FakeModel()


# ---- real models ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> the folder of a tiny random model; see tiny.py."""
    from tiny import FAMILIES, build

    return {family: build(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture(scope="session")
def tiny_llama(tiny_folders: dict[str, Path]) -> Path:
    """A model folder: byte fallback, <s>, a chat template that refuses the system role."""
    return tiny_folders["llama"]


@pytest.fixture(scope="session")
def tiny_gpt2(tiny_folders: dict[str, Path]) -> Path:
    """A model folder: byte level, no chat template, 256 learned positions."""
    return tiny_folders["gpt2"]


@pytest.fixture(scope="session")
def tiny_qwen3(tiny_folders: dict[str, Path]) -> Path:
    """A model folder: ChatML with control tokens that are not "special", such as <think>."""
    return tiny_folders["qwen3"]


@pytest.fixture(scope="session")
def tiny_models(tiny_folders: dict[str, Path]) -> dict[str, HFModel]:
    """Family -> the tiny model, loaded in float32 and shared by the session: leave it as it was."""
    from promptclf.lm.loading import load_model

    return {family: load_model(str(folder), device="cpu") for family, folder in tiny_folders.items()}


@pytest.fixture(params=["llama", "gpt2", "qwen3"], scope="session")
def tiny(request: pytest.FixtureRequest, tiny_models: dict[str, HFModel]) -> HFModel:
    """Each tiny model in turn."""
    return tiny_models[request.param]


@pytest.fixture(scope="session")
def embedded(promptclf_home: Path) -> HFModel:
    """The embedded model, loaded once; skips where its package is not installed."""
    from promptclf.lm.loading import load_model

    try:
        find_gguf()
    except ModelError as missing:
        pytest.skip(str(missing))
    return load_model("embedded", device="cpu")


# ---- the app's endpoints -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A running server with a fake model; 8 calls may wait. Leave no unfinished job behind.

    Not for the session: a server at rest takes a tenth of a slow core.
    """
    from live import live

    with live(tmp_path_factory.mktemp("server"), queue=8) as running:
        yield running


# ---- a browser -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def with_browser() -> None:
    """Skips without what tests in a browser need, before anything is started for them."""
    try:
        from browser import axe_file, chromium
    except ModuleNotFoundError as missing:
        _without_browser(f"no {missing.name}: make install-dev")
    if chromium() is None:
        _without_browser("no Chromium: apt-get install chromium fonts-noto-cjk, or name one by CHROMIUM")
    if not axe_file().is_file():
        _without_browser("no axe-core: make browser-test puts it into the virtual environment")


@pytest.fixture(scope="module")
def browser(with_browser: None) -> Iterator[Browser]:
    """Chromium. Not for the session: its event loop would be in other tests' way."""
    from browser import started

    with started() as browser:
        yield browser


def _without_browser(reason: str) -> NoReturn:
    if os.environ.get("BROWSER_TESTS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def app(with_browser: None, embedded: HFModel, promptclf_home: Path) -> Iterator[App]:
    """The whole app on a server of its own, with the embedded model, for tests in a browser."""
    from serving import serve

    with serve(promptclf_home) as (app, *_):
        yield app
