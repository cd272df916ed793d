"""What a visitor has reported as wrong: listed, and deleted again."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from promptclf.ui.core.conversation import shown
from promptclf.ui.core.visitor import owner, owner_or_none
from promptclf.ui.core.zerogpu import feedback_is_lost
from promptclf.ui.page.context import Context
from promptclf.ui.page.shared import QUICK, trouble
from promptclf.ui.views import cards
from promptclf.ui.words import Language, language_of, say

BUTTONS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-key]");
  if (button) trigger("click", { key: button.dataset.key });
});
"""


class Feedback:
    """Handlers of the list's events."""

    def __init__(self, context: Context) -> None:
        self.store = context.store

    def show(self, token: Any, request: gr.Request) -> str:
        """The visitor's reports, newest first."""
        return self._list(token, language_of(request))

    def delete(self, token: Any, event: gr.EventData, request: gr.Request) -> str:
        """Delete the report whose button was pressed."""
        language = language_of(request)
        key = event._data.get("key") if isinstance(event._data, dict) else None
        try:
            if isinstance(key, str):
                self.store.delete_feedback(key, owner(token))
            return self._list(token, language)
        except Exception as error:
            return cards.error(trouble(error, language))

    def _list(self, token: Any, language: Language) -> str:
        who = owner_or_none(token)
        rows = self.store.feedback(who) if who else []
        lost = cards.hint(say(language, "wrong_lost")) if feedback_is_lost() else ""
        if not rows:
            return lost + cards.hint(say(language, "feedback_none"))
        items = "".join(
            f'<li><p dir="auto">{escape(shown(row["text"]))}</p><p class="pc-meta" dir="auto">'
            f"{escape(say(language, 'feedback_row', predicted=row['predicted'], label=row['label']))} · "
            f"{escape(row['created'][:10])} "
            f'<button type="button" class="pc-act" data-key="{escape(row["key"])}">'
            f"{escape(say(language, 'wrong_delete'))}</button></p></li>"
            for row in rows
        )
        return f'{lost}<ul class="pc-list">{items}</ul>'


def feedback_list(context: Context, fold: gr.Accordion) -> None:
    """Place the list; it is read when `fold` is opened."""
    feedback = Feedback(context)
    view = gr.HTML("", js_on_load=BUTTONS)
    fold.expand(feedback.show, context.token, view, **QUICK)
    view.click(feedback.delete, context.token, view, **QUICK)
