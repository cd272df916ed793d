"""The Classify tab: a conversation in which every answer is a card."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr

from promptclf.errors import PromptClfError
from promptclf.modes import MODES
from promptclf.ui import cards
from promptclf.ui.service import TITLES, Service
from promptclf.ui.shared import ANSWERING, EXAMPLES, HINTS, OWN, QUICK, Panel, chosen, text_box, waiting

logger = logging.getLogger(__name__)

KEPT = 50
SHOWN_CHARS = 2_000
WELCOME = "Pick an example, or write a text of your own."


@dataclass
class Turn:
    """A text, what it was asked with, and the card shown for it."""

    text: str
    mode: str
    options: dict[str, Any]
    card: str


@dataclass
class History:
    """One visitor's conversation, changed in place: a returned copy would undo what came meanwhile."""

    turns: deque[Turn] = field(default_factory=lambda: deque(maxlen=KEPT))
    waiting: deque[Turn] = field(default_factory=lambda: deque(maxlen=KEPT))


def classify_tab(service: Service, panel: Panel) -> None:
    """Build the tab's content."""
    history = gr.State(History())
    first = "zero-shot" if service.unavailable("lora", str(panel.task.value)) else "lora"
    with gr.Row(elem_classes="pc-bar"):
        mode = gr.Radio(
            [(TITLES[name], name) for name in MODES],
            value=first,
            label="Mode",
            show_label=False,
            container=False,
            elem_classes="pc-switch",
            scale=1,
        )
        clear = gr.Button(
            "Clear", size="sm", variant="secondary", scale=0, min_width=72, elem_classes="pc-clear"
        )
    hint = gr.HTML(_hint(service, first, str(panel.task.value)))
    view = gr.HTML(cards.empty(WELCOME), elem_id="pc-view")
    box = text_box(show_label=False, container=False, lines=1, max_lines=6, submit_btn=True, elem_id="pc-box")
    groups = []
    asked = [
        box.submit(
            partial(_add, service), [box, mode, panel.task, panel.labels, history], [box, view], **QUICK
        )
    ]
    for task, texts in EXAMPLES.items():
        with gr.Row(visible=task == panel.task.value, elem_classes="pc-examples") as group:
            for text in texts:
                button = gr.Button(text, size="sm", variant="secondary", min_width=0)
                add = partial(_add_example, service, text)
                asked.append(button.click(add, [mode, panel.task, panel.labels, history], view, **QUICK))
        groups.append(group)
    for event in asked:
        event.then(partial(_answer, service), history, view, **ANSWERING)
    clear.click(_clear, history, view, **QUICK)

    def change_task(task: str, mode: str) -> list[Any]:
        mode = "zero-shot" if service.unavailable(mode, None if task == OWN else task) else mode
        return [mode, _hint(service, mode, task), *(gr.Row(visible=task == name) for name in EXAMPLES)]

    panel.task.change(change_task, [panel.task, mode], [mode, hint, *groups], **QUICK)
    mode.input(partial(_hint, service), [mode, panel.task], hint, **QUICK)


def _add(service: Service, text: str, mode: str, task: str, labels: str, history: History) -> tuple[str, str]:
    return "", _add_example(service, text, mode, task, labels, history)


def _add_example(service: Service, text: str, mode: str, task: str, labels: str, history: History) -> str:
    """Show the text at once, with a card that waits for the answer or says what is wrong."""
    text = text or ""
    if not text.strip():
        return _render(history)
    options = chosen(task, labels)
    turn = Turn(_shown(text), mode, options, cards.waiting_card(waiting(service, mode, task)))
    history.turns.append(turn)
    try:
        turn.options["text"] = service.question(text, **options).text
        history.waiting.append(turn)
    except PromptClfError as error:
        turn.card = cards.note_card(str(error))
    return _render(history)


def _answer(service: Service, history: History) -> Iterator[str]:
    """Answer what waits; the conversation is shown anew after every answer."""
    while history.waiting:
        turn = history.waiting.popleft()
        try:
            turn.card = cards.answer_card(service.classify(mode=turn.mode, **turn.options))
        except PromptClfError as error:
            turn.card = cards.note_card(str(error).removeprefix("mode: "))
        except Exception:  # a bug must not leave a card that waits for ever
            logger.exception("no answer")
            turn.card = cards.note_card("Something went wrong; the log of the app says more.")
        yield _render(history)
    yield _render(history)


def _clear(history: History) -> str:
    history.turns.clear()
    history.waiting.clear()
    return _render(history)


def _render(history: History) -> str:
    turns = list(history.turns)
    return cards.thread((turn.text, turn.card) for turn in turns) if turns else cards.empty(WELCOME)


def _hint(service: Service, mode: str, task: str) -> str:
    reason = service.unavailable(mode, None if task == OWN else task)
    return cards.hint(f"{reason}." if reason else HINTS.get(mode, ""))


def _shown(text: str) -> str:
    cut = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
    return cut.encode("utf-8", "replace").decode()
