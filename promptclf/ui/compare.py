"""The Compare tab: one text, all modes side by side, and whether they agree."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import gradio as gr

from promptclf.errors import PromptClfError
from promptclf.modes import MODES
from promptclf.ui import cards
from promptclf.ui.service import TITLES, Answer, Service, agreement
from promptclf.ui.shared import ANSWERING, EXAMPLES, QUICK, Panel, chosen, text_box, waiting

logger = logging.getLogger(__name__)

WELCOME = "The three answers will stand here side by side."


def compare_tab(service: Service, panel: Panel) -> None:
    """Build the tab's content."""
    first = EXAMPLES.get(str(panel.task.value), ("",))[0]
    with gr.Row(elem_classes=["pc-bar", "pc-ask"]):
        box = text_box(value=first, show_label=False, container=False, lines=2, max_lines=8, scale=1)
        button = gr.Button("Compare", variant="primary", scale=0, min_width=120)
    view = gr.HTML(cards.empty(WELCOME))
    gr.on(
        [button.click, box.submit],
        partial(_compare, service),
        [box, panel.task, panel.labels],
        view,
        **{**ANSWERING, "trigger_mode": "once"},
    )

    def change_task(task: str) -> tuple[str, str]:
        return EXAMPLES.get(task, ("",))[0], cards.empty(WELCOME)

    panel.task.change(change_task, panel.task, [box, view], **QUICK)


def _compare(service: Service, text: str, task: str, labels: str) -> Iterator[str]:
    """Show each answer as soon as it is there."""
    shown = {mode: cards.waiting_card(waiting(service, mode, task), heading=TITLES[mode]) for mode in MODES}
    given: dict[str, Answer] = {}
    try:
        outcomes = service.answers(text or "", **chosen(task, labels))
        yield cards.side_by_side(list(shown.values()), "Comparing…")
        for mode, outcome in outcomes:
            if isinstance(outcome, Answer):
                given[mode] = outcome
                shown[mode] = cards.answer_card(outcome, heading=TITLES[mode])
            else:
                shown[mode] = cards.note_card(str(outcome).removeprefix("mode: "), heading=TITLES[mode])
            yield cards.side_by_side(list(shown.values()), "Comparing…")
        yield cards.side_by_side(list(shown.values()), agreement(given))
    except PromptClfError as error:
        yield cards.note_card(str(error))
    except Exception:  # a bug must not leave cards that wait for ever
        logger.exception("no comparison")
        yield cards.note_card("Something went wrong; the log of the app says more.")
