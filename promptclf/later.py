"""Putting off modules that libraries import and that are not needed to start."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_running = threading.RLock()  # of all at once: one that runs may ask for another


@contextmanager
def later(*names: str) -> Iterator[None]:
    """Have modules that are imported in this block run when something in them is first asked for.

    As `importlib.util.LazyLoader`, but not already when they are imported a second time, and for threads.
    Only for modules that do nothing but define things.

    Parameters
    ----------
    names
        Of modules, such as "scipy.stats".
    """
    finder = _Finder(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder:
    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.names:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


class _Later(Loader):
    """Leaves a module empty, to be run by the loader that it has in truth."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Unread


class _Unread(ModuleType):
    """A module in which nothing is defined yet."""

    def __getattr__(self, name: str) -> Any:
        with _running:  # whoever else asks waits until all is there
            if isinstance(later := self.__loader__, _Later):
                try:
                    self._become(later.loader)
                    later.loader.exec_module(self)
                except BaseException:
                    self._become(later)
                    raise
                self.__class__ = ModuleType  # type: ignore[assignment]
            return ModuleType.__getattribute__(self, name)

    def _become(self, loader: Loader) -> None:
        self.__loader__ = loader
        if self.__spec__ is not None:
            self.__spec__.loader = loader
