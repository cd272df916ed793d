"""``promptclf serve``: the web app."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from promptclf.cli import common
from promptclf.errors import PromptClfError


def run(
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port to listen on.")] = 7860,
    model: common.Model = None,
    quantization: common.Quantized = None,
    verbose: common.Verbose = 0,
) -> None:
    """Start the web app and print its address.

    Example: promptclf serve --port 8000
    """
    _check_free(host, port)
    from promptclf.ui import serve

    serve(host, port, model=model or "embedded", quantization=quantization or "none")


def _check_free(host: str, port: int) -> None:
    """Notice a port in use before the model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise PromptClfError(
            f"cannot listen on {host}:{port}: {error.strerror or error};"
            " choose another with --host and --port"
        ) from error
