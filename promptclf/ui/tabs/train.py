"""The Train tab: a LoRA adapter on the rows of the task, in a process that outlives the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from promptclf.data.dataset import Dataset
from promptclf.errors import DataError
from promptclf.evaluation import charts
from promptclf.evaluation.report_text import percent
from promptclf.jobs.store import Job
from promptclf.schema import MAX_EPOCHS, TrainRequest, parse
from promptclf.ui.core.pace import Pace, Plan, Stopwatch, make_plan, pace_of
from promptclf.ui.core.ready import Source
from promptclf.ui.core.visitor import owner_or_none
from promptclf.ui.page.context import Context
from promptclf.ui.page.panel import OWN, unchecked, use_adapter
from promptclf.ui.page.shared import ANSWERING, QUICK, trouble
from promptclf.ui.tabs.desk import LISTED, Desk, Scene, Updates
from promptclf.ui.tabs.rows import (
    all_rows,
    budget,
    chosen_data,
    data_of,
    job_line,
    rows_box,
    task_name,
    whole,
)
from promptclf.ui.views import cards
from promptclf.ui.views.training import plan_card, training_view
from promptclf.ui.views.work import Events
from promptclf.ui.words import Language, i18n, language_of, say

RANKS, BATCHES = (4, 8, 16, 32), (4, 8, 16, 32)
MEASURING: dict[str, Any] = {
    **ANSWERING,
    "concurrency_id": "measuring",
    "concurrency_limit": 1,
    "trigger_mode": "once",
}


def train_tab(context: Context) -> None:
    """Build the tab's content."""
    Training(context)


