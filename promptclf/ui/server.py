"""Starting the app: its settings, limits on what comes in, and `serve`."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from promptclf.errors import PromptClfError
from promptclf.ui.app import build_app
from promptclf.ui.service import Service

MAX_BODY = 2**20
STYLE = Path(__file__).with_name("app.css")
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def serve(
    host: str = "127.0.0.1", port: int = 7860, *, model: str = "embedded", quantization: str = "none"
) -> None:
    """Run the app until it is interrupted; prints its address once it answers.

    Parameters
    ----------
    host, port
        Where to listen.
    model, quantization
        As for `promptclf.load_model`.

    Raises
    ------
    ModelError
        If the model cannot be found or loaded.
    PromptClfError
        If the port is in use.
    """
    service = Service(model, quantization=quantization)
    demo = build_app(service)
    try:
        demo.launch(
            server_name=host, server_port=port, quiet=True, prevent_thread_lock=True, **launch_settings()
        )
    except OSError as error:
        raise PromptClfError(
            f"port: expected a free one on {host}, {port} is in use; choose another"
        ) from error
    print(f"promptclf is running on http://{host}:{port}", flush=True)
    try:
        _ = service.model  # the page is there while it loads; without it, there is nothing to serve
        service.warm_up()
        threading.Event().wait()
    finally:
        service.close()
        demo.close(verbose=False)


def launch_settings() -> dict[str, Any]:
    """Arguments of ``Blocks.launch`` for a careful app: no telemetry, no share link, limited bodies."""
    return {
        "theme": _theme(),
        "css": STYLE.read_text(encoding="utf-8"),
        "ssr_mode": False,
        "run_history": False,  # it would keep the texts of everyone who uses a browser in that browser
        "enable_monitoring": False,
        "show_error": False,
        "max_file_size": MAX_BODY,
        "footer_links": ["api"],
        "strict_cors": True,
        "mcp_server": False,
        "share": False,
        "pwa": False,
        "app_kwargs": {"middleware": [Middleware(SafeHeaders), Middleware(BodyLimit)]},
    }


def _theme() -> gr.themes.Base:
    # Fonts that gradio brings along whole, in the two weights that they have.
    sans = gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700))
    mono = gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700))
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        font=[sans, "system-ui", "sans-serif"],
        font_mono=[mono, "ui-monospace", "monospace"],
        radius_size="md",
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


class BodyLimit:
    """ASGI middleware: answers 413 to a request whose body exceeds 1 MiB; gradio itself sets no limit."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = PlainTextResponse(f"expected a body of at most {MAX_BODY} bytes", status_code=413)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > MAX_BODY:
            await refusal(scope, receive, send)
            return
        got, answered = 0, False

        async def limited() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > MAX_BODY:  # the length was not declared, or wrongly
                raise _TooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, limited, watched)
        except _TooLargeError:
            if not answered:
                await refusal(scope, receive, send)


class SafeHeaders:
    """ASGI middleware: headers that keep a browser from guessing types and telling addresses."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self.app(scope, receive, with_headers)


class _TooLargeError(Exception):
    pass
