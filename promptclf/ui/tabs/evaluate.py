"""The Evaluate tab: the modes on rows that none of them has seen, and how sure one can be of the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from promptclf.data import csv_safe
from promptclf.errors import DataError, PromptClfError
from promptclf.evaluation import charts
from promptclf.evaluation.report import Report
from promptclf.jobs.store import Job
from promptclf.modes import MODES
from promptclf.ui.page.context import Context
from promptclf.ui.page.shared import QUICK
from promptclf.ui.tabs.desk import Desk, Scene, Updates
from promptclf.ui.tabs.rows import all_rows, budget, chosen_data, job_line, rows_box, task_name, whole
from promptclf.ui.views import cards
from promptclf.ui.views.report import name_of, report_view
from promptclf.ui.views.work import Events, ended_card, queued_card, since, spent, strip
from promptclf.ui.words import Language, i18n, language_of, say

FILES = ("report.html", "report.json", "predictions.csv")


def evaluate_tab(context: Context) -> None:
    """Build the tab's content."""
    Evaluation(context)


class Evaluation:
    """The tab's components, and what happens to them beside what its desk does."""

    def __init__(self, context: Context) -> None:
        self.context = context
        gr.HTML(f"<style>{charts.SHAPES}</style>", visible="hidden")
        gr.HTML(i18n("evaluate_intro"), elem_classes="pw-intro")
        line = gr.HTML("", elem_id="pc-evaluate-data")
        with gr.Row(elem_classes="pw-settings"):
            modes = gr.CheckboxGroup(
                [(str(i18n(f"mode_{name}")), name) for name in MODES],
                value=list(MODES),
                label=i18n("evaluate_modes"),
                info=i18n("evaluate_modes_info"),
                min_width=260,
                scale=2,
            )
            test_rows = rows_box("evaluate_test_rows", "evaluate_rows_info")
            rows = rows_box("evaluate_rows", "evaluate_learn_info")
        shown = gr.State("")  # the data that the boxes are filled in for
        self.downloads = [
            gr.DownloadButton(
                name, visible=False, scale=0, min_width=140, render=False, elem_classes="pw-file"
            )
            for name in FILES
        ]
        scene = Scene(request_of, self.view, self.files, self.title)
        self.desk = Desk(context, "evaluate", scene, self.downloads)
        token, task = context.token, context.panel.task
        self.desk.connect([task, modes, rows, test_rows], self.downloads)
        gr.on(None, self.data, [token, task, shown], [line, test_rows, rows, shown], **QUICK)

    def data(self, request: gr.Request, token: Any, task: Any, shown: str) -> tuple[Any, ...]:
        """The data that is chosen, and how many rows it has to score and to learn from."""
        line, data = chosen_data(self.context, task, token, language_of(request))
        now = data.fingerprint if data else ""
        counts = (len(data.test), budget(data)) if data else (0, 0)
        boxes = [gr.skip() if now == shown else all_rows(count) for count in counts]
        return line, *boxes, now

    def title(self, job: Job, language: Language) -> str:
        """A comparison in the list of earlier ones."""
        modes = ", ".join(name_of(mode, language) for mode in job.request["modes"])
        return job_line(self.context, job, language, modes)

    def view(self, job: Job | None, events: Events, language: Language) -> str:
        """A comparison: what will be seen here, how far it is, its report, or why there is none."""
        if job is None:
            return cards.empty(say(language, "evaluate_empty"))
        if job.state == "queued":
            return queued_card(events, language)
        name = task_name(self.context, str(job.request["task"]), job.owner, language)
        if job.state == "running":
            return progress_view(job, name, events, language)
        if job.state != "done":
            return ended_card(job, language)
        try:
            folder = self.context.jobs.folder(job.id, job.owner)
            report = Report.from_dict(json.loads((folder / "report.json").read_text(encoding="utf-8")))
            predictions = csv_safe.read_rows((folder / "predictions.csv").read_text(encoding="utf-8"))
        except (PromptClfError, OSError, ValueError):
            return cards.note_card(say(language, "evaluate_lost"))
        return report_view(report, name, language, predictions)

    def files(self, job: Job | None) -> Updates:
        """The files of a finished comparison, copied to where the page may fetch them from."""
        paths: list[str | None] = [None] * len(FILES)
        if job is not None and job.state == "done":
            folder = self.context.jobs.folder(job.id, job.owner)
            files = [(button, folder / name) for button, name in zip(self.downloads, FILES, strict=True)]
            if all(file.is_file() for _, file in files):
                paths = [button.move_resource_to_block_cache(str(file)) for button, file in files]
        return {
            button: gr.DownloadButton(value=path, visible=path is not None)
            for button, path in zip(self.downloads, paths, strict=True)
        }


def request_of(task: Any, modes: Any, rows: Any, test_rows: Any) -> Mapping[str, Any]:
    """The settings as `Jobs.submit` takes them."""
    if not modes:
        raise DataError("modes: expected at least one, got none; choose a mode")
    return {
        "task": task,
        "modes": [mode for mode in MODES if mode in modes],
        "rows": whole(rows),
        "test_rows": whole(test_rows),
    }


def progress_view(job: Job, name: str, events: Events, language: Language) -> str:
    """The runs of a comparison: which are done, which one is at work and with what."""
    at: dict[str, Mapping[str, Any]] = {}  # run -> its newest event
    for event in events:
        if "name" in event:
            at[str(event["name"])] = event
    runs = [*at, *(mode for mode in job.request["modes"] if mode not in at)]
    items, finished, share = "", 0, 0.0
    for run in runs:
        event = at.get(run, {})
        kind = event.get("event")
        over = kind in ("done", "kept")
        finished += over
        share += 1.0 if over else 0.9 * event["step"] / event["steps"] if kind == "step" else 0.0
        state = "done" if over else "going" if event else "waiting"
        items += (
            f'<li class="pw-run-{state}"><b>{escape(name_of(run, language))}</b> '
            f'<span class="pc-meta">{escape(_doing(event, language))}</span></li>'
        )
    facts = [
        (say(language, "work_task"), name),
        (say(language, "evaluate_runs"), f"{finished} / {len(runs)}"),
        (say(language, "work_since"), spent(since(job.started), language)),
    ]
    label = say(language, "evaluate_progress")
    bar = strip(facts, share / max(1, len(runs)), label)
    return f'<section class="pw-work" aria-busy="true">{bar}<ul class="pw-runs">{items}</ul></section>'


def _doing(event: Mapping[str, Any], language: Language) -> str:
    """What a run is at, in words."""
    kind = event.get("event", "waiting")
    if kind == "step":
        left = event["seconds"] / event["step"] * (event["steps"] - event["step"])
        counts = {"step": f"{event['step']:,}", "steps": f"{event['steps']:,}", "left": spent(left, language)}
        return say(language, "evaluate_doing_step", **counts)
    known = ("start", "fit", "epoch", "score", "time", "done", "kept", "waiting")
    rows = f"{event.get('rows', 0):,}"
    return say(language, f"evaluate_doing_{kind}", rows=rows) if kind in known else ""
