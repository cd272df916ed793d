"""Comparisons without processes, for tests that are about something else: each takes seconds to start."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import SimpleNamespace
from typing import Any

import pytest

from promptclf.evaluation.measure import main


class InPlace:
    """What stands for a new process where none is needed: the same program, run to its end in this one."""

    def __init__(self, command: Sequence[str], **_: Any) -> None:
        printed = io.StringIO()
        with redirect_stdout(printed):
            self.returncode = main(*command[3:])
        self.stdout = io.StringIO(printed.getvalue())

    def __enter__(self) -> InPlace:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def kill(self) -> None:
        pass


@contextmanager
def in_place() -> Iterator[None]:
    """Within it, comparisons start no processes."""
    with pytest.MonkeyPatch.context() as patch:
        started = SimpleNamespace(Popen=InPlace, PIPE=subprocess.PIPE)
        patch.setattr("promptclf.evaluation.compare.subprocess", started)
        yield
