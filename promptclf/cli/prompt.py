"""``promptclf prompt``: the prompt templates, and exactly what the model sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptclf.cli import common
from promptclf.cli.frame import emit, emit_json
from promptclf.errors import PromptClfError
from promptclf.prompt import PromptTemplate, packaged_templates
from promptclf.task import Task, packaged_classifier, packaged_tasks

if TYPE_CHECKING:
    from promptclf.prompt import Prompt

app = typer.Typer(help="List the prompt templates, or show what the model sees.")


@app.callback(invoke_without_command=True)
def _group(context: typer.Context, as_json: common.Json = False, verbose: common.Verbose = 0) -> None:
    if context.invoked_subcommand is None:
        list_templates(as_json)


@app.command("list")
def list_templates(as_json: common.Json = False, verbose: common.Verbose = 0) -> None:
    """List the packaged prompt templates."""
    templates = [PromptTemplate.load(name) for name in packaged_templates()]
    if as_json:
        listed = [{**template.to_dict(), "fingerprint": template.fingerprint} for template in templates]
        emit_json({"templates": listed})
        return
    width = max(len(template.name) for template in templates)
    for template in templates:
        kind = "chat" if template.chat else "text"
        emit(f"{template.name:<{width}}  {template.language}  {kind}  {template.description}")


@app.command()
def show(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A packaged task, or a task's YAML file.")],
    text: Annotated[str, typer.Option("--text", help="The text to classify.")],
    pair: Annotated[str | None, typer.Option("--pair", help="The second text, for tasks about two.")] = None,
    mode: Annotated[str, typer.Option("--mode", help="zero-shot, few-shot or lora.")] = "zero-shot",
    template: common.Template = None,
    model: common.Model = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DIR|FILE",
            help="Where few-shot takes examples from; default: the task's train split.",
        ),
    ] = None,
    columns: common.Columns = None,
    selection: Annotated[
        str | None,
        typer.Option(
            "--selection",
            metavar="NAME",
            help="How few-shot picks them: tfidf, embedding or random; default: as classify does.",
        ),
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Also list the token ids.")] = False,
    seed: common.Seed = 0,
    as_json: common.Json = False,
    verbose: common.Verbose = 0,
) -> None:
    """Print exactly what the model sees for a text, control tokens of a chat included.

    Example: promptclf prompt show support --mode few-shot --text "Where is my parcel?"
    """
    common.check_mode(mode)
    if mode == "few-shot" and data is None and task not in packaged_tasks():
        raise PromptClfError("--mode few-shot: expected labelled examples, got none; name some with --data")
    chosen, used = Task.load(task), template
    if mode == "lora" and template is None and (adapter := packaged_classifier(task, mode)):
        from promptclf.classifiers.persistence import read_config

        used = PromptTemplate.from_dict(read_config(adapter)["template"])  # type: ignore[assignment]
    asked = text if pair is None else (text, pair)
    others = (data, template, selection, seed or None)
    shipped = common.shipped(task, mode, others, model) if mode == "few-shot" else None
    rows = []
    if mode == "few-shot" and shipped is None:
        rows = common.load_source(data or task, columns).splits["train"]
    opened = common.open_model(model, None)
    if shipped is not None:
        from promptclf.modes import load_classifier

        prompt = load_classifier(shipped, model=opened).prompt(asked)
    else:
        prompt = _prompt(mode, chosen, opened, used, asked, rows, selection, seed)
    found = opened.tokens(prompt)
    whole = opened.decode([index for index, _ in found])
    if as_json:
        listed = [{"id": index, "text": piece} for index, piece in found]
        emit_json({"mode": mode, "prompt": whole, "count": len(found), "tokens": listed})
        return
    emit(whole)
    if tokens:
        emit(f"\n{len(found)} tokens")
        for index, piece in found:
            emit(f"{index:7}  {piece!r}")


def _prompt(
    mode: str, task: Task, model: Any, template: Any, text: Any, rows: Any, selection: str | None, seed: int
) -> Prompt:
    from promptclf.classifiers.few_shot import FewShotClassifier
    from promptclf.classifiers.selection import example_text
    from promptclf.classifiers.zero_shot import ZeroShotClassifier

    if mode == "few-shot":
        if selection == "auto":  # it would cross-validate for minutes and show one of the others
            raise PromptClfError("--selection: expected tfidf, embedding or random, got 'auto'")
        few = FewShotClassifier(
            task, model, template, calibration="none", selection=selection or common.FAST_SELECTION, seed=seed
        )
        few.fit([example_text(row) for row in rows], [row.label for row in rows])
        return few.prompt(text)
    # An adapter sees the bare prompt of zero-shot.
    return ZeroShotClassifier(task, model, template, calibration="none").fit().prompt(text)
