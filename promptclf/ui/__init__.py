"""The web app; the only place that imports gradio. Names are loaded when they are first used."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptclf.ui.app import build_app
    from promptclf.ui.server import launch_settings, run
    from promptclf.ui.space import space_service
    from promptclf.ui.start import serve

# gradio reads it when it is imported: without it, a start looks up two machines on the internet.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

__all__ = ["build_app", "launch_settings", "run", "serve", "space_service"]

_HOMES = {
    "build_app": "app",
    "launch_settings": "server",
    "run": "server",
    "serve": "start",
    "space_service": "space",
}


@contextmanager
def _without_stubs() -> Iterator[None]:
    """Keep gradio from parsing the source of each of its components, to write stubs for type checkers.

    It does so at every start, and it takes a third of the time to import it. A class without a source
    file is passed over.
    """
    getfile = inspect.getfile

    def without_components(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError
        return getfile(thing)

    inspect.getfile = without_components  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = getfile


if not TYPE_CHECKING:  # a checker that saw this would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with _without_stubs():
            module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
        return getattr(module, name)
