"""The command line: one file a command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from promptclf import __version__
from promptclf.cli import classify, compare, deploy, doctor, evaluate, prompt, serve, tasks, train
from promptclf.cli.common import Verbose
from promptclf.cli.frame import Commands, emit, prepare_process

app = typer.Typer(
    name="promptclf",
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 90},
)
app.command("classify")(classify.run)
app.command("compare")(compare.run)
app.command("train")(train.run)
app.command("evaluate")(evaluate.run)
app.command("doctor")(doctor.run)
app.add_typer(prompt.app, name="prompt")
app.add_typer(tasks.app, name="tasks")
app.command("serve")(serve.run)
app.command("deploy")(deploy.run)


def _version(wanted: bool) -> None:
    if wanted:
        emit(f"promptclf {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Verbose = 0,
) -> None:
    """Is a prompt enough, do a few examples help, or should I fine-tune?

    Classifies text with a language model in three ways and compares them on your data.
    """
    if context.invoked_subcommand is None:
        emit(context.get_help())


def main() -> None:
    """Run the command line."""
    prepare_process()
    app()
