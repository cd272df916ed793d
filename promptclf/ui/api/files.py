"""Files for /classify_file: which one was uploaded, its texts, and the same rows with labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from promptclf.data.reading import choose_columns
from promptclf.data.tables import Inputs, line_inputs, render_csv, render_jsonl, table_inputs
from promptclf.errors import DataError
from promptclf.schema import MAX_CHARS, MAX_FILE_ROWS
from promptclf.task import Prediction
from promptclf.ui.core.upload import MAX_BYTES, read_upload

RENDER = {"csv": render_csv, "jsonl": render_jsonl}


def uploaded(file: Any) -> tuple[Path, str]:
    """Where an uploaded file lies, and what its owner calls it.

    Parameters
    ----------
    file
        gradio's description of a file: a dictionary with "path" and perhaps "orig_name". gradio looks at
        the path only if the dictionary says that it is a file, so that it is checked here again.

    Raises
    ------
    DataError
        If it is no file, or none that was uploaded.
    """
    try:
        path = Path(file["path"]).resolve()
        found = path.is_file() and path.is_relative_to(Path(get_upload_folder()).resolve())
    except (TypeError, KeyError, ValueError, OSError):
        found = False
    if not found:
        raise DataError("file: expected one that was uploaded before, got another; upload it first")
    name = file.get("orig_name")
    return path, name if isinstance(name, str) and name else path.name


def read_texts(path: Path, shown: str, column: str | None = None) -> Inputs:
    """The texts of a CSV, JSONL or (one a line) TXT file.

    Parameters
    ----------
    path
        Where it lies.
    shown
        What its owner calls it; errors do, too.
    column
        Which column holds the texts; None: guessed by its name.

    Raises
    ------
    DataError
        If it cannot be read, is larger than 25 MiB or has more than 10,000 texts, or one that is too long.
    """
    try:
        inputs = _read(path, shown, column)
        if len(inputs.texts) > MAX_FILE_ROWS:
            count = len(inputs.texts)
            raise DataError(f"expected at most {MAX_FILE_ROWS:,} texts, got {count:,}; split the file")
        for number, text in enumerate(inputs.texts, 1):
            if len(text) > MAX_CHARS:
                raise DataError(
                    f"row {number}: expected at most {MAX_CHARS:,} characters, got {len(text):,};"
                    " shorten the text"
                )
    except DataError as error:
        told = str(error).replace("name it with text=…", "name it with column")
        raise DataError(f"file: {told}") from None
    return inputs


def write_labelled(folder: Path, inputs: Inputs, predictions: Sequence[Prediction], output: str) -> Path:
    """Write every row with its label and probabilities to "labelled.csv" or "labelled.jsonl"."""
    path = folder / f"labelled.{output}"
    path.write_text(RENDER[output](inputs, predictions), encoding="utf-8", newline="")
    return path


def _read(path: Path, shown: str, column: str | None) -> Inputs:
    if Path(shown).suffix.lower() == ".txt":
        if path.stat().st_size > MAX_BYTES:
            raise DataError("expected at most 25 MiB, got more; split the file")
        return line_inputs(path.read_bytes(), "the file")
    table = read_upload(path, shown).table
    columns = choose_columns(table.columns, text=column, labelled=False, where=table.source)
    return table_inputs(table, {"text": columns["text"]})
