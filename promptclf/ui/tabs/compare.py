"""The Compare tab: one text, all modes side by side, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from promptclf.modes import MODES
from promptclf.ui.core.answer import Answer, agreement
from promptclf.ui.page.context import Context
from promptclf.ui.page.shared import (
    ANSWERING,
    QUICK,
    chosen,
    examples,
    source_of,
    text_box,
    trouble,
    waiting,
)
from promptclf.ui.tabs.files import file_part
from promptclf.ui.views import cards
from promptclf.ui.words import i18n, language_of, say


class Compare:
    """Handlers of the tab's events."""

    def __init__(self, context: Context) -> None:
        self.service = context.service

    def answers(
        self, text: str, task: str, labels: str, adapter: str | None, token: Any, request: gr.Request
    ) -> Iterator[str]:
        """Show each answer as soon as it is there."""
        language = language_of(request)
        titles = {mode: say(language, f"mode_{mode}") for mode in MODES}
        given: dict[str, Answer] = {}
        try:
            options = chosen(self.service, task, labels, adapter, token)
            source = source_of(options)
            count = len(self.service.question(text or "", **options).task.labels)
            outcomes = self.service.answers(text, **options)
            shown = {
                mode: cards.waiting_card(
                    waiting(self.service, mode, source, language), heading=title, labels=count
                )
                for mode, title in titles.items()
            }
            comparing = say(language, "compare_waiting")
            yield cards.side_by_side(list(shown.values()), comparing)
            for mode, outcome in outcomes:
                if isinstance(outcome, Answer):
                    given[mode] = outcome
                    shown[mode] = cards.answer_card(outcome, language, heading=titles[mode])
                else:
                    reason = self.service.unavailable(mode, source, language)
                    shown[mode] = cards.note_card(reason or trouble(outcome, language), heading=titles[mode])
                yield cards.side_by_side(list(shown.values()), comparing)
            sentence = agreement({mode: answer.label for mode, answer in given.items()}, language)
            yield cards.side_by_side(list(shown.values()), sentence)
        except Exception as error:  # a bug must not leave cards that wait for ever
            yield cards.note_card(trouble(error, language))

    def change_task(self, task: str, token: Any) -> tuple[str, str]:
        """An example of the task, and no answers to another one's."""
        return next(iter(examples(self.service, task, token)), ""), _welcome()


def compare_tab(context: Context) -> None:
    """Build the tab's content."""
    compare, panel, token = Compare(context), context.panel, context.token
    first = next(iter(examples(context.service, str(panel.task.value), None)), "")
    with gr.Column(elem_id="pc-compare"):
        with gr.Row(elem_classes=["pc-bar", "pc-ask"]):
            box = text_box(value=first, show_label=False, container=False, lines=2, max_lines=8, scale=1)
            button = gr.Button(i18n("compare_do"), variant="primary", scale=0, min_width=120)
        view = gr.HTML(_welcome(), elem_id="pc-sides")
        with gr.Accordion(i18n("compare_many"), open=False, elem_classes="pc-fold"):
            file_part(context, all_modes=True)
    gr.on(
        [button.click, box.submit],
        compare.answers,
        [box, *panel.chosen, token],
        view,
        **{**ANSWERING, "trigger_mode": "once"},
    )
    panel.task.change(compare.change_task, [panel.task, token], [box, view], **QUICK)


def _welcome() -> str:
    return f'<p class="pc-empty">{i18n("compare_welcome")}</p>'
