"""Read labelled texts from CSV and JSONL: everything is text and no row is dropped silently."""

from __future__ import annotations

import csv
import difflib
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from promptclf.errors import DataError
from promptclf.task import Example

log = logging.getLogger(__name__)

MAX_FIELD_CHARS = 131_072  # the csv module's own limit, kept for JSONL too
CSV_SUFFIXES = (".csv", ".tsv")
JSONL_SUFFIXES = (".jsonl", ".ndjson")

#: Column names that are recognised for a role, best first, compared without regard to case.
KNOWN_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": (
        *("text", "sentence", "message", "review", "content", "question", "utterance", "query", "tweet"),
        *("comment", "body", "document", "description", "headline", "title", "sms", "input", "premise"),
        *("sentence1", "text1", "question1", "text_a", "sentence_a", "文本", "内容", "句子", "标题"),
    ),
    "label": (
        *("label_text", "label_name", "label", "labels", "category", "class", "intent", "sentiment", "topic"),
        *("target", "emotion", "class_label", "coarse_label", "gold_label", "y", "标签", "类别", "分类"),
    ),
    "pair": (
        *("pair", "text_pair", "text2", "sentence2", "hypothesis", "question2", "text_b", "sentence_b"),
    ),
}

NO_PAIR = ("pair", "")  # the role and name that switch the guess of a second text off

_NOT_TEXT = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip or xlsx",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xd0\xcf\x11\xe0": "xls",
    b"SQLite format 3\x00": "SQLite",
    b"%PDF": "PDF",
}
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")  # NUL and halves of surrogate pairs


@dataclass(frozen=True)
class Table:
    """Rows of named text fields, and where each row came from.

    Parameters
    ----------
    source
        A file or Hub split, as error messages call it.
    columns
        Column names in the source's order.
    rows
        One mapping a row: column -> text. JSONL and Hub rows may lack optional columns.
    lines
        The line on which each row ends; empty for the Hub.
    nested
        Columns that hold lists or objects, as JSON text, with the index of the first such row.
    """

    source: str
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int] = field(default_factory=list)
    nested: dict[str, int] = field(default_factory=dict)

    def where(self, index: int) -> str:
        """The source, row (counted from 1) and line of ``rows[index]``, for error messages."""
        line = f" (line {self.lines[index]})" if self.lines else ""
        return f"{self.source}, row {index + 1}{line}"

    def examples(self, columns: Mapping[str, str]) -> list[Example]:
        """The rows as examples; columns without a role go to ``Example.meta``.

        Parameters
        ----------
        columns
            Role (``text``, ``label``, ``pair``) -> column, as `choose_columns` returns it. Without a
            ``label``, every label is ``""``.

        Raises
        ------
        DataError
            If a row lacks its text, label or pair, or its label is blank.
        """
        for role, name in columns.items():
            if name not in self.columns:
                _no_column(name, role, self.columns, self.source)
            if name in self.nested:
                raise DataError(
                    f"{self.where(self.nested[name])}: expected text in the column {name!r},"
                    f" got a list or object"
                )
        used = set(columns.values())
        examples = []
        for index, row in enumerate(self.rows):
            fields = {role: row.get(name) for role, name in columns.items()}
            for role, value in fields.items():
                if value is None or (role == "label" and not value.strip()):
                    raise DataError(
                        f"{self.where(index)}: expected a {role} in the column {columns[role]!r}"
                        ", got nothing; fill it in or remove the row"
                    )
            meta = {name: value for name, value in row.items() if name not in used}
            examples.append(
                Example(fields["text"] or "", fields.get("label") or "", fields.get("pair"), meta)
            )
        return examples


def read_rows(
    path: str | Path,
    *,
    text: str | None = None,
    label: str | None = None,
    pair: str | None = None,
    labelled: bool | None = None,
) -> list[Example]:
    """Read a CSV or JSONL file, one example a row, in the file's order.

    Parameters
    ----------
    path
        A ``.csv``, ``.tsv``, ``.jsonl`` or ``.ndjson`` file in UTF-8, or in UTF-16 with a byte order mark.
    text, label, pair
        Columns to use. Those not given are guessed from `KNOWN_COLUMNS`; the guess is logged at INFO.
        ``pair=""``: there is no second text, whatever the columns are called.
    labelled
        True: a label column is required. False: none is looked for. None: it is read where there is one.
        Rows without a label column get the label ``""``.

    Raises
    ------
    DataError
        If the file cannot be read to its end, with the file, row and reason.
    """
    table = read_table(path)
    columns = choose_columns(
        table.columns, text=text, label=label, pair=pair, labelled=labelled, where=table.source
    )
    return table.examples(columns)


