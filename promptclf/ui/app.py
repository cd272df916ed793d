"""The page: a panel with task and labels beside the tabs, and the endpoints."""

from __future__ import annotations

import gradio as gr

from promptclf.ui import cards
from promptclf.ui.api import add_endpoints
from promptclf.ui.classify import classify_tab
from promptclf.ui.compare import compare_tab
from promptclf.ui.service import Service
from promptclf.ui.shared import QUICK, build_panel


def build_app(service: Service | None = None) -> gr.Blocks:
    """Build the app; it is launched with ``launch(**launch_settings())``.

    Parameters
    ----------
    service
        What answers; default: one that loads the embedded model at the first question.
    """
    service = service or Service()
    demo = gr.Blocks(title="promptclf", analytics_enabled=False)
    with demo:
        with gr.Row(elem_id="pc-page"):
            with gr.Column(elem_id="pc-panel", scale=0, min_width=260):
                header = gr.HTML(cards.header(service.model_words))
                panel = build_panel()
            with gr.Column(elem_id="pc-main", scale=1, min_width=320), gr.Tabs():
                with gr.Tab("Classify"):
                    classify_tab(service, panel)
                with gr.Tab("Compare"):
                    compare_tab(service, panel)
        demo.load(lambda: cards.header(service.model_words), None, header, **QUICK)
        add_endpoints(service)
    demo.queue(max_size=32, default_concurrency_limit=2, api_open=False)
    return demo
