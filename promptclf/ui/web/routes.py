"""Making the routes of an app once."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.routes import App

_create_app = App.create_app


class RoutedOnce(gr.Blocks):
    """Blocks whose routes are made when they are launched, or else asked for.

    gradio makes them anew at each step: for a new page, when its queue is set and when it is complete.
    """

    _app: App | None = None
    _building = False

    @property
    def app(self) -> App:
        """The web server's side, as in `gradio.Blocks`."""
        if self._app is None:
            self._app = App.create_app(self, mcp_server=False)
        return self._app

    @app.setter
    def app(self, app: App | None) -> None:
        self._app = app

    def queue(self, *arguments: Any, **options: Any) -> RoutedOnce:
        """As in `gradio.Blocks`."""
        self._building = True
        try:
            super().queue(*arguments, **options)
        finally:
            self._building = False
        return self

    def __exit__(self, *error: Any) -> None:
        self._building = True
        try:
            super().__exit__(*error)
        finally:
            self._building = False


def _create_later(blocks: gr.Blocks, *arguments: Any, **options: Any) -> App | None:
    """`App.create_app`, but nothing for a `RoutedOnce` that is being built."""
    if isinstance(blocks, RoutedOnce) and blocks._building:
        return None
    return _create_app(blocks, *arguments, **options)


App.create_app = staticmethod(_create_later)  # type: ignore[method-assign, assignment]
