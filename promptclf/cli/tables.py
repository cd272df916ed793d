"""Texts in, predictions out: what `classify` reads and writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptclf.artifacts import write_text
from promptclf.cli.common import read_texts
from promptclf.cli.frame import say
from promptclf.csv_safe import write_rows
from promptclf.errors import ArtifactError, DataError
from promptclf.task import Prediction

if TYPE_CHECKING:
    from promptclf.classifier import Text

CSV, JSONL, PLAIN = (".csv",), (".jsonl", ".ndjson"), (".txt",)


@dataclass(frozen=True)
class Inputs:
    """Texts to classify, each with all fields of the row that it came from."""

    texts: Sequence[Text]
    rows: Sequence[Mapping[str, str]]
    columns: Sequence[str] = ("text",)


def read_inputs(texts: Sequence[str] | None, file: str | None, columns: str | None = None) -> Inputs:
    """Texts from the command line, from a file, or else from standard input.

    Raises
    ------
    DataError
        If there are none, or they cannot be read.
    """
    if texts and file:
        raise DataError("expected texts or --file, got both; leave one out")
    if texts:
        for number, text in enumerate(texts, 1):
            if any("\ud800" <= char <= "\udfff" for char in text):  # how bytes that are no text arrive
                raise DataError(f"text {number}: expected UTF-8, got other bytes; use --file")
        return _plain(texts)
    if file is None and sys.stdin.isatty():
        raise DataError("expected texts, got none; give some as arguments, by --file or on standard input")
    if file in (None, "-"):
        return _lines(sys.stdin.buffer.read(), "standard input")
    if Path(str(file)).suffix.lower() in PLAIN:
        return _lines(Path(str(file)).read_bytes(), str(file))
    table, chosen = read_texts(str(file), columns)
    found = [e.text if e.pair is None else (e.text, e.pair) for e in table.examples(chosen)]
    return Inputs(found, table.rows, table.columns)


def _lines(content: bytes, source: str) -> Inputs:
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{source}, line {line}: expected UTF-8 text; save it as UTF-8") from error
    texts = [line.rstrip("\r") for line in lines]
    if not texts[-1]:
        texts.pop()  # a file ends in a line break
    filled = [text for text in texts if text.strip()]
    if not filled:
        raise DataError(f"{source}: expected texts, one a line, got none")
    if blank := len(texts) - len(filled):
        say(f"{source}: {blank} blank line{'s' * (blank > 1)} skipped")
    return _plain(filled)


def _plain(texts: Sequence[str]) -> Inputs:
    return Inputs(list(texts), [{"text": text} for text in texts])


# ---- predictions -----------------------------------------------------------------------------------


def check_out(out: str | None, file: str | None) -> None:
    """Refuse a file that could not be written, before any work is done for it."""
    if out is None:
        return
    path = Path(out)
    if path.suffix.lower() not in CSV + JSONL:
        raise DataError(f"--out: expected a file ending in .csv or .jsonl, got {path.name!r}")
    if path.is_dir() or not path.parent.is_dir():
        what = "a folder" if path.is_dir() else f"no folder {str(path.parent)!r}"
        raise ArtifactError(f"--out {out}: expected a file in an existing folder, got {what}")
    if file and path.exists() and Path(file).exists() and path.samefile(file):
        raise DataError(f"--out {out}: this is the file to read; choose another name")


def write_predictions(out: str, inputs: Inputs, predictions: Sequence[Prediction]) -> None:
    """Write every input row with its label and probabilities: to CSV or JSONL, whole or not at all.

    In CSV the probability of each label has a column of its own, ``p(label)``. An input column with
    the name of a new one is kept as ``name (input)``.
    """
    path = Path(out)
    render = _csv if path.suffix.lower() in CSV else _jsonl
    try:
        write_text(path, render(inputs, predictions))
    except OSError as error:
        raise ArtifactError(f"cannot write {out}: {error.strerror or error}; nothing was changed") from error


def _csv(inputs: Inputs, predictions: Sequence[Prediction]) -> str:
    labels = list(predictions[0].probabilities)
    new = ["label", "probability", *(f"p({label})" for label in labels), "truncated"]
    rows = [[*_kept(inputs.columns, new), *new]]
    for row, found in zip(inputs.rows, predictions, strict=True):
        figures = [f"{p:.6g}" for p in (found.probabilities[found.label], *found.probabilities.values())]
        cells = [row.get(column, "") for column in inputs.columns]
        rows.append([*cells, found.label, *figures, json.dumps(found.truncated)])
    return write_rows(rows)


def _jsonl(inputs: Inputs, predictions: Sequence[Prediction]) -> str:
    new = ("label", "probabilities", "truncated")
    names = dict(zip(inputs.columns, _kept(inputs.columns, new), strict=True))
    lines = []
    for row, found in zip(inputs.rows, predictions, strict=True):
        values: dict[str, Any] = {names[column]: value for column, value in row.items()}
        values |= {key: value for key, value in found.to_dict().items() if key in new}
        lines.append(json.dumps(values, ensure_ascii=False) + "\n")
    return "".join(lines)


def _kept(columns: Sequence[str], new: Sequence[str]) -> list[str]:
    """Names of the input's columns beside new ones, each only once."""
    taken = {*new, *(column for column in columns if column not in new)}
    names = []
    for column in columns:
        name = column
        while column in new and name in taken:
            name += " (input)"
        taken.add(name)
        names.append(name)
    return names
