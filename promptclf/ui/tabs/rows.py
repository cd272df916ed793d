"""What long work runs on: the rows of the task, how many of them, and a line for each earlier run."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from promptclf.data.dataset import Dataset
from promptclf.errors import PromptClfError
from promptclf.jobs.store import Job
from promptclf.schema import MAX_ROWS
from promptclf.ui.core.ready import Source
from promptclf.ui.core.visitor import owner_or_none
from promptclf.ui.page.context import Context
from promptclf.ui.page.panel import OWN, packaged_choices, unchecked
from promptclf.ui.views import cards
from promptclf.ui.views.work import when
from promptclf.ui.words import Language, i18n, say


def data_of(context: Context, task: Any, token: Any) -> Dataset | None:
    """The rows of the task that is chosen in the panel; None: it has none, or they are gone."""
    if not isinstance(task, str) or task == OWN:
        return None
    try:
        return context.service.ready.dataset(Source(task, owner_or_none(token)))
    except PromptClfError:
        return None


def chosen_data(context: Context, task: Any, token: Any, language: Language) -> tuple[str, Dataset | None]:
    """What the work will run on, in a line, or where to get rows from; and the rows."""
    data = data_of(context, task, token)
    if data is None:
        return cards.hint(say(language, "work_no_data")), None
    counts = {split: f"{len(rows):,}" for split, rows in data.splits.items()}
    facts = say(language, "work_data", labels=str(len(data.task.labels)), **counts)
    name = task_name(context, str(task), owner_or_none(token), language)
    meta = f'<span class="pc-meta">{escape(facts)}</span>'
    return f'<p class="pw-data" dir="auto"><b>{escape(name)}</b> {meta}</p>', data


def budget(data: Dataset) -> int:
    """All labelled rows to learn from, as `Dataset.limit` counts them."""
    return len(data.train) + (0 if data.validation_from_source else len(data.validation))


def rows_box(label: str, info: str) -> gr.Number:
    """How many rows to take; `all_rows` fills it in."""
    box = gr.Number(
        MAX_ROWS,
        label=i18n(label),
        info=i18n(info),
        precision=0,
        minimum=2,
        maximum=MAX_ROWS,
        min_width=170,
        interactive=True,
    )
    unchecked(box)
    return box


def whole(value: Any) -> Any:
    """A number as a page sends it, as an integer where it is one; requests refuse all else."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def all_rows(count: int) -> Any:
    """An update of a `rows_box`: all there are, to be lowered."""
    return gr.Number(value=max(2, count), interactive=count > 0)


def task_name(context: Context, task: str, owner: str | None, language: Language) -> str:
    """What a task or data set is called on the page."""
    packaged = {name: title for title, name in packaged_choices()}
    if task in packaged:
        return packaged[task]
    try:
        return context.store.stored(task, owner or "").name
    except PromptClfError:
        return say(language, "work_data_gone")


def job_line(context: Context, job: Job, language: Language, outcome: str = "") -> str:
    """A job in the list of earlier ones: when, on what, and what came of it."""
    name = task_name(context, str(job.request["task"]), job.owner, language)
    state = outcome if job.state == "done" and outcome else say(language, f"work_state_{job.state}")
    return " · ".join([when(job.created), name, state])
