"""Starting and ending the app: its settings, and `run`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from promptclf.lm.batcher import WAITING
from promptclf.ui.app import App
from promptclf.ui.web.drain import Drain, Draining
from promptclf.ui.web.guard import KnownEvents, unknown_endpoint, wrong_argument
from promptclf.ui.web.limits import BodyLimit, SafeHeaders
from promptclf.ui.words import i18n

MAX_FILE = 25 * 2**20
OTHERS = 64  # events at once, besides waiting texts
SESSIONS = 4000  # kept of visitors and of calls, the last ones used: 185 KiB each
DRAIN_SECONDS = 10.0
# Longer than those who ask keep an unused connection: httpx does for 5 s, and so does uvicorn by itself.
# A call after just that time would be sent into its closing.
KEEP_ALIVE_SECONDS = 30
STYLES = ("app.css", "work.css")


def run(demo: App, **launch: Any) -> None:
    """Run an app of `build_app` until it is told to end, as `promptclf.ui.serve` does.

    Parameters
    ----------
    demo
        The app.
    launch
        Further arguments of ``Blocks.launch``.

    Raises
    ------
    OSError
        If no port is free.
    ModelError
        If the model cannot be found or loaded.
    """
    drain, context = Drain(), demo.context
    context.jobs.start()
    try:
        signal.signal(signal.SIGTERM, _terminate)
        demo.launch(quiet=True, prevent_thread_lock=True, **launch_settings(drain), **launch)
        demo.server.config.timeout_keep_alive = KEEP_ALIVE_SECONDS
        print(f"promptclf is running on {str(demo.local_url).rstrip('/')}", flush=True)
        _ = context.service.model  # the page is there while it loads; without it, there is nothing to serve
        context.service.warm_up()
        threading.Event().wait()
    except _Terminated:
        stopping = threading.Thread(target=context.jobs.close)  # a training saves its state meanwhile
        stopping.start()
        if not drain.wait(demo._queue, DRAIN_SECONDS):
            context.service.close()  # what is still under way is told so
            drain.wait(demo._queue, 1)
        stopping.join()
    finally:
        context.service.close()
        context.jobs.close()
        if demo.is_running:
            demo.server.config.timeout_graceful_shutdown = 1  # nothing is left to wait for
        demo.close(verbose=False)


def launch_settings(drain: Drain | None = None) -> dict[str, Any]:
    """Arguments of ``Blocks.launch`` for a careful app: no telemetry, no share link, limited bodies."""
    folder = Path(__file__).with_name("assets")
    return {
        "theme": _theme(),
        "css": "\n".join((folder / name).read_text(encoding="utf-8") for name in STYLES),
        "js": (folder / "mend.js").read_text(encoding="utf-8"),
        "i18n": i18n,
        "ssr_mode": False,
        "run_history": False,  # it would keep the texts of everyone who uses a browser in that browser
        "enable_monitoring": False,
        "show_error": False,
        "max_file_size": MAX_FILE,
        "max_threads": WAITING + OTHERS,  # gradio counts by it what is under way, threads or not
        "state_session_capacity": SESSIONS,
        "footer_links": ["api"],
        "strict_cors": True,
        "mcp_server": False,
        "share": False,
        "pwa": False,
        "app_kwargs": {
            "exception_handlers": {TypeError: wrong_argument, KeyError: unknown_endpoint},
            "middleware": [
                Middleware(SafeHeaders),
                Middleware(Draining, drain=drain or Drain()),
                Middleware(BodyLimit),
                Middleware(KnownEvents),
            ],
        },
    }


def _theme() -> gr.themes.Base:
    # Fonts that gradio brings along whole, in the two weights that they have.
    sans = gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700))
    mono = gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700))
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        font=[sans, "system-ui", "sans-serif"],
        font_mono=[mono, "ui-monospace", "monospace"],
        radius_size="md",
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


class _Terminated(BaseException):
    """SIGTERM came."""


def _terminate(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise _Terminated
