"""The Classify tab: a conversation in which every answer is a card."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from promptclf.ui.core.conversation import History, Turn
from promptclf.ui.core.visitor import owner
from promptclf.ui.core.zerogpu import feedback_is_lost
from promptclf.ui.page.context import Context
from promptclf.ui.page.shared import ANSWERING, QUICK, chosen, examples, text_box, trouble, waiting
from promptclf.ui.tabs.feedback import feedback_list
from promptclf.ui.tabs.files import file_part
from promptclf.ui.views.thread import render
from promptclf.ui.words import Language, i18n, language_of, say

SCRIPT = Path(__file__).parents[1] / "assets/thread.js"
FORGOTTEN_AFTER = 3600  # seconds without a visit
CHIPS = """
element.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-number]");
  if (chip) trigger("click", { number: Number(chip.dataset.number) });
});
"""
# The box is emptied before the answer comes: a visitor who types on keeps every letter. An example that
# was asked by its button takes the one in the box with it.
EMPTY = """
(...values) => {
  const box = document.querySelector("#pc-box textarea");
  if (IF) {
    box.value = "";
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }
  return values;
}
"""
EMPTY_SENT = EMPTY.replace("IF", "box.value.trim()")
EMPTY_FIRST = EMPTY.replace("IF", 'document.querySelector("#pc-thread .pc-empty")')
# The first example stands in the box: typing replaces it.
SELECT = """
() => document.querySelector("#pc-thread .pc-empty") && document.querySelector("#pc-box textarea").select()
"""


class Chat:
    """Handlers of the tab's events."""

    def __init__(self, context: Context) -> None:
        self.service, self.store = context.service, context.store

    def ask(
        self,
        text: str,
        mode: str,
        task: str,
        labels: str,
        adapter: str | None,
        token: Any,
        history: History,
        request: gr.Request,
    ) -> tuple[Any, str]:
        """Show the text at once, with a card that waits for the answer or says what is wrong."""
        language, text = language_of(request), text or ""
        if not text.strip():
            return gr.Textbox(), self._view(history, language)
        turn = history.add(text, mode)
        try:
            options = chosen(self.service, task, labels, adapter, token)
            turn.question = self.service.question(text, mode, **options)
            turn.task = str(options.get("task", "own"))
            history.waiting.append(turn)
        except Exception as error:  # a bug must not leave a card that waits for ever
            turn.note = trouble(error, language)
        running = bool(history.waiting)
        box = gr.Textbox(submit_btn=not running, stop_btn=running)
        return box, self._view(history, language)

    def try_example(
        self,
        mode: str,
        task: str,
        labels: str,
        adapter: str | None,
        token: Any,
        history: History,
        event: gr.EventData,
        request: gr.Request,
    ) -> tuple[Any, str]:
        """Ask one of the examples."""
        texts = examples(self.service, task, token)
        number = event._data.get("number") if isinstance(event._data, dict) else None
        text = texts[number] if isinstance(number, int) and 0 <= number < len(texts) else ""
        return self.ask(text, mode, task, labels, adapter, token, history, request)

    def answer(self, history: History, request: gr.Request) -> Iterator[tuple[Any, str]]:
        """Answer what waits; the conversation is shown anew after every answer."""
        language = language_of(request)
        while history.waiting:
            turn = history.waiting.popleft()
            try:
                assert turn.question is not None
                answer = self.service.answer(turn.question, turn.mode)
            except Exception as error:
                if turn.waits:
                    turn.note = trouble(error, language)
            else:
                if turn.waits:  # else it was stopped meanwhile
                    turn.answer = answer
            yield gr.Textbox(), self._view(history, language)
        yield gr.Textbox(submit_btn=True, stop_btn=False), self._view(history, language)

    def stop(self, history: History, request: gr.Request) -> tuple[Any, str]:
        """Give up on what waits."""
        language = language_of(request)
        history.stop(say(language, "card_stopped"))
        return gr.Textbox(submit_btn=True, stop_btn=False), self._view(history, language)

    def clear(self, history: History, request: gr.Request) -> tuple[Any, str]:
        """An empty conversation."""
        history.clear()
        return gr.Textbox(submit_btn=True, stop_btn=False), self._view(history, language_of(request))

    def act(self, history: History, token: Any, event: gr.EventData, request: gr.Request) -> Iterator[str]:
        """Do what a button of a card is for."""
        language = language_of(request)
        data = event._data if isinstance(event._data, dict) else {}
        turn = history.find(data.get("turn"))
        act = data.get("act")
        if turn is not None and turn.answer is not None:
            turn.trouble = ""
            if act in ("why", "wrong"):
                turn.opened = "" if turn.opened == act else str(act)
                turn.key = turn.key or uuid.uuid4().hex
                yield self._view(history, language)
                if turn.opened == "why" and turn.why is None:
                    self._explain(turn, language)
            elif act in ("save", "unsave"):
                try:
                    (self._save if act == "save" else self._delete)(turn, data.get("label"), token)
                except Exception as error:
                    turn.trouble = trouble(error, language)
        yield self._view(history, language)

    def change_task(self, text: str, offered: str, task: str, token: Any) -> tuple[str, Any, str]:
        """The task's examples; the first of them is offered as a text, where none of one's own is written."""
        first = next(iter(examples(self.service, task, token)), "")
        box = gr.Textbox(first) if text and text == offered else gr.Textbox()
        return self.chips(task, token), box, first

    def chips(self, task: str, token: Any) -> str:
        """Buttons with examples for a task."""
        texts = examples(self.service, task, token)
        return "".join(
            f'<button type="button" class="pc-chip" data-number="{number}" dir="auto">{escape(text)}</button>'
            for number, text in enumerate(texts)
        )

    def _explain(self, turn: Turn, language: Language) -> None:
        assert turn.question is not None and turn.answer is not None
        try:
            turn.why = self.service.explain(turn.question, turn.mode, turn.answer.label)
        except Exception as error:
            turn.why = trouble(error, language)

    def _save(self, turn: Turn, label: Any, token: Any) -> None:
        """Store a correction; the card says so only when this returns."""
        assert turn.question is not None and turn.answer is not None
        if label not in turn.answer.probabilities:  # what the page sends may be anything
            return
        self.store.save_feedback(
            owner(token),
            key=turn.key,
            text=turn.question.text,
            task=turn.task,
            mode=turn.mode,
            predicted=turn.answer.label,
            label=label,
            model=turn.answer.model,
        )
        turn.saved = label

    def _delete(self, turn: Turn, label: Any, token: Any) -> None:
        self.store.delete_feedback(turn.key, owner(token))
        turn.saved, turn.key = None, uuid.uuid4().hex

    def _view(self, history: History, language: Language) -> str:
        first = next((turn for turn in history.turns if turn.waits and turn.question), None)
        source = first.question.source if first and first.question else None
        loading = waiting(self.service, first.mode, source, language) if first else ""
        return render(history, language, loading=loading, lost=feedback_is_lost())


