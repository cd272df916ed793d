"""Options that commands share, and what they become: tasks, data, models and saved classifiers."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from promptclf.artifacts import MANIFEST
from promptclf.cli.frame import prepare_to_predict, say, set_verbosity
from promptclf.errors import ArtifactError, PromptClfError
from promptclf.task import Task, packaged_classifier, packaged_tasks

if TYPE_CHECKING:
    from promptclf.classifiers.base import PromptClassifier
    from promptclf.data.dataset import Dataset, Source
    from promptclf.data.reading import Table
    from promptclf.lm.model import HFModel

Quantization = Literal["none", "int8", "nf4"]
FAST_SELECTION = "tfidf"  # of few-shot's examples: it needs no model

TaskName = Annotated[
    str | None, typer.Option("--task", metavar="NAME|FILE", help="A packaged task, or a task's YAML file.")
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR|FILE",
        help="Labelled texts: a CSV or JSONL file, a folder with train, dev and test files, a packaged task"
        " or hub:owner/name.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="text=A,label=B",
        help="Which columns to read (text, label, pair), else guessed; pair= for no second text.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="'embedded' (the default), a model folder or a Hub id."),
]
Quantized = Annotated[
    Quantization | None, typer.Option("--quantization", help="Of the model's weights; none by default.")
]
Template = Annotated[
    str | None,
    typer.Option("--template", metavar="NAME|FILE", help="A prompt template; default: the task's own."),
]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Shorten texts over the token limit instead of refusing them.")
]
OtherBase = Annotated[
    bool, typer.Option("--allow-other-base", help="Use a saved adapter on a base model of other weights.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, metavar="N", help="Of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        callback=set_verbosity,
        show_default=False,
        help="Say more; -vv says everything.",
    ),
]


def split_list(text: str) -> list[str]:
    """The items of "a,b,c"; an item with a comma stands in double quotes. Of no text, one that is empty."""
    try:
        items = next(csv.reader([text], skipinitialspace=True, strict=True), []) or [""]
        return [item.strip() for item in items]
    except csv.Error as error:
        raise PromptClfError(f"expected a list such as a,b,c, got {text!r}: {error}") from error


def parse_columns(text: str | None) -> dict[str, str]:
    """Role -> column of "text=A,label=B"."""
    roles = ("text", "label", "pair")
    chosen = {}
    for item in split_list(text) if text else []:
        role, equals, column = item.partition("=")
        if role not in roles or not equals or not (column or role == "pair"):
            raise PromptClfError(
                f"--columns: expected text=A, label=B, pair=C or, for no second text, pair=, got {item!r}"
            )
        chosen[role] = column
    return chosen


# ---- data ------------------------------------------------------------------------------------------


def load_data(data: str | None, task: str | None, columns: str | None = None) -> Dataset:
    """The data set that ``--data``, ``--task`` or both name.

    A split that has to be cut is always cut with the same seed, so that the test rows of `evaluate`
    are those that `train` left out, whatever its ``--seed``.
    """
    from promptclf.data.dataset import load_dataset

    source = data or task
    if source is None:
        raise PromptClfError(
            f"expected --data or --task, got neither; packaged tasks: {', '.join(packaged_tasks())}"
        )
    if data is None and task not in packaged_tasks():
        Task.load(source)
        raise PromptClfError(f"the task {source} has no texts of its own; name some with --data")
    given = parse_columns(columns)
    dataset = load_dataset(
        source,
        task=task if data else None,
        text=given.get("text"),
        label=given.get("label"),
        pair=given.get("pair"),
    )
    show_guess(source, dataset.columns, given)
    return dataset


def load_source(data: str, columns: str | None = None) -> Source:
    """The rows that ``--data`` names, in the splits that they come in."""
    from promptclf.data.dataset import read_source

    given = parse_columns(columns)
    source = read_source(data, **given)
    show_guess(data, source.columns, given)
    return source


def read_texts(file: str, columns: str | None = None) -> tuple[Table, dict[str, str]]:
    """The rows of a file that needs no labels, and which columns hold the text and its pair."""
    from promptclf.data.reading import choose_columns, read_table

    given = parse_columns(columns)
    table = read_table(file)
    if (label := given.pop("label", None)) is not None and label not in table.columns:
        raise PromptClfError(f"{file}: expected the label column {label!r}, got {', '.join(table.columns)}")
    chosen = choose_columns(table.columns, **given, labelled=False, where=file)
    show_guess(file, chosen, given)
    return table, chosen


def show_guess(source: str, columns: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Tell which columns were guessed, except of packaged tasks."""
    guessed = [f"{role} = {column!r}" for role, column in columns.items() if role not in given]
    if guessed and source not in packaged_tasks():
        none = " (pair= for no second text)" if "pair" in columns and "pair" not in given else ""
        say(f"{source}: guessed {', '.join(guessed)}; --columns names others{none}")


