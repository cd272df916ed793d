"""The help of every command as one text, for README: ``python tests/readme_help.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from promptclf.cli import app

WIDTH = 90


def all_help() -> str:
    """``promptclf --help``, then the help of each command, without colours, 90 columns wide."""
    command = typer.main.get_command(app)
    context = command.make_context("promptclf", [], resilient_parsing=True, terminal_width=WIDTH)
    return "\n\n".join(f"$ {path} --help\n{text}" for path, text in _walk(command, context)) + "\n"


def _walk(command: Any, context: Any) -> Iterator[tuple[str, str]]:
    yield context.command_path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    for name in getattr(command, "commands", ()):
        inner = command.commands[name]
        yield from _walk(inner, inner.make_context(name, [], parent=context, resilient_parsing=True))


if __name__ == "__main__":
    print(all_help(), end="")
