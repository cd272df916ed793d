"""The process that has the model of a `promptclf.lm.remote.RemoteModel`, which starts it.

``python -m promptclf.lm.served FD``, where FD is a socket. It answers one call after the other, as the lock
of a model has it anyway, and ends when the other side does, whatever it is doing.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from promptclf.errors import ModelError
from promptclf.garbage import collect_rarely
from promptclf.lm.light import import_to_predict

if TYPE_CHECKING:
    from promptclf.lm.model import ModelInfo
    from promptclf.settings import TrainConfig


class _Log(QueueHandler):
    """Sends log lines to the other side, which shows them as its own."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__(cast(Any, None))
        self.send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        self.send(None, record, None)


class _Served:
    """The model, with the other side's names for adapters, or why one of them is not attached."""

    def __init__(self, spec: dict[str, Any], revision: str | None) -> None:
        import_to_predict()
        from promptclf.lm.loading import load_model

        self.model = load_model(**spec)
        self.names: dict[str | None, str | Exception | None] = {None: None}
        if revision not in (None, self.model.info.revision):
            raise ModelError(
                f"{self.model.info.name}: expected the weights of before ({revision:.12}), "
                f"got others ({self.model.info.revision:.12}); start again"
            )

    def facts(self) -> tuple[ModelInfo, int, dict[str, Any]]:
        return self.model.info, self.model.max_tokens, self.model.spec

    def score(self, *arguments: Any, adapter: str | None = None, **options: Any) -> Any:
        name = self.names.get(adapter, adapter)
        if isinstance(name, Exception):
            raise name
        return self.model.score(*arguments, adapter=name, **options)

    def attach(self, name: str, config: TrainConfig, weights: Path | None) -> None:
        if name not in self.names:
            try:
                self.names[name] = self.model.attach(config, weights)
            except Exception as error:
                self.names[name] = error
                raise

    def detach(self, name: str) -> None:
        if isinstance(known := self.names.pop(name, None), str):
            self.model.detach(known)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def main(connection: Connection) -> None:
    """Answer calls until the other side ends, or at once say why the model cannot be loaded, and end."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the other side decides
        signal.signal(number, signal.SIG_IGN)
    one_at_a_time = threading.Lock()
    calls: SimpleQueue[Any] = SimpleQueue()

    def listen() -> None:
        try:
            while True:
                calls.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)  # whatever is under way, nobody waits for it
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def send(number: int | None, value: Any, error: Exception | None) -> None:
        with one_at_a_time, suppress(OSError):
            connection.send((number, value, error))

    spec, revision, level = connection.recv()
    threading.Thread(target=listen, daemon=True).start()
    logging.getLogger().addHandler(_Log(send))
    logging.getLogger("promptclf").setLevel(level)
    served: _Served | None = None
    while True:
        number, method, arguments, options = calls.get()
        try:
            served = served or _Served(spec, revision)
            value, error = getattr(served, method)(*arguments, **options), None
        except Exception as failed:
            value, error = None, _portable(failed)
        send(number, value, error)
        if served is None:
            os._exit(1)


def _portable(error: Exception) -> Exception:
    """An error with its traceback as a note, as it is or, where it cannot be sent, in words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    if not hasattr(error, "__notes__"):  # it may come again
        error.add_note(traceback.format_exc())
    return error


if __name__ == "__main__":
    collect_rarely()
    with suppress(EOFError):  # it has not even begun to speak
        main(Connection(int(sys.argv[1])))
