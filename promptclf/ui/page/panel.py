"""The panel beside the tabs: task, labels, mode, adapter, and the model in use."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from promptclf.errors import PromptClfError
from promptclf.jobs.store import Job, Store
from promptclf.modes import MODES
from promptclf.task import packaged_tasks
from promptclf.ui.core.ready import Source
from promptclf.ui.core.service import Service
from promptclf.ui.core.visitor import owner, owner_or_none
from promptclf.ui.views import cards
from promptclf.ui.words import Language, i18n, say

if TYPE_CHECKING:
    from promptclf.ui.page.context import Context

OWN = "own"
OWN_LABELS = ("positive", "negative")
RESTORE = """
element.addEventListener("click", (event) => {
  if (event.target.closest("[data-act]")) trigger("click");
});
"""
TOGGLE = """
const panel = document.getElementById("pc-panel");
const draw = () =>
  element.querySelector("button")?.setAttribute("aria-expanded", panel.classList.contains("pc-open"));
element.addEventListener("click", (event) => {
  if (!event.target.closest("button")) return;
  panel.classList.toggle("pc-open");
  draw();
});
watch("value", draw);
"""


@dataclass(frozen=True)
class Panel:
    """The components that tabs share; `choose_task` and `use_adapter` give updates of them.

    Parameters
    ----------
    task
        The value is a packaged task's name, the id of a data set of the visitor, or `OWN`.
    labels
        One label a line. Differing from the task's, they are labels of one's own.
    mode
        "zero-shot", "few-shot" or "lora".
    adapter
        "" for the task's usual adapter, or the id of a finished training of the visitor.
    status, note, summary, model
        HTML about the labels, about the mode, about all of it in a line (shown on small screens, where it
        opens the panel), and about the model.
    """

    task: gr.Dropdown
    labels: gr.Textbox
    mode: gr.Radio
    adapter: gr.Dropdown
    status: gr.HTML
    note: gr.HTML
    summary: gr.HTML
    model: gr.HTML

    @property
    def chosen(self) -> list[Any]:
        """The inputs of a handler that answers: task, labels and adapter."""
        return [self.task, self.labels, self.adapter]


def build_panel(service: Service) -> Panel:
    """Place the components; `promptclf.ui.page.choices.connect` has them follow each other."""
    first = next(iter(packaged_tasks()), OWN)
    source = None if first == OWN else Source(first)
    labels = OWN_LABELS if source is None else service.ready.task(source).labels
    gr.HTML('<header class="pc-header"><h1>promptclf</h1></header>')
    gr.HTML(i18n("page_tagline"), elem_classes="pc-tagline")
    summary = gr.HTML(_toggle(str(i18n("panel_settings"))), elem_id="pc-summary", js_on_load=TOGGLE)
    with gr.Column(elem_id="pc-settings"):
        task = gr.Dropdown(
            [*packaged_choices(), (str(i18n("panel_own")), OWN)],
            value=first,
            label=i18n("panel_task"),
            filterable=False,
            interactive=True,
            elem_id="pc-task",
        )
        with gr.Column(elem_classes="pc-group pc-group-labels"):
            box = gr.Textbox(
                "\n".join(labels),
                label=i18n("panel_labels"),
                lines=5,
                max_lines=5,
                interactive=True,
                autoscroll=False,
                elem_id="pc-labels",
            )
            status = gr.HTML("", elem_id="pc-status", js_on_load=RESTORE)
        with gr.Column(elem_classes="pc-group pc-group-mode"):
            radio = gr.Radio(
                [(str(i18n(f"option_{name}")), name) for name in MODES],
                value="zero-shot" if service.unavailable("lora", source) else "lora",
                label=i18n("panel_mode"),
                elem_id="pc-mode",
            )
            note = gr.HTML("")
            adapter = gr.Dropdown(
                [(str(i18n("panel_packaged")), "")],
                value="",
                label=i18n("panel_adapter"),
                filterable=False,
                interactive=True,
                visible=False,
                elem_id="pc-adapter",
            )
    for choice in (task, adapter):
        unchecked(choice)
    shown = gr.HTML(cards.model_line(service.model_words), elem_id="pc-model")
    return Panel(task, box, radio, adapter, status, note, summary, shown)


def unchecked(component: Any) -> None:
    """Have a component pass on any choice: gradio forgets with the session what a visitor could choose from.

    Handlers check what comes. (A subclass would do, but gradio writes a file beside the code for each.)
    """
    vars(component).update(preprocess=lambda payload: payload)


def packaged_choices() -> list[tuple[str, str]]:
    """Packaged tasks with names for people."""
    return [(name.replace("_", " ").capitalize(), name) for name in packaged_tasks()]


def task_choices(store: Store, owner: str | None, language: Language) -> list[tuple[str, str]]:
    """All tasks that a visitor can choose: packaged ones, data sets of the visitor's, own labels."""
    own = store.datasets(owner) if owner else []
    names = [(f"{stored.name} ({sum(stored.rows.values()):,})", stored.id) for stored in own]
    return [*packaged_choices(), *names, (say(language, "panel_own"), OWN)]


def adapter_choices(service: Service, source: Source, language: Language) -> list[tuple[str, str]]:
    """The adapters for a task: the packaged one, and the visitor's finished trainings, newest first."""
    has_own = service.ready.has_adapter(Source(source.name)) if source.packaged else False
    first = [(say(language, "panel_packaged"), "")] if has_own else []
    trained = service.ready.trainings(source)
    return [*first, *((say(language, "panel_trained", when=_when(job)), job.id) for job in trained)]


def summary_line(task: str, mode: str, labels: int, language: Language) -> str:
    """The choices in a line; what does nothing on a tab is left out there by the style sheet."""
    shown = (
        f'<span dir="auto">{escape(task)}</span>'
        f'<span class="pc-of-mode">{escape(say(language, f"mode_{mode}"))}</span>'
        f'<span class="pc-of-labels">{escape(say(language, "panel_short", count=labels))}</span>'
    )
    return _toggle(shown)


def task_name(store: Store, task: str, owner: str | None, language: Language) -> str:
    """What a choice of the task is called."""
    names = {value: name for name, value in task_choices(store, owner, language)}
    return names.get(task, task)


def choose_task(context: Context, token: Any, task: str, language: Language) -> Any:
    """An update of ``panel.task``: what there is to choose by now, and `task` chosen.

    A task that is gone gives way to the first one.
    """
    choices = task_choices(context.store, owner_or_none(token), language)
    return gr.Dropdown(choices, value=task if task in {v for _, v in choices} else choices[0][1])


def use_adapter(context: Context, token: Any, job: str, language: Language) -> tuple[Any, Any, Any]:
    """Updates of ``panel.task``, ``panel.mode`` and ``panel.adapter`` that put a trained adapter to use.

    Raises
    ------
    PromptClfError
        If it is no finished training of the visitor.
    """
    task = str(context.jobs.job(job, owner(token)).request["task"])
    choices = adapter_choices(context.service, Source(task, owner(token)), language)
    if job not in {value for _, value in choices}:
        raise PromptClfError("job: expected a finished training, got another; wait until it has ended")
    return choose_task(context, token, task, language), "lora", gr.Dropdown(choices, value=job, visible=True)


def _toggle(html: str) -> str:
    return f'<button type="button" aria-expanded="false" aria-controls="pc-settings">{html}</button>'


def _when(job: Job) -> str:
    return job.created[:16].replace("T", " ")
