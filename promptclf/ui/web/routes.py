"""Making the routes of an app once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import gradio as gr
from gradio.routes import App


class RoutedOnce(gr.Blocks):
    """Blocks whose routes are made when they are launched, or else asked for.

    gradio makes them anew whenever the queue is set and when the page is built, which is three times for
    nothing and a quarter of the time that building takes.
    """

    _app: App | None = None

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
        with _without_routes():
            super().queue(*arguments, **options)
        return self

    def __exit__(self, *error: Any) -> None:
        with _without_routes():
            super().__exit__(*error)


@contextmanager
def _without_routes() -> Iterator[None]:
    with mock.patch.object(App, "create_app", return_value=None):
        yield
