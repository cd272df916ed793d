"""What the tabs share: how events behave, examples, and what came from the page as arguments."""

from __future__ import annotations

import logging
from typing import Any

import gradio as gr

from promptclf.errors import PromptClfError
from promptclf.schema import MAX_CHARS
from promptclf.task import Task, packaged_classifier
from promptclf.ui.core.ready import Source
from promptclf.ui.core.service import Service
from promptclf.ui.core.visitor import owner_or_none
from promptclf.ui.page.panel import OWN
from promptclf.ui.words import Language, i18n, say

logger = logging.getLogger(__name__)

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
FROM_DATA, EXAMPLE_CHARS = 4, 90

# Handlers of the page are no interface: the endpoints are. Each still checks what it gets.
QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "trigger_mode": "multiple",  # the default drops what is sent while an answer is under way
    "api_visibility": "private",
}
# One that waits for a mode to get ready must not keep the others from answering.
ANSWERING: dict[str, Any] = {**QUICK, "queue": True, "concurrency_limit": 4, "concurrency_id": "answering"}


def text_box(label: str = "field_text", **options: Any) -> gr.Textbox:
    """Where the text goes; `label` is the key of its words."""
    return gr.Textbox(
        label=i18n(label),
        placeholder=i18n("field_text_hint"),
        max_length=MAX_CHARS,
        autoscroll=False,
        **options,
    )


def chosen(service: Service, task: str, labels: str, adapter: str | None, token: Any) -> dict[str, Any]:
    """The panel's values as arguments of the service: edited labels are labels of one's own.

    Raises
    ------
    DataError
        If the task is none of the visitor's.
    """
    owner = owner_or_none(token)
    listed = label_list(labels)
    if task == OWN:
        return {"labels": listed, "owner": owner}
    if not same_labels(listed, service.ready.task(Source(task, owner))):
        return {"labels": listed, "owner": owner}
    return {"task": task, "owner": owner, "adapter": adapter or None}


def source_of(options: dict[str, Any]) -> Source | None:
    """What modes may learn from, given what `chosen` returned."""
    if "task" not in options:
        return None
    return Source(options["task"], options["owner"], options["adapter"])


def label_list(text: str | None) -> list[str]:
    """Labels written one a line."""
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def same_labels(listed: list[str], task: Task) -> bool:
    """Whether labels as written are those of a task."""
    return listed == [label.strip() for label in task.labels]


def examples(service: Service, task: str, token: Any) -> tuple[str, ...]:
    """Texts to try: made for a packaged task, the shortest test rows of a visitor's data set."""
    if task in EXAMPLES:
        return EXAMPLES[task]
    try:
        data = service.ready.dataset(Source(task, owner_or_none(token)))
    except PromptClfError:
        return ()
    short = sorted({row.text for row in data.test if row.text.strip()}, key=len)
    return tuple(text for text in short[: 2 * FROM_DATA : 2] if len(text) <= EXAMPLE_CHARS)


def waiting(service: Service, mode: str, source: Source | None, language: Language) -> str:
    """What to say while an answer is under way."""
    if service.is_ready(mode, source):
        return say(language, "card_reading")
    learns = mode == "zero-shot" and not (source and packaged_classifier(source.name, mode))
    return say(language, "card_preparing_long" if learns else "card_preparing")


def trouble(error: Exception, language: Language) -> str:
    """What to tell about an error: those meant for the user as they are, of others that there was one."""
    if isinstance(error, PromptClfError):
        return str(error).removeprefix("mode: ")
    logger.error("a handler failed", exc_info=error)
    return say(language, "went_wrong")
