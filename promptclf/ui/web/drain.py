"""Ending without losing an answer: new work is refused, and what was accepted is waited for."""

from __future__ import annotations

import time
from typing import Any

from starlette.responses import PlainTextResponse

from promptclf.ui.web.limits import App, Message, Receive, Send

POLL = 0.05
RETRY_AFTER = "10"  # seconds; another server should be there by then
ALLOWED = ("/cancel", "/reset")  # they ask for less work


class Drain:
    """Whether the app is closing, and how many requests are being answered outside of gradio's queue."""

    def __init__(self) -> None:
        self.closing = False
        self.answering = 0

    def wait(self, queue: Any, seconds: float) -> bool:
        """Refuse new work and wait until all answers are delivered; False if time ran out.

        Parameters
        ----------
        queue
            The queue of the `gradio.Blocks`. An event stays among its pending ones until the stream to
            its client has taken the answer.
        seconds
            How long to wait at most.
        """
        self.closing = True
        end = time.monotonic() + seconds
        while self.answering or any(list(queue.pending_event_ids_session.values())):
            if time.monotonic() >= end:
                return False
            time.sleep(POLL)
        return True


class Draining:
    """ASGI middleware: counts requests for work, and answers 503 to them while the app is closing."""

    def __init__(self, app: App, drain: Drain) -> None:
        self.app, self.drain = app, drain

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"].endswith(ALLOWED):
            await self.app(scope, receive, send)
            return
        if self.drain.closing:
            refusal = PlainTextResponse(
                "the app is closing; try again", status_code=503, headers={"retry-after": RETRY_AFTER}
            )
            await refusal(scope, receive, send)
            return
        self.drain.answering += 1  # all requests run in one thread
        try:
            await self.app(scope, receive, send)
        finally:
            self.drain.answering -= 1
