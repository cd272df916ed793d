"""Texts in, predictions out: what `classify` reads and writes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from promptclf.artifacts import write_text
from promptclf.cli.common import read_texts
from promptclf.cli.frame import say
from promptclf.data.tables import Inputs, line_inputs, plain_inputs, render_csv, render_jsonl, table_inputs
from promptclf.errors import ArtifactError, DataError
from promptclf.task import Prediction

CSV, JSONL, PLAIN = (".csv",), (".jsonl", ".ndjson"), (".txt",)


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
            if not text.strip():
                raise DataError(f"text {number}: expected text, got an empty one")
            if any("\ud800" <= char <= "\udfff" for char in text):  # how bytes that are no text arrive
                raise DataError(f"text {number}: expected UTF-8, got other bytes; use --file")
        return plain_inputs(texts)
    if file is None and sys.stdin.isatty():
        raise DataError("expected texts, got none; give some as arguments, by --file or on standard input")
    if file in (None, "-"):
        return _lines(sys.stdin.buffer.read(), "standard input")
    if Path(str(file)).suffix.lower() in PLAIN:
        return _lines(Path(str(file)).read_bytes(), str(file))
    inputs = table_inputs(*read_texts(str(file), columns))
    if empty := [number for number, text in enumerate(inputs.texts, 1) if not "".join(text).strip()]:
        one = f"row {empty[0]} has no text"
        some = one if len(empty) == 1 else f"{len(empty)} rows have no text, such as row {empty[0]}"
        say(f"warning: {file}: {some}; a label that comes of it means nothing")
    return inputs


def _lines(content: bytes, source: str) -> Inputs:
    inputs = line_inputs(content, source)
    if inputs.skipped:
        say(f"{source}: {inputs.skipped} blank line{'s' * (inputs.skipped > 1)} skipped")
    return inputs


# ---- predictions -----------------------------------------------------------------------------------


def check_out(out: str | None, *inputs: str | None) -> None:
    """Refuse a file that could not be written, or is one of those to read, before any work is done."""
    if out is None:
        return
    path = Path(out)
    if path.suffix.lower() not in CSV + JSONL:
        raise DataError(f"--out: expected a file ending in .csv or .jsonl, got {path.name!r}")
    if path.is_dir() or not path.parent.is_dir():
        what = "a folder" if path.is_dir() else f"no folder {str(path.parent)!r}"
        raise ArtifactError(f"--out {out}: expected a file in an existing folder, got {what}")
    if any(file and path.exists() and Path(file).exists() and path.samefile(file) for file in inputs):
        raise DataError(f"--out {out}: this is the file to read; choose another name")


def write_predictions(out: str, inputs: Inputs, predictions: Sequence[Prediction]) -> None:
    """Write every input row with its label and probabilities: to CSV or JSONL, whole or not at all."""
    path = Path(out)
    render = render_csv if path.suffix.lower() in CSV else render_jsonl
    try:
        write_text(path, render(inputs, predictions))
    except OSError as error:
        raise ArtifactError(f"cannot write {out}: {error.strerror or error}; nothing was changed") from error
