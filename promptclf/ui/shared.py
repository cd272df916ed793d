"""What the tabs share: the panel with task and labels, examples, and how events behave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from promptclf.task import Task, packaged_tasks
from promptclf.ui import cards
from promptclf.ui.service import MAX_CHARS, Service

OWN = "own labels"
OWN_LABELS = ("positive", "negative")
EXAMPLES = {
    "support": (
        "My parcel was due on Monday and there is still no sign of it.",
        "You charged my card twice for one kettle.",
        "The teapot arrived in three pieces.",
        "please stop the order i made an hour ago, wrong size",
        "Will this case fit last year's phone?",
    ),
    OWN: (
        "The film was far too long and I nearly fell asleep.",
        "What a lovely evening, we laughed all the way home.",
    ),
}
HINTS = {
    "zero-shot": "The model sees the text and the labels, no example.",
    "few-shot": "The prompt shows the labelled examples that are most like the text.",
    "lora": "A small adapter, trained on labelled examples, is switched on.",
}

# Handlers of the page are no interface: /classify and /compare are. Each still checks what it gets.
QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "trigger_mode": "multiple",  # the default drops what is sent while an answer is under way
    "api_visibility": "private",
}
# One that waits for a mode to get ready must not keep the others from answering.
ANSWERING: dict[str, Any] = {**QUICK, "queue": True, "concurrency_limit": 4, "concurrency_id": "answering"}


@dataclass(frozen=True)
class Panel:
    """What to choose from: a packaged task, or labels of one's own (one per line)."""

    task: gr.Radio
    labels: gr.Textbox


def build_panel() -> Panel:
    """Task and labels."""
    packaged = packaged_tasks()
    choices = [*((name.replace("_", " ").capitalize(), name) for name in packaged), ("Your own labels", OWN)]
    first = choices[0][1]
    task = gr.Radio(choices, value=first, label="Task", elem_classes="pc-switch")
    legend = gr.HTML(_legend(first), visible=first != OWN)
    labels = gr.Textbox(
        "\n".join(OWN_LABELS),
        label="Labels, one per line",
        lines=5,
        max_lines=10,
        visible=first == OWN,
        interactive=True,
    )

    def show(task: str) -> tuple[Any, Any]:
        own = task == OWN
        return gr.HTML(_legend(task), visible=not own), gr.Textbox(visible=own)

    task.change(show, task, [legend, labels], **QUICK)
    return Panel(task, labels)


def text_box(**options: Any) -> gr.Textbox:
    """Where the text goes."""
    return gr.Textbox(
        label="Text", placeholder="Text to classify", max_length=MAX_CHARS, autoscroll=False, **options
    )


def chosen(task: str, labels: str) -> dict[str, Any]:
    """The panel's values as arguments of the service."""
    if task != OWN:
        return {"task": task, "labels": None}
    return {"labels": [line.strip() for line in (labels or "").splitlines() if line.strip()]}


def waiting(service: Service, mode: str, task: str) -> str:
    """What to say while an answer is under way."""
    if service.is_ready(mode, None if task == OWN else task):
        return "Reading…"
    once = ": it reads the training texts once, which can take two minutes" if mode == "zero-shot" else ""
    return f"Getting ready{once}…"


def _legend(task: str) -> str:
    return "" if task == OWN else cards.label_list(Task.load(task).labels)