def read_table(path: str | Path) -> Table:
    """Read every field of a CSV or JSONL file as text.

    Raises
    ------
    DataError
        If the file is missing, not of these types, not Unicode, malformed or without rows.
    """
    path = Path(path)
    content = _read_text(path)
    suffix = path.suffix.lower()
    if suffix in JSONL_SUFFIXES:
        table = _parse_jsonl(str(path), content)
    elif suffix in CSV_SUFFIXES:
        table = _parse_csv(str(path), content, _tabs(content) if suffix == ".tsv" else _csv(content))
    else:
        raise DataError(
            f"{path}: expected a file ending in {', '.join(CSV_SUFFIXES + JSONL_SUFFIXES)}, got"
            f" {suffix or 'none'!r}; save it as CSV, or as JSONL with one object a line"
        )
    if not table.rows:
        raise DataError(f"{path}: expected rows, got none; the file holds no data")
    for index, row in enumerate(table.rows):
        for name, value in row.items():
            if len(value) > MAX_FIELD_CHARS:
                raise DataError(
                    f"{table.where(index)}: expected at most {MAX_FIELD_CHARS:,} characters in a field,"
                    f" got {len(value):,} in {name!r}; shorten the text"
                )
    return table


def choose_columns(
    names: Sequence[str],
    *,
    text: str | None = None,
    label: str | None = None,
    pair: str | None = None,
    labelled: bool | None = None,
    where: str = "the data",
) -> dict[str, str]:
    """Decide which column holds the text, the label and the second text.

    Parameters are those of `read_rows`; `where` names the source in messages.

    Returns
    -------
    dict
        Role (``text``, ``label``, ``pair``) -> column; roles without a column are left out.

    Raises
    ------
    DataError
        If a given column is missing or used twice, or none is found for the text or a required label.
    """
    given = {"text": text, "label": label, "pair": pair}
    chosen = {role: name for role, name in given.items() if name is not None and (role, name) != NO_PAIR}
    for role, name in chosen.items():
        if name not in names:
            _no_column(name, role, names, where)
    if len(set(chosen.values())) < len(chosen):
        raise DataError(
            f"{where}: expected a column of its own for each of {', '.join(chosen)},"
            f" got {list(chosen.values())}"
        )
    for role, known in KNOWN_COLUMNS.items():
        unwanted = (role == "label" and labelled is False) or (role, given[role]) == NO_PAIR
        if role not in chosen and not unwanted:
            free = {name.casefold(): name for name in reversed(names) if name not in chosen.values()}
            if hits := [free[name] for name in known if name in free]:
                chosen[role] = hits[0]
    left = [name for name in names if name not in chosen.values()]
    if "text" not in chosen and "label" in chosen and len(left) == 1:
        chosen["text"] = left[0]
    for role in ("text", "label") if labelled else ("text",):
        if role not in chosen:
            raise DataError(
                f"{where}: expected a {role} column such as {', '.join(map(repr, KNOWN_COLUMNS[role][:4]))},"
                f" got {list(names)}; name it with {role}=…"
            )
    chosen = {role: chosen[role] for role in KNOWN_COLUMNS if role in chosen}
    shown = (f"{role} = {name!r}{'' if given[role] else ' (guessed)'}" for role, name in chosen.items())
    log.info("%s: %s", where, ", ".join(shown))
    return chosen


def _read_text(path: Path) -> str:
    """Decode a file, refusing by content what is not a text file before reading all of it."""
    try:
        if not path.is_file():
            raise DataError(
                f"{path}: expected a CSV or JSONL file, got {'a folder' if path.is_dir() else 'no file'}"
            )
        with path.open("rb") as file:
            start = file.read(16)
            for magic, kind in _NOT_TEXT.items():
                if start.startswith(magic):
                    raise DataError(
                        f"{path}: expected CSV or JSONL text, got {kind} content;"
                        " unpack or export it as CSV first"
                    )
            raw = start + file.read()
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{str(path)!r}: cannot be read: {error}") from error
    if raw.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        raise DataError(f"{path}: expected UTF-8 text, got UTF-32; save the file as UTF-8")
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: expected {encoding[:6].rstrip('-').upper()} text, got the byte"
            f" 0x{raw[error.start]:02x} ({error.reason}); save the file as UTF-8"
        ) from error
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise DataError(f"{path}, line {line}: expected text, got a NUL character; save the file as UTF-8")
    return text


