"""What a running app sends back: answers, events, and why there is none."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

from promptclf.errors import PromptClfError

FULL = "the queue is full; try again in a while"
FAILED = "the app failed; its log says more"
MASKED = "The upstream Gradio app has raised an exception"  # gradio_client's words for an error kept secret
POLL = 0.2  # seconds between two looks at what came


def why(error: Exception, url: str) -> str:
    """Why there was no answer: the app's own words if it had any."""
    import httpx
    from gradio_client.exceptions import AppError  # type: ignore[import-untyped]
    from gradio_client.utils import QueueError  # type: ignore[import-untyped]

    told = str(error)
    if isinstance(error, AppError):
        return f"{url}: {FAILED}" if told.startswith(MASKED) else told
    if isinstance(error, QueueError):
        told = FULL
    elif isinstance(error, CancelledError):
        told = "the request was cancelled"
    elif isinstance(error, httpx.HTTPStatusError):
        told = f"expected an answer, got {error.response.status_code} {error.response.reason_phrase}"
    elif isinstance(error, httpx.HTTPError):
        told = f"no answer ({told}); is the app running?"
    return f"{url}: {told}"


def answer(lines: Iterator[str], url: str) -> Any:
    """The value of a call, from the events that it sends."""
    event = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "data" and event == "complete":
            return json.loads(value)[0]
        elif name == "data" and event == "error":
            told = json.loads(value)
            told = told.get("error") if isinstance(told, dict) else told
            raise PromptClfError(told or f"{url}: {FAILED}")
    raise PromptClfError(f"{url}: the app ended before it answered")


def stream(running: Any) -> Iterator[Any]:
    """What a submitted call yields, as it comes; at the end the error, if there was one.

    The call's own iterator keeps a lock and a core busy while it waits.
    """
    seen = 0
    while True:
        done = running.done()
        outputs = running.outputs()[seen:]
        seen += len(outputs)
        yield from outputs
        if done:
            running.result()
            return
        time.sleep(POLL)
