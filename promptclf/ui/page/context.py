"""What every tab is built with, and who is asking."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from promptclf.jobs.jobs import Jobs
from promptclf.jobs.store import Store
from promptclf.ui.core.service import Service
from promptclf.ui.page.panel import Panel


@dataclass(frozen=True)
class Context:
    """Passed to ``xyz_tab(context)``.

    Parameters
    ----------
    service
        Answers texts with the loaded model.
    jobs
        Long work in a process of its own.
    store
        What outlives the server: jobs, data sets, feedback.
    panel
        The components that the tabs share.
    token
        The visitor's secret, kept by the browser: an input of every handler that reads or writes what
        belongs to a visitor. ``owner(token)`` of `promptclf.ui.core.visitor` gives the owner to pass on.
    """

    service: Service
    jobs: Jobs
    store: Store
    panel: Panel
    token: gr.BrowserState
