"""The web app; the only place that imports gradio. Names are loaded when they are first used."""

from __future__ import annotations

import importlib
import inspect
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from unittest import mock

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


_hurry = threading.RLock()  # one after the other, or what is replaced would not be put back


@contextmanager
def _quickly() -> Iterator[None]:
    """While gradio is imported, keep it from work on each of its components that only its developers need.

    At every start it parses their source, to write stubs for type checkers, which takes a third of the time
    to import it, and compiles the texts that describe their events, many of them again and again. Here a
    class without a source file is passed over, and a text is compiled once.
    """
    with _hurry:
        from jinja2 import Template

        getfile, compiled = inspect.getfile, lru_cache(maxsize=100)(Template)

        def without_components(thing: Any) -> str:
            if isinstance(thing, type) and thing.__module__.startswith("gradio."):
                raise OSError("passed over")
            return getfile(thing)

        class Once(Template):
            def __new__(cls, source: Any, **options: Any) -> Any:
                return Template(source, **options) if options else compiled(source)

        with mock.patch("inspect.getfile", without_components), mock.patch("jinja2.Template", Once):
            yield


if not TYPE_CHECKING:  # a checker that saw this would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with _quickly():
            module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
        return getattr(module, name)
