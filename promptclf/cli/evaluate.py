"""``promptclf evaluate``: a saved classifier on labelled rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptclf.cli import common
from promptclf.cli.frame import emit, emit_json, say
from promptclf.errors import PromptClfError
from promptclf.task import Task, packaged_tasks

if TYPE_CHECKING:
    from promptclf.classifiers.base import PromptClassifier
    from promptclf.data.dataset import Dataset, Source
    from promptclf.evaluation.report import Report


def run(
    classifier: Annotated[str, typer.Argument(metavar="DIR", help="A saved classifier, or its Hub id.")],
    data: common.Data = None,
    task: common.TaskName = None,
    columns: common.Columns = None,
    all_rows: Annotated[
        bool, typer.Option("--all-rows", help="Score every row of a file instead of its test split.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Score N rows, drawn by the seed.")
    ] = None,
    model: common.Model = None,
    quantization: common.Quantized = None,
    truncate: common.Truncate = False,
    allow_other_base: common.OtherBase = False,
    seed: common.Seed = 0,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Write the report and predictions.csv to this folder."),
    ] = None,
    as_json: common.Json = False,
    verbose: common.Verbose = 0,
) -> None:
    """Score a saved classifier on the test split.

    Example: promptclf evaluate support-lora --task support
    """
    common.check_folder(out)
    if data is None and task is None:
        known = ", ".join(packaged_tasks())
        raise PromptClfError(f"expected --data or --task to score on, got neither; packaged tasks: {known}")
    if all_rows:
        source = _single(data, columns)
    else:
        dataset = common.load_data(data, task, columns)
    scored = common.open_classifier(
        classifier, model, quantization, allow_other_base=allow_other_base, truncate=truncate
    )
    if all_rows:
        dataset = _whole(source, scored.task)
    dataset = dataset.limit(test_rows=limit, seed=seed)
    report = _report(scored, dataset, seed)
    if out is not None:
        report.save(out, dataset.test)
        say(f"report: {Path(out) / 'report.html'}")
    if as_json:
        emit_json(report.to_dict())
    else:
        emit(report.to_table().rstrip("\n"))


def _single(data: str | None, columns: str | None) -> Source:
    source = common.load_source(data, columns) if data else None
    if source is None or len(source.splits) > 1:
        raise PromptClfError("--all-rows: expected --data with one file, got data with splits; leave it out")
    return source


def _whole(source: Source, task: Task) -> Dataset:
    """All rows as the test split; labels that the classifier does not know count as wrong."""
    from promptclf.data.dataset import Dataset

    rows = source.splits["train"]
    labels = sorted({*task.labels, *(row.label for row in rows)})
    return Dataset(
        Task(source.name, tuple(labels)), (), (), tuple(rows), name=source.name, columns=source.columns
    )


def _report(classifier: PromptClassifier, dataset: Dataset, seed: int) -> Report:
    from promptclf.cli.classify import classify_all
    from promptclf.evaluation.measure import columns
    from promptclf.evaluation.report import build_report, score_predictions

    texts, true = columns(dataset.test)
    start = time.perf_counter()
    predictions = classify_all(classifier, texts)
    seconds = time.perf_counter() - start
    labels = [str(label) for label in classifier.classes_]
    origin = classifier.provenance()
    result = score_predictions(
        classifier.mode,
        true,
        [[p.probabilities[label] for label in labels] for p in predictions],
        labels,
        mode=classifier.mode,
        template=origin["template"],
        quantization=origin["model"]["quantization"],
        truncated=sum(p.truncated for p in predictions),
        timing={"seconds_per_1000": 1000 * seconds / len(texts)},
        provenance=origin,
    )
    described = dataset.describe()
    return build_report([result], true, labels, task=classifier.task.name, dataset=described, seed=seed)
