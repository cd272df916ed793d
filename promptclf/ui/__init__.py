"""The web app; the only place that imports gradio. Names are loaded when they are first used."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptclf.ui.app import build_app
    from promptclf.ui.server import launch_settings, run, serve
    from promptclf.ui.space import space_service

# gradio reads it when it is imported: without it, a start looks up two machines on the internet.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

__all__ = ["build_app", "launch_settings", "run", "serve", "space_service"]

_HOMES = {
    "build_app": "app",
    "launch_settings": "server",
    "run": "server",
    "serve": "server",
    "space_service": "space",
}

if not TYPE_CHECKING:  # a checker that saw this would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
