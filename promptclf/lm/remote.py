"""A model in a process of its own, so that it and what asks it are imported side by side.

The process (`promptclf.lm.served`) keeps nothing that cannot be made again: if it ends, who waits is told so,
and the next call starts another with the same model and adapters.
"""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from promptclf.errors import PromptClfError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from promptclf.prompt import Prompt
    from promptclf.settings import TrainConfig

logger = logging.getLogger(__name__)

PACKAGE, SERVED = "promptclf", "promptclf.lm.served"


class RemoteModel:
    """Loads a model in a process of its own, started at once, and passes everything on to it.

    An `AdaptableModel`, once `load` has returned; its adapters can be used, but not trained. For use by many
    threads.

    Parameters
    ----------
    name, quantization
        As for `promptclf.load_model`.
    """

    def __init__(self, name: str, quantization: str = "none") -> None:
        self._spec: dict[str, Any] = {"name": name, "quantization": quantization}
        self._revision: str | None = None
        self._guard = threading.Lock()
        self._closed = False
        self._adapters: dict[str, tuple[TrainConfig, Path | None]] = {}
        self._discarded: list[str] = []
        self._process = _Process(self._spec, None)

    def __repr__(self) -> str:
        return f"RemoteModel({self._spec['name']!r}, quantization={self._spec['quantization']!r})"

    def __copy__(self) -> RemoteModel:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> RemoteModel:
        return self

    def load(self) -> RemoteModel:
        """Wait until the model is loaded; returns this object.

        Raises
        ------
        ModelError
            If it cannot be found or loaded.
        """
        with self._guard:
            loaded = self._running().loaded
        self.info, self.max_tokens, self._spec = loaded.result()
        self._revision = self.info.revision
        return self

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], **options: Any) -> NDArray[np.float64]:
        """As `LanguageModel.score`."""
        return cast("NDArray[np.float64]", self._call("score", list(prompts), list(answers), **options))

    def embed(self, texts: Sequence[str], *, layer: int | None = None) -> NDArray[np.float32]:
        """As `LanguageModel.embed`."""
        return cast("NDArray[np.float32]", self._call("embed", list(texts), layer=layer))

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """As `LanguageModel.count_tokens`."""
        return cast("list[int]", self._call("count_tokens", list(prompts)))

    def tokens(self, prompt: Prompt) -> list[tuple[int, str]]:
        """As `LanguageModel.tokens`."""
        return cast("list[tuple[int, str]]", self._call("tokens", prompt))

    def decode(self, ids: Sequence[int]) -> str:
        """As `HFModel.decode`."""
        return cast(str, self._call("decode", list(ids)))

    def attach(self, config: TrainConfig, weights: Path | None = None) -> str:
        """As `AdaptableModel.attach`."""
        name = uuid.uuid4().hex
        self._adapters[name] = (config, weights and weights.absolute())
        try:
            self._call("attach", name, *self._adapters[name])
        except BaseException:
            self.discard(name)
            raise
        return name

    def detach(self, name: str) -> None:
        """As `AdaptableModel.detach`, but at the next call."""
        self.discard(name)

    def discard(self, name: str) -> None:
        """As `AdaptableModel.discard`."""
        self._discarded.append(name)

    def close(self) -> None:
        """End the process; who waits for an answer is told so."""
        self._closed = True
        self._process.end()

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        with self._guard:
            process = self._running()
            while self._discarded:
                name = self._discarded.pop()
                if self._adapters.pop(name, None):
                    process.ask("detach", name)
            answer = process.ask(method, *arguments, **options)
        return answer.result()

    def _running(self) -> _Process:
        """The process; if it has ended, another with the same model and adapters."""
        if self._process.ended and not self._closed:
            logger.warning("%s; starting the model again", self._process.why)
            self._process = _Process(self._spec, self._revision)
            if self._closed:  # meanwhile
                self._process.end()
            for name, adapter in list(self._adapters.items()):
                self._process.ask("attach", name, *adapter)
        return self._process


class _Process:
    """One process, and the calls that it has yet to answer."""

    def __init__(self, spec: dict[str, Any], revision: str | None) -> None:
        self.ended, self.why = False, ""
        self._waiting: dict[int, Future[Any]] = {}
        self._numbers = itertools.count()
        self._guard = threading.Lock()
        self._connection, other = Pipe()
        with other:
            self._process = subprocess.Popen(
                # It finds what this process finds, and not what lies in the current folder.
                [sys.executable, "-P", "-m", SERVED, str(other.fileno())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                start_new_session=True,  # an interrupt from the terminal is for this process alone
            )
        self._connection.send((spec, revision, logging.getLogger(PACKAGE).getEffectiveLevel()))
        threading.Thread(target=self._listen, name="model", daemon=True).start()
        self.loaded = self.ask("facts")

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, method: str, *arguments: Any, **options: Any) -> Future[Any]:
        answer: Future[Any] = Future()
        with self._guard:
            if self.ended:
                answer.set_exception(PromptClfError(self.why))
                return answer
            number = next(self._numbers)
            self._waiting[number] = answer
            try:
                self._connection.send((number, method, arguments, options))
            except OSError:  # it has just ended: who listens will tell
                pass
            except BaseException:
                del self._waiting[number]
                raise
        return answer

    def end(self) -> None:
        self.why = "the model is closed"
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        try:
            while True:
                number, value, error = self._connection.recv()
                if number is None:
                    self._log(value)
                elif error is None:
                    self._waiting.pop(number).set_result(value)
                else:
                    self._waiting.pop(number).set_exception(error)
        except (EOFError, OSError):
            pass
        except Exception:
            logger.exception("what the model's process says cannot be read")
        self._process.kill()
        status = self._process.wait()
        with self._guard:
            failed = self.loaded.exception() if self.loaded.done() else None
            self.why = self.why or str(failed or f"the model's process ended (status {status}); try again")
            self.ended = True
            self._connection.close()
        for answer in self._waiting.values():
            answer.set_exception(PromptClfError(self.why))

    @staticmethod
    def _log(record: logging.LogRecord) -> None:
        if (owner := logging.getLogger(record.name)).isEnabledFor(record.levelno):
            owner.handle(record)
