"""What gradio lets through, and refusals that it words for nobody: checked before any handler runs."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from promptclf.ui.web.limits import App, Message, Receive, Send

# What gradio says of named arguments that do not fit.
_UNKNOWN = re.compile("Parameter `(.{1,60}?)` is not a valid")
_MISSING = re.compile("No value provided for required argument: (.+)")
_RESULT = re.compile("/gradio_api/call/(?:v2/)?[^/]+/([^/]+)/?")
_NAMED = "/gradio_api/call/v2/"


class GuardedBlocks(gr.Blocks):
    """Blocks whose events take no addresses.

    In any value, even where text is expected, gradio takes ``{"path": "http://…", "meta": …}`` for a file
    and fetches it. Here nothing is ever fetched: files are uploaded.
    """

    def validate_inputs(self, block_fn: BlockFunction, inputs: list[Any]) -> None:
        """Refuse addresses of files, and calls with too few values.

        Raises
        ------
        gradio.Error
            Its text reaches the caller.
        """
        if len(inputs) < len(block_fn.inputs):
            wanted = ", ".join(str(getattr(block, "label", None)) for block in block_fn.inputs)
            raise gr.Error(
                f"data: expected {len(block_fn.inputs)} values ({wanted}), got {len(inputs)}",
                print_exception=False,
            )
        if _has_address(inputs):
            raise gr.Error("file: expected an uploaded one, got an address", print_exception=False)
        super().validate_inputs(block_fn, inputs)


def _has_address(values: Any) -> bool:
    """Whether a file with an address is among values, however deep."""
    left = [values]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(path := value.get("path"), str) and path.startswith(("http://", "https://")):
                return True
            left += value.values()
        elif isinstance(value, list):
            left += value
    return False


class KnownEvents:
    """Answers 404 to who asks for the result of a call that there was not; gradio would log a traceback."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        asked = (
            _RESULT.search(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        )
        if asked is None or _is_known(scope["app"].get_blocks()._queue, asked[1]):
            await self.app(scope, receive, send)
            return
        told = "event: expected the id that a call was answered with, got another one or one of long ago"
        await JSONResponse({"error": told}, status_code=404)(scope, receive, send)


def _is_known(queue: Any, event_id: str) -> bool:
    """Whether an event is under way, or has ended and its result was not fetched."""
    pending = queue.pending_event_ids_session
    session = next((session for session, ids in pending.items() if event_id in ids), None)
    return session in queue.pending_messages_per_session


async def unknown_endpoint(request: Request, error: Exception) -> Response:
    """404 for a call by named arguments of an endpoint that there is not. To be registered for KeyError."""
    if _NAMED not in request.url.path or error.args != (f"/{request.path_params.get('api_name')}",):
        raise error
    return JSONResponse({"error": "expected one of the endpoints in /gradio_api/info"}, status_code=404)


async def wrong_argument(request: Request, error: Exception) -> Response:
    """400 for a call by named arguments that do not fit; gradio would answer "Internal Server Error".

    To be registered for TypeError.
    """
    if unknown := _UNKNOWN.match(str(error)):
        told = f"{unknown[1]}: expected an argument of this endpoint, got another; see /gradio_api/info"
    elif missing := _MISSING.fullmatch(str(error)):
        told = f"{missing[1]}: expected a value, got none"
    else:
        raise error
    return JSONResponse({"error": told}, status_code=400)