class Training:
    """The tab's components, and what happens to them beside what its desk does."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.stopwatch = Stopwatch(context.jobs.model, context.jobs.quantization)
        gr.HTML(f"<style>{charts.SHAPES}</style>", visible="hidden")
        gr.HTML(i18n("train_intro"), elem_classes="pw-intro")
        line = gr.HTML("", elem_id="pc-train-data")
        with gr.Row(elem_classes="pw-settings"):
            rows = rows_box("train_rows", "train_rows_info")
            epochs = gr.Number(
                3, precision=0, minimum=1, maximum=MAX_EPOCHS, min_width=170, **_words("train_epochs")
            )
            rate = gr.Number(
                1e-3, minimum=1e-6, maximum=0.1, step=1e-4, min_width=170, **_words("train_rate")
            )
        with gr.Accordion(i18n("train_more"), open=False), gr.Row(elem_classes="pw-settings"):
            rank = gr.Dropdown(list(RANKS), value=8, min_width=150, **_words("train_rank"))
            batch = gr.Dropdown(list(BATCHES), value=8, min_width=150, **_words("train_batch"))
            seed = gr.Number(0, precision=0, minimum=0, min_width=150, **_words("train_seed"))
        for number in (epochs, rate, seed):
            unchecked(number)  # the plan says what is wrong with it
        with gr.Row(elem_classes="pw-plan-row"):
            plan = gr.HTML("", elem_id="pc-train-plan")
            measure = gr.Button(i18n("train_measure"), size="sm", scale=0, min_width=150, visible=False)
        shown = gr.State("")  # the data that `rows` is filled in for
        self.ended = gr.State("")  # the job that is shown and its state: the next one may be planned better
        scene = Scene(request_of, self.view, self.follow, self.title)
        self.desk = Desk(context, "train", scene)
        token, panel = context.token, context.panel
        settings = [panel.task, rows, epochs, rate, rank, batch, seed]
        self.desk.connect(settings, [self.ended])
        gr.on(None, self.data, [token, panel.task, shown], [line, rows, shown], **QUICK)
        gr.on(None, self.plan, [token, *settings], [plan, measure], **QUICK)
        self.ended.change(self.plan, [token, *settings], [plan, measure], **QUICK)
        measure.click(self.measure, [token, *settings], [plan, measure], **MEASURING)
        adopting = [panel.task, panel.mode, panel.adapter, self.desk.problem]
        self.desk.view.click(self.adopt, [token, self.desk.shown], adopting, **QUICK)

    def data(self, request: gr.Request, token: Any, task: Any, shown: str) -> tuple[str, Any, str]:
        """The data that is chosen, and how many rows it has to learn from."""
        line, data = chosen_data(self.context, task, token, language_of(request))
        now = data.fingerprint if data else ""
        return line, gr.skip() if now == shown else all_rows(budget(data) if data else 0), now

    def plan(self, request: gr.Request, token: Any, *values: Any) -> tuple[str, Any]:
        """What a training with these settings will do."""
        data = data_of(self.context, values[0], token)
        return self._plan(data, token, values, language_of(request))

    def measure(self, request: gr.Request, token: Any, *values: Any) -> Any:
        """Time a few steps, and say then how long a training will take."""
        language = language_of(request)
        data = data_of(self.context, values[0], token)
        if data is None:
            yield gr.skip(), gr.skip()
            return
        yield cards.hint(say(language, "train_measuring")), gr.Button(interactive=False)
        try:
            if any(job.state == "running" for job in self.context.store.unfinished()):
                raise DataError(say(language, "train_measure_busy"))
            self.stopwatch.measure(data, parse(TrainRequest, **request_of(*values)))
        except Exception as error:
            yield cards.error(trouble(error, language)), gr.Button(interactive=True)
            return
        yield self._plan(data, token, values, language)

    def adopt(self, request: gr.Request, token: Any, job_id: str) -> tuple[Any, ...]:
        """Let the adapter of the training that is shown answer in the other tabs."""
        language = language_of(request)
        try:
            updates = use_adapter(self.context, token, job_id, language)
        except Exception as error:
            return gr.skip(), gr.skip(), gr.skip(), cards.error(trouble(error, language))
        return *updates, cards.hint(say(language, "train_used"))

    def follow(self, job: Job | None) -> Updates:
        """What else is to know which job is shown."""
        return {self.ended: f"{job.id} {job.state}" if job else ""}

    def title(self, job: Job, language: Language) -> str:
        """A training in the list of earlier ones."""
        return job_line(self.context, job, language, outcome(job, language))

    def view(self, job: Job | None, events: Events, language: Language) -> str:
        """A training as HTML."""
        name = task_name(self.context, str(job.request["task"]), job.owner, language) if job else ""
        return training_view(job, events, name, self._planned(job), language)

    def _planned(self, job: Job | None) -> Plan | None:
        """What a job will do, while it has not said so itself."""
        if job is None or job.over:
            return None
        try:
            data = self.context.service.ready.dataset(Source(str(job.request["task"]), job.owner))
            known = {name: job.request[name] for name in TrainRequest.model_fields if name in job.request}
            return make_plan(data, TrainRequest(**known))
        except (DataError, ValueError):
            return None

    def _plan(
        self, data: Dataset | None, token: Any, values: tuple[Any, ...], language: Language
    ) -> tuple[str, Any]:
        if data is None:
            return "", gr.Button(visible=False)
        try:
            asked = parse(TrainRequest, **request_of(*values))
            plan = make_plan(data, asked)
        except Exception as error:
            return cards.error(trouble(error, language)), gr.Button(visible=False)
        pace = self._pace(data, str(values[0]), token)
        button = gr.Button(i18n("train_measure"), visible=pace is None, interactive=True)
        return plan_card(plan, asked.epochs, pace, language), button

    def _pace(self, data: Dataset, task: str, token: Any) -> Pace | None:
        """By the visitor's newest run on the data, or by steps that were timed."""
        owner = owner_or_none(token)
        for job in self.context.store.jobs(owner, "train", LISTED) if owner else []:
            if job.request["task"] == task:
                events = [event for _, event in self.context.store.events(job.id)]
                if pace := pace_of(job, events):
                    return pace
        return self.stopwatch.known(data)


def request_of(
    task: Any, rows: Any, epochs: Any, rate: Any, rank: Any, batch: Any, seed: Any
) -> Mapping[str, Any]:
    """The settings as `Jobs.submit` takes them."""
    if task == OWN:
        raise DataError("task: expected one with rows, got labels of your own; choose a task or upload data")
    numbers = {"epochs": epochs, "rank": rank, "batch_size": batch, "seed": seed}
    given = {name: whole(value) for name, value in numbers.items() if value is not None}
    rate = {} if rate is None else {"learning_rate": rate}
    return {"task": task, "rows": whole(rows), **given, **rate}


def outcome(job: Job, language: Language) -> str:
    """What came of a training, in a few words."""
    if not job.result:
        return ""
    return say(language, "train_outcome", f1=percent(job.result["validation"]["macro_f1"]))


def _words(key: str) -> dict[str, Any]:
    return {"label": i18n(key), "info": i18n(f"{key}_info")}