def classify_tab(context: Context) -> None:
    """Build the tab's content."""
    chat, panel, token = Chat(context), context.panel, context.token
    history = gr.State(History(), time_to_live=FORGOTTEN_AFTER)
    task = str(panel.task.value)
    first = next(iter(examples(context.service, task, None)), "")
    offered = gr.State(first)
    with gr.Column(elem_id="pc-classify", elem_classes="pc-narrow"):
        view = gr.HTML(
            f'<p class="pc-empty">{i18n("classify_welcome")}</p>',
            elem_id="pc-thread",
            js_on_load=SCRIPT.read_text(encoding="utf-8"),
        )
        with gr.Column(elem_id="pc-ask"):
            chips = gr.HTML(chat.chips(task, None), elem_id="pc-chips", js_on_load=CHIPS)
            box = text_box(
                value=first,
                show_label=False,
                container=False,
                lines=1,
                max_lines=6,
                submit_btn=True,
                elem_id="pc-box",
            )
            with gr.Row(elem_classes="pc-bar"):
                gr.HTML(i18n("classify_keys"), elem_classes="pc-keys")
                clear = gr.Button(i18n("do_clear"), size="sm", variant="secondary", elem_classes="pc-fine")
        with gr.Accordion(i18n("classify_many"), open=False, elem_classes="pc-fold"):
            file_part(context, all_modes=False)
        with gr.Accordion(i18n("feedback_title"), open=False, elem_classes="pc-fold") as kept:
            feedback_list(context, kept)
    asked = [
        box.submit(
            chat.ask, [box, panel.mode, *panel.chosen, token, history], [box, view], js=EMPTY_SENT, **QUICK
        ),
        chips.click(
            chat.try_example,
            [panel.mode, *panel.chosen, token, history],
            [box, view],
            js=EMPTY_FIRST,
            **QUICK,
        ),
    ]
    answers = [event.then(chat.answer, history, [box, view], **ANSWERING) for event in asked]
    box.stop(chat.stop, history, [box, view], cancels=answers, **QUICK)
    box.focus(None, js=SELECT, **QUICK)
    clear.click(chat.clear, history, [box, view], cancels=answers, **QUICK)
    view.click(chat.act, [history, token], view, **ANSWERING)
    panel.task.change(chat.change_task, [box, offered, panel.task, token], [chips, box, offered], **QUICK)
