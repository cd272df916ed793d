"""What classifying a file reads and writes: texts, and the same rows with labels and probabilities."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptclf.data.csv_safe import write_rows
from promptclf.data.reading import Table
from promptclf.errors import DataError
from promptclf.task import Prediction


@dataclass(frozen=True)
class Inputs:
    """Texts to classify, each with all fields of the row that it came from.

    `skipped` counts blank lines of a plain text file, which are no rows.
    """

    texts: Sequence[str | tuple[str, str]]
    rows: Sequence[Mapping[str, str]]
    columns: Sequence[str] = ("text",)
    skipped: int = 0


def plain_inputs(texts: Sequence[str], skipped: int = 0) -> Inputs:
    """Texts that came without a table."""
    return Inputs(list(texts), [{"text": text} for text in texts], skipped=skipped)


def table_inputs(table: Table, columns: Mapping[str, str]) -> Inputs:
    """The rows of a table; `columns` says which hold the ``text`` and its ``pair``.

    Raises
    ------
    DataError
        If a row lacks its text or pair.
    """
    examples = table.examples({role: name for role, name in columns.items() if role != "label"})
    texts = [e.text if e.pair is None else (e.text, e.pair) for e in examples]
    return Inputs(texts, table.rows, table.columns)


def line_inputs(content: bytes, source: str) -> Inputs:
    """The lines of a plain text file in UTF-8, one text a line.

    Raises
    ------
    DataError
        If it is not UTF-8, or has no text.
    """
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
    return plain_inputs(filled, len(texts) - len(filled))


def render_csv(inputs: Inputs, predictions: Sequence[Prediction]) -> str:
    """Every input row with its label, the probability of each label, ``p(label)``, and "truncated".

    No cell is run by a spreadsheet. An input column with the name of a new one is kept as
    ``name (input)``.
    """
    labels = list(predictions[0].probabilities)
    new = ["label", "probability", *(f"p({label})" for label in labels), "truncated"]
    rows = [[*_kept(inputs.columns, new), *new]]
    for row, found in zip(inputs.rows, predictions, strict=True):
        figures = [f"{p:.6g}" for p in (found.probabilities[found.label], *found.probabilities.values())]
        cells = [row.get(column, "") for column in inputs.columns]
        rows.append([*cells, found.label, *figures, json.dumps(found.truncated)])
    return write_rows(rows)


def render_jsonl(inputs: Inputs, predictions: Sequence[Prediction]) -> str:
    """The same, one JSON object a line, with the probabilities as one object."""
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
