"""Jobs for tests of the benchmark's runner; they take no time."""

from __future__ import annotations

import os

from benchmarks.speed import device
from benchmarks.speed.worker import Job


class Halves(Job):
    """Returns its number; counts seven tokens a time."""

    def __init__(self, number: int, dies_after: int = 0) -> None:
        super().__init__()
        self.number, self.left = number, dies_after or 1000
        self.facts = {"process": os.getpid()}

    def run(self) -> int:
        self.left -= 1
        if not self.left:
            os._exit(3)
        self.processed += 7
        print("what a library prints is no answer")
        return self.number


class Kind(Job):
    """Tells what weights would be loaded as."""

    def __init__(self) -> None:
        super().__init__()
        self.facts = {"dtype": device.dtype_name()}

    def run(self) -> None:
        """Nothing more."""


class Gone(Job):
    """A peer whose package is not there."""

    def __init__(self) -> None:
        raise ModuleNotFoundError("No module named 'no_such_package'", name="no_such_package")


class Broken(Job):
    """A peer that does not work."""

    def __init__(self) -> None:
        raise ValueError("no luck")


class Dies(Job):
    """A peer whose process ends."""

    def __init__(self) -> None:
        os._exit(3)
