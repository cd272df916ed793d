"""CSV cells that no spreadsheet runs as a formula, and back again without loss.

A cell that a spreadsheet would calculate gets an apostrophe in front (OWASP, "CSV Injection"). So does
one that looks as if it had got one already, which is what makes the way back exact.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA = tuple("=+-@＝＋－＠")
_LEADING = ("\t", "\r", "\n")


def safe_cell(text: str) -> str:
    """`text` as a cell that spreadsheets show and do not run."""
    return f"'{text}" if _runs(text.lstrip("'")) else text


def original_cell(cell: str) -> str:
    """The text that `safe_cell` was given."""
    return cell[1:] if cell.startswith("'") and _runs(cell.lstrip("'")) else cell


def write_rows(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV text (RFC 4180), every cell safe."""
    file = io.StringIO(newline="")
    csv.writer(file).writerows([safe_cell(cell) for cell in row] for row in rows)
    return file.getvalue()


def read_rows(text: str) -> list[list[str]]:
    """What `write_rows` was given."""
    return [[original_cell(cell) for cell in row] for row in csv.reader(io.StringIO(text, newline=""))]


def _runs(text: str) -> bool:
    return text.startswith(_LEADING) or text.lstrip().startswith(_FORMULA)