def _csv(content: str) -> dict[str, Any]:
    """How a CSV file is written, told by its header."""
    first = content[: content.find("\n")] if "\n" in content else content
    return {"delimiter": next((char for char in ",\t;" if char in first), ",")}


def _tabs(content: str) -> dict[str, Any]:
    """How a TSV file is written: a tab ends a field, a line a row, and quotes are characters like others.

    Unless it was exported by a program that quotes as in CSV: then every field that begins with a quote
    is a quoted one, and some hold doubled quotes.
    """
    quoted = [field for field in re.split(r"[\t\r\n]", content) if field.startswith('"')]
    like_csv = any('""' in field[1:-1] for field in quoted) and all(map(_QUOTED.fullmatch, quoted))
    return {"delimiter": "\t", "quoting": csv.QUOTE_MINIMAL if like_csv else csv.QUOTE_NONE}


def _parse_csv(source: str, content: str, dialect: dict[str, Any]) -> Table:
    # Strict: quoting errors are reported, not guessed around. newline="" keeps line breaks in quotes.
    reader = csv.reader(io.StringIO(content, newline=""), strict=True, **dialect)
    literal = dialect.get("quoting") == csv.QUOTE_NONE
    cure = "write no tab inside a text" if literal else "put texts that hold a separator in double quotes"
    table: Table | None = None
    try:
        for fields in reader:
            if not fields:
                continue  # an empty line is no row; an empty field in a one-column file is ""
            if table is None:
                table = Table(source, _header(source, fields), [])
            elif len(fields) != len(table.columns):
                raise DataError(
                    f"{source}, row {len(table.rows) + 1} (line {reader.line_num}): expected"
                    f" {len(table.columns)} fields ({', '.join(table.columns)}), got {len(fields)}; {cure}"
                )
            else:
                table.rows.append(dict(zip(table.columns, fields, strict=True)))
                table.lines.append(reader.line_num)
    except csv.Error as error:
        row = f"row {len(table.rows) + 1}" if table else "header"
        raise DataError(
            f"{source}, {row} (line {reader.line_num}): expected valid CSV, got an error: {error};"
            " check the double quotes there"
        ) from error
    return table or Table(source, (), [])


def _header(source: str, fields: list[str]) -> tuple[str, ...]:
    names = [name.strip() or f"column {index}" for index, name in enumerate(fields, start=1)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{source}: expected different column names, got {twice[0]!r} more than once; rename one"
        )
    return tuple(names)


def _parse_jsonl(source: str, content: str) -> Table:
    rows: list[dict[str, str]] = []
    lines: list[int] = []
    columns: dict[str, None] = {}
    nested: dict[str, int] = {}
    for number, line in enumerate(content.split("\n"), start=1):  # splitlines() would cut at U+2028
        if not line.strip():
            continue
        where = f"{source}, row {len(rows) + 1} (line {number})"
        try:
            # Numbers stay as written: 1.0, 1e3 and 12345678901234567890 are texts here.
            value = _DECODER.decode(line.strip())
            row = {} if not isinstance(value, dict) else _text_fields(value)
        except RecursionError as error:
            raise DataError(f"{where}: expected a flat JSON object, got one nested too deeply") from error
        except ValueError as error:
            raise DataError(f"{where}: expected a JSON object on one line, got an error: {error}") from error
        if not isinstance(value, dict):
            raise DataError(
                f"{where}: expected a JSON object, got a {type(value).__name__}: {line.strip()[:40]}"
            )
        if "\\u" in line and any(_UNWRITABLE.search(part) for item in row.items() for part in item):
            raise DataError(
                f"{where}: expected Unicode text, got an escaped NUL or half of a surrogate pair; remove it"
            )
        rows.append(row)
        lines.append(number)
        columns.update(dict.fromkeys(value))
        for name, item in value.items():
            if isinstance(item, (dict, list)):
                nested.setdefault(name, len(rows) - 1)
    return Table(source, tuple(columns), rows, lines, nested)


def _text_fields(values: dict[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
        if value is not None
    }


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} occurs more than once")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=str, parse_int=str, parse_constant=str)


def _no_column(name: str, role: str, names: Sequence[str], where: str) -> NoReturn:
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise DataError(f"{where}: expected a column {name!r} for the {role}, got {list(names)}{hint}")
