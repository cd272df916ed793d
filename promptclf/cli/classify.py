"""``promptclf classify``: a label and probabilities for texts."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptclf.cli import common
from promptclf.cli.frame import emit, emit_json, one_line, say
from promptclf.cli.tables import check_out, read_inputs, write_predictions
from promptclf.errors import PromptClfError, TextTooLongError
from promptclf.prompt import default_template
from promptclf.task import Prediction, Task, packaged_tasks

if TYPE_CHECKING:
    from promptclf.classifiers.base import PromptClassifier, Text

PART = 256  # texts between two steps of the progress bar
SHOWN, BEGINNING = 100, 40  # characters of a text beside its answer on a terminal, and in a message


def run(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts; without any, standard input.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file", metavar="FILE", help="Read texts from CSV, JSONL or, one a line, TXT; - is stdin."
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Write rows and predictions to this CSV or JSONL file."),
    ] = None,
    task: common.TaskName = None,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="A,B,C", help="Labels to choose from, without a task.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option("--mode", help="zero-shot (the default), few-shot or lora.")
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            "--adapter",
            metavar="DIR",
            help="A saved classifier; default: what comes with the task, unless options ask for another.",
        ),
    ] = None,
    model: common.Model = None,
    quantization: common.Quantized = None,
    template: common.Template = None,
    calibration: Annotated[
        str | None,
        typer.Option("--calibration", metavar="NAME", help="auto, none, prior, contextual or batch."),
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(
            "--selection",
            metavar="NAME",
            help="How few-shot picks examples: tfidf, embedding, random, or auto: the best of all by"
            " cross-validation, which takes a while. Default: those packaged with the task, else tfidf.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DIR|FILE",
            help="Texts to learn from: the label prior of zero-shot, the examples of few-shot.",
        ),
    ] = None,
    columns: common.Columns = None,
    data_columns: Annotated[
        str | None,
        typer.Option(
            "--data-columns",
            metavar="text=A,label=B",
            help="The same of --data, where --columns is about --file.",
        ),
    ] = None,
    truncate: common.Truncate = False,
    allow_other_base: common.OtherBase = False,
    seed: common.Seed = 0,
    as_json: common.Json = False,
    verbose: common.Verbose = 0,
) -> None:
    """Classify texts from arguments, a file or standard input.

    Example: promptclf classify --labels spam,ham "You won a prize"

    Example: promptclf classify --task support --mode lora --file mails.csv --out out.csv
    """
    check_out(out, file, data, task)
    chosen_mode = common.check_mode(mode or "zero-shot")
    inputs = read_inputs(texts, file, columns)
    pairs = any(isinstance(text, tuple) for text in inputs.texts[:1])
    # What asks for another classifier than the one that comes with a packaged task.
    asked: list[object] = [labels, template, calibration, data, pairs or None]
    if chosen_mode == "few-shot":
        asked += [selection, seed or None]
    saved = adapter or common.shipped(task, chosen_mode, asked, model, quantization)
    if saved:
        own = {"--labels": labels, "--template": template, "--calibration": calibration, "--data": data}
        if adapter:
            own["--task"] = task
        if brought := [option for option, value in own.items() if value is not None]:
            raise PromptClfError(f"{brought[0]}: a saved classifier has its own; leave it out")
        common.check_saved_mode(saved, mode)
        classifier = common.open_classifier(
            saved, model, quantization, mode=mode, allow_other_base=allow_other_base, truncate=truncate
        )
    else:
        to_learn = data_columns if file else data_columns or columns
        learns = chosen_mode == "few-shot" or calibration in (None, "auto", "prior")
        if data is None and learns and not pairs and task in packaged_tasks():
            data = task
        chosen, rows = _task(task, labels, data, to_learn, mode)
        options = {"calibration": calibration, "truncate": truncate, "selection": selection, "seed": seed}
        base = (model, quantization)
        template = template or default_template(chosen, pairs)
        classifier = _fitted(chosen, rows, chosen_mode, base, template, options)
    predictions = classify_all(classifier, inputs.texts)
    if out:
        write_predictions(out, inputs, predictions)
        say(f"{out}: {len(predictions)} prediction{'s' * (len(predictions) > 1)}")
    if as_json:
        origin = classifier.provenance()
        about = origin.pop("model")
        emit_json({"predictions": [p.to_dict() for p in predictions], "model": about, "classifier": origin})
    elif not out:
        _show(predictions)


def classify_all(classifier: PromptClassifier, texts: Sequence[Text]) -> list[Prediction]:
    """Predictions for many texts, with a progress bar on a terminal."""
    if classifier.calibration_ == "batch":  # the batch is all of them
        return classifier.classify(texts)
    from tqdm import tqdm

    predictions: list[Prediction] = []
    hidden = None if len(texts) > PART else True  # None: only shown on a terminal
    with tqdm(total=len(texts), unit="text", disable=hidden, leave=False, file=sys.stderr) as bar:
        for start in range(0, len(texts), PART):
            part = texts[start : start + PART]
            try:
                predictions += classifier.classify(part)
            except TextTooLongError as error:
                raise TextTooLongError(_placed(str(error), start, texts)) from error
            bar.update(len(part))
    return predictions


def _placed(message: str, start: int, texts: Sequence[Text]) -> str:
    """A message about a text of a part, with its number among all texts and its beginning."""

    def place(match: re.Match[str]) -> str:
        index = int(match[1]) + start
        text = texts[index - 1]
        return f"text {index} ({_cut(one_line(text if isinstance(text, str) else text[0]), BEGINNING)})"

    return re.sub(r"^text (\d+)", place, message)


def _task(
    task: str | None, labels: str | None, data: str | None, columns: str | None, mode: str | None
) -> tuple[Task, list[Any]]:
    """What to decide, and the examples to learn from."""
    if task and labels:
        raise PromptClfError("expected --task or --labels, got both; leave one out")
    chosen = Task.load(task) if task else None
    if labels:
        chosen = Task(name="labels", labels=tuple(common.split_list(labels)))
    rows: list[Any] = []
    if data:
        if mode == "few-shot" or chosen is None or not Path(data).is_file():
            source = common.load_source(data, columns)
            rows = source.splits["train"]
            chosen = chosen or source.task or _task_of(source)
        else:
            # Labels are not needed for a prior, so a file without any will do.
            table, texts = common.read_texts(data, columns)
            rows = table.examples(texts)
    if chosen is None:
        known = ", ".join(packaged_tasks())
        raise PromptClfError(f"expected --task, --labels or --data, got none; packaged tasks: {known}")
    return chosen, rows


def _task_of(source: Any) -> Task:
    labels = {example.label for rows in source.splits.values() for example in rows}
    return Task(name=source.name, labels=tuple(sorted(labels)))


def _fitted(
    task: Task,
    rows: Sequence[Any],
    mode: str,
    base: tuple[str | None, common.Quantization | None],
    template: str | None,
    wanted: Mapping[str, Any],
) -> PromptClassifier:
    """A classifier of a mode that needs no training, fitted on what there is."""
    from promptclf.classifiers.calibrate import MIN_PRIOR_TEXTS
    from promptclf.modes import MODES

    if mode == "lora":
        raise PromptClfError(
            f"--mode lora: {task.name} has no trained adapter; make one with promptclf train --out DIR,"
            " then use --adapter DIR"
        )
    options = {"calibration": wanted["calibration"] or "auto", "truncate": wanted["truncate"]}
    if mode == "few-shot":
        if not rows:
            raise PromptClfError(
                "--mode few-shot: expected labelled examples, got none; name some with --data"
            )
        if wanted["selection"] == "auto":
            say("choosing examples by cross-validation; --selection tfidf is faster")
        elif wanted["calibration"] is None:  # choosing it would take the cross-validation not asked for
            options["calibration"] = "none"
        if (wanted["selection"], wanted["calibration"]) == (None, None):
            say("the most similar examples, not calibrated; --selection auto is slower and may be better")
        options |= {"selection": wanted["selection"] or common.FAST_SELECTION, "seed": wanted["seed"]}
    elif options["calibration"] == "auto" and len(rows) < MIN_PRIOR_TEXTS:
        say(
            "not calibrated: labels that the model prefers by itself come up too often; --data with at least"
            f" {MIN_PRIOR_TEXTS} texts mends that"
        )
    elif options["calibration"] in ("auto", "prior") and wanted["calibration"] is None:
        say("learning from the texts which labels the model prefers by itself")
    texts = [e.text if e.pair is None else (e.text, e.pair) for e in rows]
    classifier = MODES[mode](task, template=template, **options)
    classifier.check_options()
    classifier.set_params(model=common.open_model(*base))
    return classifier.fit(texts, [e.label for e in rows])


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def _show(predictions: Sequence[Prediction]) -> None:
    width = max(len(p.label) for p in predictions)
    for p in predictions:
        cut = " (shortened)" if p.truncated else ""
        shown = _cut(one_line(p.text), SHOWN) if sys.stdout.isatty() else one_line(p.text)
        emit(f"{p.probabilities[p.label]:6.1%}  {p.label:<{width}}  {shown}{cut}")
