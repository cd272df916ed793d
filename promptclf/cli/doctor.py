"""``promptclf doctor``: what is wrong with a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptclf.cli import common
from promptclf.cli.frame import emit, emit_json
from promptclf.errors import TaskError
from promptclf.task import Task

if TYPE_CHECKING:
    from promptclf.data.doctor import Finding, Row

SHOWN = 5  # groups of rows a finding


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|DIR", help="A CSV or JSONL file, a folder, a packaged task or hub:owner/name."
        ),
    ],
    task: common.TaskName = None,
    columns: common.Columns = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Also check lengths and labels in tokens of the embedded model.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The same in tokens of this model.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with status 1 if an error was found; else it is 0.")
    ] = False,
    as_json: common.Json = False,
    verbose: common.Verbose = 0,
) -> None:
    """Look for what is wrong with labelled texts.

    Duplicates, leaks between splits, conflicting or unknown labels, rare classes; with --tokens also
    long texts and labels that a model cannot tell apart.

    Example: promptclf doctor reviews.csv
    """
    found = common.load_source(source, columns)
    chosen = Task.load(task) if task else found.task
    from promptclf.data.doctor import diagnose

    checks: dict[str, Any] = {}
    if tokens or model:
        labels = sorted({row.label for rows in found.splits.values() for row in rows})
        pairs = any(row.pair is not None for rows in found.splits.values() for row in rows)
        checks = _token_checks(model, chosen, labels, pairs)
    findings = diagnose(found.splits, task=chosen, **checks)
    rows = {split: len(examples) for split, examples in found.splits.items()}
    if as_json:
        known = {"name": found.name, "rows": rows, "columns": found.columns}
        emit_json({**known, "findings": [finding.to_dict() for finding in findings]})
    else:
        emit(f"{found.name}: {', '.join(f'{count:,} {split} rows' for split, count in rows.items())}")
        for finding in findings:
            _show(finding)
        if not findings:
            emit("nothing found")
    if strict and any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _token_checks(model: str | None, task: Task | None, labels: Sequence[str], pairs: bool) -> dict[str, Any]:
    """What `diagnose` needs to count in tokens: of a text alone, against the room that a prompt leaves."""
    from promptclf.prompt import Message, Prompt, PromptTemplate, default_template

    opened = common.open_model(model, None)
    known = task or Task("labels", tuple(labels) if len(labels) > 1 else ("yes", "no"))
    template = PromptTemplate.load(default_template(known, pairs))
    empty = template.render(known, "", "" if pairs else None)

    def count(texts: list[str]) -> list[int]:
        return opened.count_tokens([Prompt((Message("user", text),), "", chat=False) for text in texts])

    def encode(words: str) -> list[int]:
        try:
            return opened.encoder.answers(empty, [template.answer.replace("{label}", words)])[0]
        except TaskError:  # no tokens at all
            return []

    longest = max(len(encode(known.verbaliser(label))) for label in known.labels)
    room = opened.max_tokens - opened.count_tokens([empty])[0] - longest
    lengths: Callable[[list[str]], list[int]] = count
    return {"count_tokens": lengths, "encode": encode, "max_tokens": room}


def _show(finding: Finding) -> None:
    emit(f"\n{finding.severity}: {finding.message}")
    emit(f"  {finding.advice}")
    groups = [list(rows) for _, rows in groupby(finding.rows, key=lambda row: row.group)]
    if groups:
        shown = "; ".join(" = ".join(map(_place, rows)) for rows in groups[:SHOWN])
        more = f" and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
        emit(f"  rows: {shown}{more}")


def _place(row: Row) -> str:
    return f"{row.split} {row.row}"
