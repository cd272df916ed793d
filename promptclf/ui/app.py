"""The page: a panel beside the tabs, and the endpoints."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from promptclf.jobs.jobs import Jobs
from promptclf.jobs.store import Store
from promptclf.lm.batcher import WAITING
from promptclf.lm.embedded import home
from promptclf.ui.api.endpoints import add_endpoints
from promptclf.ui.core.service import Service
from promptclf.ui.core.visitor import token_state
from promptclf.ui.core.zerogpu import on_zero_gpu
from promptclf.ui.page.choices import connect
from promptclf.ui.page.context import Context
from promptclf.ui.page.panel import build_panel
from promptclf.ui.tabs.classify import classify_tab
from promptclf.ui.tabs.compare import compare_tab
from promptclf.ui.tabs.data import data_tab
from promptclf.ui.tabs.evaluate import evaluate_tab
from promptclf.ui.tabs.prompts import prompts_tab
from promptclf.ui.tabs.train import train_tab
from promptclf.ui.web.guard import GuardedBlocks
from promptclf.ui.web.routes import RoutedOnce
from promptclf.ui.web.sessions import KnownConfig
from promptclf.ui.words import i18n

DELETED = (600, 3600)  # seconds: every ten minutes, files of visitors that are an hour old
TABS: dict[str, Callable[[Context], None]] = {
    "classify": classify_tab,
    "compare": compare_tab,
    "evaluate": evaluate_tab,
    "train": train_tab,
    "data": data_tab,
    "prompts": prompts_tab,
}


class App(GuardedBlocks, RoutedOnce):
    """The page, with what stands behind it: see `Context`."""

    context: Context


def build_app(service: Service | None = None, jobs: Jobs | None = None) -> App:
    """Build the app; it is launched with ``launch(**launch_settings())``.

    Parameters
    ----------
    service
        What answers; default: one that loads the embedded model at the first question.
    jobs
        Long work; default: kept in promptclf's home. The caller starts and closes it.
    """
    service = service or Service()
    if jobs is None:
        jobs = Jobs(
            Store(home() / "app"),
            model=service.model_name,
            quantization=service.quantization,
            training=not on_zero_gpu(),
        )
    service.ready.store = jobs.store
    demo = App(title="promptclf", analytics_enabled=False, delete_cache=DELETED)
    with demo:
        token = token_state(jobs.store.folder)
        with gr.Row(elem_id="pc-page"):
            with gr.Column(elem_id="pc-panel", scale=0, min_width=260):
                panel = build_panel(service)
            demo.context = Context(service, jobs, jobs.store, panel, token)
            with gr.Column(elem_id="pc-main", scale=1, min_width=320), gr.Tabs(elem_id="pc-tabs"):
                for name, build in TABS.items():
                    if name == "train" and not jobs.training:
                        continue
                    with gr.Tab(i18n(f"tab_{name}"), id=name, elem_id=f"pc-tab-{name}"):
                        gr.HTML(f"<h2>{i18n(f'tab_{name}')}</h2>", elem_classes="pc-hidden")
                        build(demo.context)
        connect(demo, demo.context)
        add_endpoints(demo.context)
    KnownConfig.replace(demo)
    # Calls that come within a moment are in this queue together, before the first of them is let through.
    demo.queue(max_size=WAITING, default_concurrency_limit=2, api_open=False)
    return demo
