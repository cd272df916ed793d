"""`serve`: the process with the model is started before gradio is imported, since both take seconds."""

from __future__ import annotations

from contextlib import closing

from promptclf.errors import PromptClfError
from promptclf.lm.remote import RemoteModel


def serve(
    host: str = "127.0.0.1", port: int = 7860, *, model: str = "embedded", quantization: str = "none"
) -> None:
    """Run the app until it is interrupted; prints its address once it answers.

    The model is in a process of its own. On SIGTERM the app takes no more work, lets accepted answers
    finish, stops the worker of long jobs, which saves its state, and returns.

    Parameters
    ----------
    host, port
        Where to listen.
    model, quantization
        As for `promptclf.load_model`.

    Raises
    ------
    ModelError
        If the model cannot be found or loaded.
    PromptClfError
        If the port is in use.
    """
    remote = RemoteModel(model, quantization)
    try:
        from promptclf.ui import build_app, run
        from promptclf.ui.core.service import Service

        with closing(
            Service(model, quantization=quantization, load=remote.load, cancel=remote.close)
        ) as service:
            service.warm_up()
            run(build_app(service), server_name=host, server_port=port)
    except OSError as error:
        if "empty port" not in str(error):  # so says gradio
            raise
        raise PromptClfError(
            f"port: expected a free one on {host}, {port} is in use; choose another"
        ) from error
    finally:
        remote.close()
