"""A training on the page: what it will do, how far it is, its curves, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from promptclf.evaluation import charts
from promptclf.evaluation.report_text import percent
from promptclf.jobs.store import Job
from promptclf.ui.core.pace import Pace, Plan
from promptclf.ui.views import cards
from promptclf.ui.views.work import Events, ended_card, queued_card, since, spent, strip
from promptclf.ui.words import Language, say

DRAWN = 150  # points of a line: more cannot be told apart
SMOOTH = 0.9


def plan_card(plan: Plan, asked: int, pace: Pace | None, language: Language) -> str:
    """What a training will do and how long it will take.

    Parameters
    ----------
    plan
        Rows, epochs and steps.
    asked
        The epochs that were asked for.
    pace
        How fast this machine is; None: not measured yet.
    """
    facts = say(
        language,
        "train_plan",
        train=f"{plan.train:,}",
        validation=f"{plan.validation:,}",
        epochs=str(plan.epochs),
        steps=f"{plan.steps:,}",
        batch=str(plan.batch_size),
    )
    lines = [facts]
    if plan.epochs > asked:
        lines.append(say(language, "train_plan_more", asked=str(asked), epochs=str(plan.epochs)))
    if pace is None:
        lines.append(say(language, "train_time_unknown"))
    else:
        key = "train_time_timed" if pace.timed else "train_time_run"
        step = f"{pace.row * plan.batch_size:.2g}"
        lines.append(say(language, key, time=spent(pace.seconds(plan), language), step=step))
    return f'<div class="pw-plan">{"".join(f"<p>{escape(line)}</p>" for line in lines)}</div>'


def training_view(
    job: Job | None, events: Events, name: str, planned: Plan | None, language: Language
) -> str:
    """A training: what will be seen here, how far it is, or what came of it.

    Parameters
    ----------
    job, events
        As in `promptclf.ui.tabs.desk.Scene`.
    name
        What its task is called on the page.
    planned
        What it will do, for the axes before its first step.
    """
    if job is None:
        return cards.empty(say(language, "train_empty"))
    if job.state == "queued":
        return queued_card(events, language)
    steps = {event["step"]: event for event in events if event.get("event") == "step"}
    epochs = {event["epoch"]: event for event in events if event.get("event") == "epoch"}
    total = next((event["steps"] for event in steps.values()), planned.steps if planned else 0)
    pictures = curves(steps, epochs, total, language)
    if job.state == "running":
        head = _progress(job, name, steps, epochs, total, language)
    elif job.state == "done" and job.result:
        head = _result(job.result, name, language)
    else:
        head = ended_card(job, language)
        pictures = pictures if steps else ""
    return f'<section class="pw-work">{head}{pictures}</section>'


def curves(
    steps: Mapping[int, Mapping[str, Any]],
    epochs: Mapping[int, Mapping[str, Any]],
    total: int,
    language: Language,
) -> str:
    """Loss by step and validation macro-F1 by epoch, over the steps of the whole training."""
    losses, level = [], 0.0
    for number, step in enumerate(sorted(steps)):
        loss = float(steps[step]["loss"])
        level = SMOOTH * level + (1 - SMOOTH) * loss
        losses.append((float(step), level / (1 - SMOOTH ** (number + 1))))
    thin = max(1, len(losses) // DRAWN)
    drawn = [*losses[::thin], *losses[-1:]] if thin > 1 else losses
    most = max((loss for _, loss in drawn), default=1.0)
    count = next((event["epochs"] for event in epochs.values()), 1)
    scores = [(total * epoch / count, float(epochs[epoch]["macro_f1"])) for epoch in sorted(epochs)]
    return (
        '<div class="pw-curves">'
        f"{charts.curve_chart(drawn, total, _roof(most), say(language, 'train_curve_loss'))}"
        f"{charts.curve_chart(scores, total, 1.0, say(language, 'train_curve_f1'), percent=True, dots=True)}"
        "</div>"
        f'<p class="pw-legend">{escape(say(language, "train_curve_axis"))}</p>'
    )


def _progress(
    job: Job,
    name: str,
    steps: Mapping[int, Mapping[str, Any]],
    epochs: Mapping[int, Mapping[str, Any]],
    total: int,
    language: Language,
) -> str:
    last = steps[max(steps)] if steps else None
    done = last["step"] if last else 0
    left = "–"
    if last and done > 2:
        left = spent(last["seconds"] / done * (total - done), language)
    best = max((float(event["macro_f1"]) for event in epochs.values()), default=None)
    said = "train_loading" if not steps else "train_cancelling" if job.cancelling else "train_running"
    facts = [
        (say(language, "work_task"), name),
        (say(language, "train_step"), f"{done:,} / {total:,}"),
        (say(language, "train_epochs_done"), str(len(epochs))),
        (say(language, "train_best_f1"), "–" if best is None else f"{percent(best)} %"),
        (say(language, "work_since"), spent(since(job.started), language)),
        (say(language, "train_left"), left),
    ]
    bar = strip(facts, done / total if total else 0.0, say(language, "train_progress"))
    return f'{bar}<p class="pw-legend">{escape(say(language, said))}</p>'


def _result(result: Mapping[str, Any], name: str, language: Language) -> str:
    validation, training = result["validation"], result["training"]
    values = {
        "f1": percent(validation["macro_f1"]),
        "accuracy": percent(validation["accuracy"]),
        "rows": f"{training['validation_rows']:,}",
        "epoch": str(training["best_epoch"]),
        "epochs": str(len(training["history"])),
        "steps": f"{training['steps']:,}",
        "train": f"{training['rows']:,}",
        "time": spent(60 * training["minutes"], language),
        "model": str(result["model"]["name"]),
    }
    use = escape(say(language, "train_use"))
    facts = " · ".join(say(language, key, **values) for key in ("train_result_rows", "train_result_time"))
    return (
        f'<article class="pc-card"><p class="pc-heading">{escape(say(language, "train_done", name=name))}</p>'
        f"<h2>{escape(say(language, 'train_result', **values))}</h2>"
        f'<p class="pc-meta">{escape(facts)}</p>'
        f'<p class="pc-meta">{escape(say(language, "train_result_note"))}</p>'
        f'<button type="button" class="pc-do" data-act="use">{use}</button></article>'
    )


def _roof(most: float) -> float:
    """A round number above the highest loss; it stays when the loss moves a little."""
    unit = 10.0 ** math.floor(math.log10(max(most, 1e-6)))
    return next(roof * unit for roof in (1, 2, 4, 6, 8, 10) if most <= roof * unit)
