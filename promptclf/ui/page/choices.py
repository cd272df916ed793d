"""What follows from a choice in the panel: labels, what a mode can do, which adapters there are."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from promptclf.errors import PromptClfError
from promptclf.ui.core.ready import Source
from promptclf.ui.core.visitor import known_token, owner_or_none
from promptclf.ui.page.context import Context
from promptclf.ui.page.panel import (
    OWN,
    OWN_LABELS,
    adapter_choices,
    summary_line,
    task_choices,
    task_name,
)
from promptclf.ui.page.shared import QUICK, label_list, same_labels
from promptclf.ui.views import cards
from promptclf.ui.words import Language, language_of, say


class Choices:
    """Handlers of the panel's events."""

    def __init__(self, context: Context) -> None:
        self.context, self.service = context, context.service

    def start(self, token: Any, task: str, labels: str, mode: str, request: gr.Request) -> tuple[Any, ...]:
        """What a page shows once it is known who looks at it; what was typed meanwhile stays."""
        language, token = language_of(request), known_token(token)
        choices = task_choices(self.context.store, owner_or_none(token), language)
        model = cards.model_line(self.service.model_words)
        adapters = self._adapters(task, "", token, language)
        known = token, gr.Dropdown(choices), model, adapters
        return (*known, *self.labels(labels, task, mode, token, request))

    def task(
        self, task: str, mode: str, adapter: str | None, token: Any, request: gr.Request
    ) -> tuple[Any, ...]:
        """Another task: its labels, and a mode that can answer."""
        language = language_of(request)
        source = None if task == OWN else Source(task, owner_or_none(token))
        try:
            labels = OWN_LABELS if source is None else self.service.ready.task(source).labels
        except PromptClfError as error:  # it was deleted in another tab
            return "", gr.Dropdown(visible=False), cards.error(str(error)), mode, "", ""
        text = "\n".join(labels)
        adapters = self._adapters(task, adapter, token, language)
        return (text, adapters, *self.labels(text, task, mode, token, request))

    def labels(self, labels: str, task: str, mode: str, token: Any, request: gr.Request) -> tuple[Any, ...]:
        """Edited labels: what can be done with them."""
        language, listed = language_of(request), label_list(labels)
        source = self._source(task, listed, token)
        mode = "zero-shot" if self.service.unavailable(mode, source) else mode
        return (
            self.status(task, listed, token, language),
            mode,
            self.note(mode, source, language),
            self.summary(task, mode, len(listed), token, language),
        )

    def mode(self, mode: str, task: str, labels: str, token: Any, request: gr.Request) -> tuple[str, str]:
        """Another mode: why it cannot answer, if so."""
        language, listed = language_of(request), label_list(labels)
        note = self.note(mode, self._source(task, listed, token), language)
        return note, self.summary(task, mode, len(listed), token, language)

    def restore(self, task: str, mode: str, adapter: str, token: Any, request: gr.Request) -> tuple[Any, ...]:
        """The task's own labels again."""
        return self.task(task, mode, adapter, token, request)

    def status(self, task: str, labels: list[str], token: Any, language: Language) -> str:
        """A line below the labels, with a way back to the task's own."""
        text = say(language, "panel_count", count=len(labels))
        if self._source(task, labels, token) is not None:
            return cards.hint(text)
        if task == OWN:
            return cards.hint(f"{text} · {say(language, 'panel_labels_own')}")
        edited, back = (escape(say(language, f"panel_{key}")) for key in ("labels_edited", "restore"))
        button = f'<button type="button" class="pc-act" data-act="restore">{back}</button>'
        return f'<p class="pc-hint">{edited} {button}</p>'

    def note(self, mode: str, source: Source | None, language: Language) -> str:
        """Why a mode cannot answer."""
        reason = self.service.unavailable(mode, source, language)
        return cards.hint(f"{reason}.") if reason else ""

    def _adapters(self, task: str, chosen: str | None, token: Any, language: Language) -> Any:
        """The adapters to choose from, shown if one of them is the visitor's."""
        source = Source(task, owner_or_none(token))
        choices = [] if task == OWN else adapter_choices(self.service, source, language)
        choices = choices or [(say(language, "panel_packaged"), "")]  # the page sends a value even so
        ids = [value for _, value in choices]
        value = chosen if chosen in ids else ids[0]
        return gr.Dropdown(choices, value=value, visible=any(ids))

    def summary(self, task: str, mode: str, labels: int, token: Any, language: Language) -> str:
        """The choices in a line."""
        name = task_name(self.context.store, task, owner_or_none(token), language)
        return summary_line(name, mode, labels, language)

    def _source(self, task: str, labels: list[str], token: Any) -> Source | None:
        """The task behind the labels; None: they are labels of one's own."""
        if task == OWN:
            return None
        source = Source(task, owner_or_none(token))
        try:
            return source if same_labels(labels, self.service.ready.task(source)) else None
        except PromptClfError:
            return None


def connect(demo: gr.Blocks, context: Context) -> None:
    """Have the panel's components follow each other, and the page know its visitor."""
    choices, panel, token = Choices(context), context.panel, context.token
    about = [panel.status, panel.mode, panel.note, panel.summary]
    follows = [panel.labels, panel.adapter, *about]
    chosen = [panel.task, panel.mode, panel.adapter, token]
    demo.load(
        choices.start,
        [token, panel.task, panel.labels, panel.mode],
        [token, panel.task, panel.model, panel.adapter, *about],
        **QUICK,
    )
    panel.task.change(choices.task, chosen, follows, **QUICK)
    # Not "input": that event comes with the value from before it.
    panel.labels.change(
        choices.labels,
        [panel.labels, panel.task, panel.mode, token],
        about,
        **{**QUICK, "trigger_mode": "always_last"},
    )
    panel.mode.change(
        choices.mode, [panel.mode, panel.task, panel.labels, token], [panel.note, panel.summary], **QUICK
    )
    panel.status.click(choices.restore, chosen, follows, **QUICK)
