"""``promptclf tasks``: the tasks that come with the package."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from promptclf.cli import common
from promptclf.cli.frame import emit, emit_json
from promptclf.task import Task, packaged_tasks

app = typer.Typer(help="List the packaged tasks, or show one.")


@app.callback(invoke_without_command=True)
def _group(context: typer.Context, as_json: common.Json = False, verbose: common.Verbose = 0) -> None:
    if context.invoked_subcommand is None:
        list_tasks(as_json)


@app.command("list")
def list_tasks(as_json: common.Json = False, verbose: common.Verbose = 0) -> None:
    """List the packaged tasks."""
    tasks = [Task.load(name) for name in packaged_tasks()]
    if as_json:
        emit_json({"tasks": [task.to_dict() for task in tasks]})
        return
    width = max((len(task.name) for task in tasks), default=0)
    for task in tasks:
        emit(f"{task.name:<{width}}  {len(task.labels)} labels  {task.instruction}")


@app.command()
def show(
    task: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A packaged task, or a YAML file.")],
    as_json: common.Json = False,
    verbose: common.Verbose = 0,
) -> None:
    """Show a task's labels and words, and how many texts come with it."""
    chosen = Task.load(task)
    rows = _rows(task)
    if as_json:
        emit_json({**chosen.to_dict(), "fingerprint": chosen.fingerprint, "rows": rows})
        return
    emit(f"{chosen.name}: {chosen.instruction or 'no instruction'}")
    emit(f"template: {chosen.template or 'the default'}")
    if rows:
        emit(f"rows: {', '.join(f'{count:,} {split}' for split, count in rows.items())}")
    width = max(map(len, chosen.labels))
    for label in chosen.labels:
        words = f' (as "{chosen.verbaliser(label)}")' if chosen.verbaliser(label) != label else ""
        emit(f"  {label:<{width}}  {chosen.descriptions.get(label, '')}{words}".rstrip())


def _rows(task: str) -> dict[str, Any]:
    if task not in packaged_tasks():
        return {}
    return {split: len(examples) for split, examples in common.load_source(task).splits.items()}
