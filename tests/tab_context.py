"""A context with real components, a real store and jobs that only the test works off."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from fakes import FakeModel
from promptclf.jobs.jobs import Jobs
from promptclf.jobs.store import Store
from promptclf.ui.core.service import Service
from promptclf.ui.core.visitor import token_state
from promptclf.ui.page.context import Context
from promptclf.ui.page.panel import build_panel
from visitors import SUPPORT

T = TypeVar("T")
NASTY = "<img src=x onerror=alert(1)>"
COLOURS = ("red", "blue", "green")
CSV = "id,message,colour\n" + "".join(
    f"{n},a {COLOURS[n % 3]} thing {n},{COLOURS[n % 3]}\n" for n in range(30)
)


def build(folder: Path, tab: Callable[[Context], T]) -> tuple[Context, T]:
    """Build what a tab consists of; the scheduler of its jobs is not started."""
    store = Store(folder / "store")
    service = Service(FakeModel(SUPPORT, strength=4.0), store=store)

    async def place() -> tuple[Context, T]:
        with gr.Blocks():
            panel = build_panel(service)
            context = Context(service, Jobs(store), store, panel, token_state(store.folder))
            return context, tab(context)

    return asyncio.run(place())  # without a running loop, gradio makes some and leaves them open


def prop(update: Any, name: str) -> Any:
    """What an update of a component sets; None if it leaves it."""
    return update._constructor_args[0].get(name) if hasattr(update, "_constructor_args") else None


def is_skip(update: Any) -> bool:
    """Whether an update changes nothing."""
    return isinstance(update, dict) and update == gr.skip()


def check_html(html: str) -> None:
    """Fail on tags that are not closed, on handlers and on scripts, and on words that were not filled in."""
    Checked().check(html)
    assert not re.search(r"\{[a-z_]+\}", html), html


class Checked(HTMLParser):
    """Every tag is closed, and none does anything."""

    VOID = frozenset({"br", "img", "input", "path", "rect", "circle", "line"})

    def check(self, html: str) -> None:
        """Parse all of it."""
        self.stack: list[str] = []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open."""
        assert tag not in ("script", "iframe", "img")
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open and close."""
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        """Close."""
        assert self.stack.pop() == tag


def finish(
    context: Context, job_id: str, result: dict[str, Any], files: dict[str, str] | None = None
) -> None:
    """What a worker does at the end of a job."""
    folder = context.store.job_folder(job_id)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (files or {}).items():
        (folder / name).write_text(content, encoding="utf-8")
    context.store.end_job(job_id, "done", json.loads(json.dumps(result)))


def put(folder: Path, content: str | bytes, name: str = "mine.csv") -> str:
    """A file as gradio hands it over: in a folder of its own."""
    folder = folder / "uploaded"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)
