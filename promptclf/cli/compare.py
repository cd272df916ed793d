"""``promptclf compare``: all modes and the classical baseline on one frozen test split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptclf.cli import common
from promptclf.cli.frame import emit, emit_json, say
from promptclf.errors import PromptClfError

QUANTIZATIONS = ("none", "int8", "nf4")


def run(
    data: common.Data = None,
    task: common.TaskName = None,
    columns: common.Columns = None,
    model: common.Model = None,
    modes: Annotated[
        str | None,
        typer.Option("--modes", metavar="A,B", help="Some of zero-shot, few-shot and lora; default: all."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Score N test rows, drawn by the seed.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, metavar="N", help="Learn from N labelled rows.")
    ] = None,
    quantization: Annotated[
        str,
        typer.Option(
            "--quantization",
            metavar="A,B",
            help="Some of none, int8 and nf4; the first is used for the table.",
        ),
    ] = "none",
    templates: Annotated[
        str | None,
        typer.Option(
            "--templates", metavar="all|A,B", help="Prompt templates to try as well, to show the spread."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, metavar="N", help="Seeds that few-shot is run with.")
    ] = 3,
    seed: common.Seed = 0,
    truncate: common.Truncate = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write report.md, .json and .html and predictions.csv to this folder.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume", help="Keep runs that an interrupted comparison finished in --out."
        ),
    ] = True,
    as_json: common.Json = False,
    verbose: common.Verbose = 0,
) -> None:
    """Compare zero-shot, few-shot, LoRA and TF-IDF + SVM.

    Each learns from the same labelled rows and is scored on the same test split, in a process of its own.

    Example: promptclf compare --task support --limit 100 --out report
    """
    wanted = common.split_list(quantization)
    if unknown := [name for name in wanted if name not in QUANTIZATIONS]:
        raise PromptClfError(
            f"--quantization: expected some of {', '.join(QUANTIZATIONS)}, got {unknown[0]!r}"
        )
    common.check_folder(out)
    dataset = common.load_data(data, task, columns).limit(rows=rows, test_rows=limit, seed=seed)
    from promptclf.cli.progress import Progress
    from promptclf.evaluation.compare import run_comparison
    from promptclf.modes import MODES

    progress = Progress()
    try:
        report = run_comparison(
            dataset,
            modes=tuple(MODES) if modes is None else common.split_list(modes),
            model=model or "embedded",
            quantizations=list(dict.fromkeys(wanted)),
            templates=common.split_list(templates) if templates else (),
            seeds=seeds,
            seed=seed,
            truncate=truncate,
            out=out,
            resume=resume,
            progress=progress,
        )
    except KeyboardInterrupt:
        if out is not None:
            say("finished runs are kept; run the same command again to go on")
        raise
    finally:
        progress.close()
    if out is not None:
        say(f"report: {Path(out) / 'report.html'}")
    if as_json:
        emit_json(report.to_dict())
    else:
        emit(report.to_table().rstrip("\n"))
