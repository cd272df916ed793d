"""A job on the page, for Evaluate and Train: started, watched, cancelled, and found again after a reload.

The job lives in the store and is done by a process of its own; the page only looks at it once a second.
A tab shows the newest job of the visitor, or one that was chosen from the list of earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from promptclf.jobs.store import Job, Kind
from promptclf.ui.core.visitor import owner, owner_or_none
from promptclf.ui.page.context import Context
from promptclf.ui.page.panel import unchecked
from promptclf.ui.page.shared import QUICK, trouble
from promptclf.ui.views import cards
from promptclf.ui.views.work import Events
from promptclf.ui.words import Language, i18n, language_of

POLL = 1.0  # seconds between two looks
LISTED = 20
STARTING: dict[str, Any] = {**QUICK, "trigger_mode": "once"}  # a double click starts one job

# A button of the picture is a click on it.
BUTTONS = """
element.addEventListener("click", (event) => {
  if (event.target.closest("[data-act]")) trigger("click");
});
"""

Updates = dict[Any, Any]  # component -> its update; those that are not named stay as they are


@dataclass(frozen=True)
class Scene:
    """What a tab makes of its jobs.

    Parameters
    ----------
    request
        The values of the settings -> the request of `Jobs.submit`.
    view
        A job with its events as HTML; None: what stands there before the first one. The last event of a
        job that waits is "queued", with the number of those "ahead".
    extras
        Updates of the tab's own components for a job.
    title
        A job in a line, for the list of earlier ones.
    """

    request: Callable[..., Mapping[str, Any]]
    view: Callable[[Job | None, Events, Language], str]
    extras: Callable[[Job | None], Updates]
    title: Callable[[Job, Language], str]


class Desk:
    """The components that follow a tab's settings, and what happens to them.

    Parameters
    ----------
    context
        Of the app.
    kind
        Of the jobs; the keys of the words begin with it.
    scene
        What the tab makes of them.
    actions
        Buttons of the tab that are to stand beside those of the desk, not yet rendered.
    """

    def __init__(self, context: Context, kind: Kind, scene: Scene, actions: Sequence[Any] = ()) -> None:
        self.context, self.kind, self.scene = context, kind, scene
        self.shown, self.seen = gr.State(""), gr.State("")
        self.timer = gr.Timer(POLL, active=False)
        with gr.Row(elem_classes="pw-actions"):
            self.start = gr.Button(
                i18n(f"{kind}_start"), variant="primary", scale=0, min_width=150, elem_id=f"pc-{kind}-start"
            )
            self.stop = _button("work_cancel", f"pc-{kind}-cancel")
            self.again = _button("work_resume", f"pc-{kind}-resume")
            for action in actions:
                action.render()
            self.problem = gr.HTML("", elem_id=f"pc-{kind}-problem", elem_classes="pw-said")
        self.view = gr.HTML(scene.view(None, (), "en"), elem_id=f"pc-{kind}-view", js_on_load=BUTTONS)

    def connect(self, settings: Sequence[Any], extras: Sequence[Any]) -> None:
        """Place the list of earlier jobs, and let things happen.

        Parameters
        ----------
        settings
            The components whose values `Scene.request` gets.
        extras
            The components that `Scene.extras` updates.
        """
        self.earlier = gr.Radio(
            [], label=i18n(f"{self.kind}_earlier"), visible=False, interactive=True, elem_classes="pw-list"
        )
        unchecked(self.earlier)
        token, shown = self.context.token, self.shown
        outputs = [shown, self.seen, self.timer, self.start, self.stop, self.again]
        outputs += [self.problem, self.view, self.earlier, *extras]
        gr.on(None, self.open, token, outputs, **QUICK)
        self.start.click(self.begin, [token, *settings], outputs, **STARTING)
        self.stop.click(self.cancel, [token, shown], outputs, **STARTING)
        self.again.click(self.resume, [token, shown], outputs, **STARTING)
        self.earlier.input(self.choose, [token, self.earlier], outputs, **QUICK)
        self.timer.tick(self.look, [token, shown, self.seen], outputs, **QUICK)

    # ---- handlers -----------------------------------------------------------------------------

    def open(self, request: gr.Request, token: Any) -> Updates:
        """The page was loaded: show the newest job, be it running or over."""
        jobs = self._jobs(token)
        return self._show(jobs[0] if jobs else None, jobs, language_of(request))

    def begin(self, request: gr.Request, token: Any, *values: Any) -> Updates:
        """Start a job."""

        def work() -> Job:
            return self.context.jobs.submit(self.kind, self.scene.request(*values), owner(token))

        return self._do(work, request, token)

    def cancel(self, request: gr.Request, token: Any, job_id: str) -> Updates:
        """Cancel the job that is shown."""
        return self._do(lambda: self.context.jobs.cancel(job_id, owner(token)), request, token)

    def resume(self, request: gr.Request, token: Any, job_id: str) -> Updates:
        """Go on with the job that is shown."""
        return self._do(lambda: self.context.jobs.resume(job_id, owner(token)), request, token)

    def choose(self, request: gr.Request, token: Any, job_id: Any) -> Updates:
        """Show an earlier job."""
        jobs = self._jobs(token)
        return self._show(next((job for job in jobs if job.id == job_id), None), jobs, language_of(request))

    def look(self, request: gr.Request, token: Any, job_id: str, seen: str) -> Updates:
        """What is new since the last look: all if a job began or ended, else only the picture of this one."""
        jobs = self._jobs(token)
        # A server that was started anew has forgotten what this page shows.
        job = next((job for job in jobs if job.id == job_id), jobs[0] if jobs and not job_id else None)
        states, events = self._seen(job, jobs)
        if f"{states} {len(events)}" == seen:
            return gr.skip() if _unfinished(jobs) else {self.timer: gr.Timer(active=False)}
        if not seen.startswith(f"{states} ") or job is None:
            return self._show(job, jobs, language_of(request))
        view = self.scene.view(job, events, language_of(request))
        return {self.view: view, self.seen: f"{states} {len(events)}"}

    # ---- what they share ----------------------------------------------------------------------

    def _do(self, work: Callable[[], Job], request: gr.Request, token: Any) -> Updates:
        language = language_of(request)
        try:
            job = work()
        except Exception as error:
            return {self.problem: cards.error(trouble(error, language))}
        jobs = self._jobs(token)
        return self._show(job, jobs, language)

    def _jobs(self, token: Any) -> list[Job]:
        found = owner_or_none(token)
        return self.context.store.jobs(found, self.kind, LISTED) if found else []

    def _seen(self, job: Job | None, jobs: Sequence[Job]) -> tuple[str, list[Mapping[str, Any]]]:
        """The states of all jobs in a word, and the events of one; of one that waits, its place."""
        states = "|".join(f"{j.id}:{j.state}:{j.cancelling:d}" for j in jobs)
        if job is None:
            return states, []
        events: list[Mapping[str, Any]] = [event for _, event in self.context.store.events(job.id)]
        if job.state == "queued":
            ids = [other.id for other in self.context.store.unfinished()]
            ahead = ids.index(job.id) if job.id in ids else 0
            events.append({"event": "queued", "ahead": ahead})
            states += f"|{ahead}"
        return f"{job.id}|{states}", events

    def _show(self, job: Job | None, jobs: Sequence[Job], language: Language) -> Updates:
        states, events = self._seen(job, jobs)
        busy = bool(_unfinished(jobs))
        going = job is not None and not job.over
        cancelling = job is not None and job.cancelling
        choices = [(self.scene.title(other, language), other.id) for other in jobs]
        return {
            self.shown: job.id if job else "",
            self.seen: f"{states} {len(events)}",
            # A look finds out when there is nothing more to see, and stops looking.
            self.timer: gr.Timer(active=bool(jobs)),
            self.start: gr.Button(i18n(f"{self.kind}_{'busy' if busy else 'start'}"), interactive=not busy),
            self.stop: gr.Button(
                i18n("work_cancelling" if cancelling else "work_cancel"),
                visible=going,
                interactive=not cancelling,
            ),
            self.again: gr.Button(visible=job is not None and job.state == "interrupted"),
            self.problem: "",
            self.view: self.scene.view(job, events, language),
            self.earlier: gr.Radio(choices, value=job.id if job else None, visible=len(jobs) > 1),
            **self.scene.extras(job),
        }


def _unfinished(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if not job.over]


def _button(key: str, name: str) -> gr.Button:
    return gr.Button(i18n(key), scale=0, min_width=110, visible=False, elem_id=name)