# ---- models and classifiers ------------------------------------------------------------------------


def open_model(name: str | None, quantization: Quantization | None, *, to_train: bool = False) -> HFModel:
    """The model that ``--model`` and ``--quantization`` name."""
    if not to_train:
        prepare_to_predict()
    from promptclf.lm.loading import load_model

    return load_model(name or "embedded", quantization=quantization or "none")


def open_classifier(
    path: str | Path,
    model: str | None,
    quantization: Quantization | None,
    *,
    mode: str | None = None,
    allow_other_base: bool = False,
    truncate: bool = False,
) -> PromptClassifier:
    """A saved classifier, on its own base model or on the one named."""
    from promptclf.artifacts import verify
    from promptclf.classifiers.persistence import local_folder

    folder = local_folder(path, mode=mode or "lora")
    prepare_to_predict()
    from promptclf.lm.loading import load_model
    from promptclf.modes import load_classifier

    base: Any = None
    if model or quantization:
        saved = verify(folder)["base_model"]
        if model is None and saved["source"] == "folder":
            raise PromptClfError(
                f"{path} was fitted on a model in a folder ({saved['name']}); name that folder with --model"
            )
        base = load_model(
            model or saved["name"],
            quantization=quantization or saved["requested_quantization"],
            revision=saved["revision"] if model is None and saved["source"] == "hub" else None,
        )
    classifier = load_classifier(folder, model=base, allow_other_base=allow_other_base)
    classifier.truncate = truncate
    return classifier


def check_saved_mode(path: str | Path, mode: str | None) -> None:
    """Refuse a saved classifier of another mode, before its model is loaded."""
    from promptclf.classifiers.persistence import local_folder, read_config

    saved = read_config(local_folder(path, mode=mode or "lora"))["mode"]
    if mode not in (None, saved):
        raise PromptClfError(f"--mode: {path} holds a {saved} classifier, got {mode!r}")


def shipped(
    task: str | None,
    mode: str,
    asked: Iterable[object],
    model: str | None,
    quantization: Quantization | None = None,
) -> Path | None:
    """A packaged task's fitted classifier, unless an option (not None) asks for another."""
    other = model not in (None, "embedded") or quantization not in (None, "none")
    if mode != "lora" and (other or any(value is not None for value in asked)):
        return None
    return packaged_classifier(task, mode)


def check_mode(mode: str) -> str:
    """One of MODES, or an error that lists them."""
    from promptclf.modes import MODES

    if mode not in MODES:
        raise PromptClfError(f"--mode: expected one of {', '.join(MODES)}, got {mode!r}")
    return mode


def check_folder(out: str | None, *, replaces: bool = False) -> None:
    """Refuse before any work what could not be written after it.

    Parameters
    ----------
    out
        The folder of --out.
    replaces
        Whether a classifier may lie there, which is then replaced; else a folder may hold anything but one.
    """
    if out is None:
        return
    folder, option = Path(out), f"--out {out}"
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{option}: expected a folder, got a file; choose another name")
    saved = (folder / MANIFEST).is_file()
    if saved and not replaces:
        raise ArtifactError(f"{option}: a saved classifier is there; choose another folder")
    if replaces and not saved and folder.is_dir() and any(folder.iterdir()):
        raise ArtifactError(f"{option} exists and was not made by promptclf; choose another place")
    place = folder.absolute() if folder.is_dir() and not replaces else folder.absolute().parent
    try:
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        reason = error.strerror or error
        raise ArtifactError(f"{option}: cannot be written ({reason}); choose another place") from error
