"""From an uploaded file to a dataset: read it by its content, choose columns, name the labels."""

from __future__ import annotations

import csv
import re
import secrets
import tempfile
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from promptclf.data.dataset import HELD_OUT, Dataset
from promptclf.data.reading import (
    CSV_SUFFIXES,
    JSONL_SUFFIXES,
    KNOWN_COLUMNS,
    Table,
    choose_columns,
    read_table,
)
from promptclf.data.splitting import split_examples
from promptclf.errors import DataError, TaskError
from promptclf.schema import MAX_LABELS, MAX_ROWS
from promptclf.task import Example, Task

MAX_BYTES = 25 * 2**20
MAX_NAME_CHARS = 60
MAX_INSTRUCTION_CHARS = 500
KEPT = 16  # uploads in memory, of all visitors together
ROLES = ("text", "label")  # no packaged prompt shows a second text
SUFFIXES = (*CSV_SUFFIXES, *JSONL_SUFFIXES)
_ARROW = re.compile(r"\s*(?:->|→)\s*")
_COLON = re.compile(r"\s*[:：]\s*")
_CJK = re.compile("[\u3400-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True)
class Draft:
    """An uploaded file that is no dataset yet.

    Parameters
    ----------
    id
        Made here; it tells two uploads of one visitor apart.
    name
        The file's name without its ending, short and printable.
    table
        All rows, every field as text.
    guess
        Role (``text``, ``label``) -> the column that its name suggests.
    """

    id: str
    name: str
    table: Table
    guess: Mapping[str, str]


class Drafts:
    """The newest upload of each visitor, in memory only; the oldest go when there are too many."""

    def __init__(self) -> None:
        self._drafts: OrderedDict[str, Draft] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, owner: str, draft: Draft) -> None:
        """Keep a draft instead of the owner's earlier one."""
        with self._lock:
            self._drafts.pop(owner, None)
            self._drafts[owner] = draft
            while len(self._drafts) > KEPT:
                self._drafts.popitem(last=False)

    def get(self, owner: str, draft_id: str) -> Draft:
        """The owner's draft.

        Raises
        ------
        DataError
            If it is gone, or another one took its place.
        """
        with self._lock:
            found = self._drafts.get(owner)
        if found is None or found.id != draft_id:
            raise DataError("file: expected the one that was uploaded here, it is gone; upload it again")
        return found

    def holds(self, owner: str, draft_id: str) -> bool:
        """Whether a draft is still the owner's newest."""
        with self._lock:
            found = self._drafts.get(owner)
        return found is not None and found.id == draft_id

    def drop(self, owner: str) -> None:
        """Forget the owner's draft."""
        with self._lock:
            self._drafts.pop(owner, None)


def read_upload(path: Path, shown: str) -> Draft:
    """Read a file by its content, whatever it is called.

    Parameters
    ----------
    path
        Where it lies; whoever calls deletes it.
    shown
        What the visitor calls it; errors do, too.

    Raises
    ------
    DataError
        If it is larger than 25 MiB or 100,000 rows, not text, malformed or without rows.
    """
    name = _printable(Path(shown).name) or "data"
    if (size := path.stat().st_size) > MAX_BYTES:
        raise DataError(f"{name}: expected at most 25 MiB, got {size / 2**20:.1f}; upload fewer rows")
    with tempfile.TemporaryDirectory() as folder:
        # Read under an ending that fits the content.
        link = Path(folder) / ("upload.jsonl" if _is_jsonl(path) else "upload.csv")
        link.symlink_to(path.resolve())
        try:
            _check_rows(link)
            table = read_table(link)
        except DataError as error:
            raise DataError(str(error).replace(repr(str(link)), name).replace(str(link), name)) from None
    stem = Path(name).stem if Path(name).suffix.lower() in SUFFIXES else name
    table = replace(table, source=name)
    return Draft(secrets.token_hex(8), stem[:MAX_NAME_CHARS], table, guess_columns(table.columns))


def guess_columns(names: Sequence[str]) -> dict[str, str]:
    """Role -> column for text and label, as far as the names tell."""
    try:
        found = choose_columns(names)
    except DataError:  # no text column among them
        known = {name.casefold(): name for name in reversed(names)}
        hits = [known[name] for name in KNOWN_COLUMNS["label"] if name in known]
        found = {"label": hits[0]} if hits else {}
    return {role: column for role, column in found.items() if role in ROLES}


def read_examples(draft: Draft, columns: Mapping[str, str]) -> list[Example]:
    """The rows as examples; columns without a role are left behind.

    Raises
    ------
    DataError
        If text and label are not both chosen or are one column, or a row lacks one of them.
    """
    if missing := [role for role in ROLES if not columns.get(role)]:
        raise DataError(f"{missing[0]}: expected a column, got none; choose one")
    if len(set(columns.values())) < len(columns):
        raise DataError("columns: expected different ones for text and label, got the same; choose again")
    return [replace(example, meta={}) for example in draft.table.examples(columns)]


def label_lines(examples: Iterable[Example]) -> str:
    """The labels that occur, the most frequent first, one a line: what `read_labels` reads."""
    counts = Counter(example.label for example in examples)
    return "\n".join(label.strip() for label, _ in counts.most_common())


def read_labels(lines: str, known: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """What the visitor wrote about labels, one a line: ``name``, ``old -> new``, ``name: description``.

    A line that begins with a label of the data means that label, whatever signs it holds. Labels that
    are renamed to the same name become one.

    Parameters
    ----------
    lines
        In the order in which prompts shall list the labels.
    known
        The labels of the data.

    Returns
    -------
    Label of the data (or a new one) -> its name, in order; and name -> description where there is one.

    Raises
    ------
    TaskError
        If a label of the data is missing, or a line repeats one.
    """
    longest = sorted(known, key=len, reverse=True)
    names: dict[str, str] = {}
    descriptions: dict[str, str] = {}
    for line in filter(None, map(str.strip, lines.splitlines())):
        old, name, said = _read_line(line, longest)
        if old in names:
            raise TaskError(f"labels: expected each label once, got {old!r:.60} twice; remove a line")
        names[old] = name
        if said:
            descriptions[name] = said
    if missing := [label for label in longest if label not in names]:
        raise TaskError(
            f"labels: expected all labels of the data, {missing[0]!r:.60} is missing; "
            f"add it, or write {missing[0]} -> another to make it one with another"
        )
    if len(set(names.values())) > MAX_LABELS:
        raise TaskError(f"labels: expected at most {MAX_LABELS}, got {len(set(names.values()))}; merge some")
    return names, descriptions


def build_dataset(
    name: str,
    examples: Sequence[Example],
    labels: str,
    *,
    instruction: str = "",
    template: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """Name the labels and cut the rows into 60 % train, 20 % validation and 20 % test.

    Parameters
    ----------
    name
        For the list of tasks and for reports.
    examples
        With the labels of the data.
    labels
        What `read_labels` reads.
    instruction, template
        Of the task.
    columns
        Role -> column, to be kept with the data.

    Raises
    ------
    DataError, TaskError
        If a label is not usable, or a class has fewer than two rows.
    """
    if not (name := _printable(name)[:MAX_NAME_CHARS]):
        raise DataError("name: expected one for the data set, got none; give it a name")
    if len(instruction) > MAX_INSTRUCTION_CHARS:
        raise DataError(
            f"instruction: expected at most {MAX_INSTRUCTION_CHARS} characters, got {len(instruction):,}"
        )
    names, descriptions = read_labels(labels, dict.fromkeys(example.label for example in examples))
    task = Task(
        name,
        tuple(dict.fromkeys(names.values())),
        " ".join(instruction.split()),
        descriptions,
        template=template,
    )
    renamed = [replace(example, label=names[example.label]) for example in examples]
    fractions = (1 - 2 * HELD_OUT, HELD_OUT, HELD_OUT)
    train, validation, test = split_examples(renamed, fractions=fractions, seed=0)
    kept = dict(columns or {})
    return Dataset(task, train, validation, test, name=name, validation_from_source=False, columns=kept)


def looks_chinese(examples: Sequence[Example]) -> bool:
    """Whether most of the first texts hold Chinese characters: prompts should then be Chinese."""
    some = examples[:100]
    return 2 * sum(bool(_CJK.search(example.text)) for example in some) > len(some)


def _read_line(line: str, longest: Sequence[str]) -> tuple[str, str, str]:
    """Label, name and description of a line; labels are tried from the longest on."""
    for old in longest:
        rest = line.removeprefix(old.strip())
        if rest == line:
            continue
        if arrow := _ARROW.match(rest):
            name, _, said = _parted(rest[arrow.end() :])
            return old, name or old.strip(), said
        if not rest.strip() or _COLON.match(rest):
            return old, old.strip(), _parted(rest)[2]
    name, _, said = _parted(line)
    return name, name, said


def _parted(text: str) -> tuple[str, str, str]:
    """What stands before the first colon, the colon, and what stands after it."""
    found = _COLON.search(text)
    return (
        (text[: found.start()].strip(), found[0], text[found.end() :].strip())
        if found
        else (text.strip(), "", "")
    )


def _is_jsonl(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4096)
    return start.lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n").startswith(b"{")


def _check_rows(path: Path) -> None:
    """Count rows without keeping them: a small file can hold millions."""
    with path.open("rb") as file:
        if sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) <= MAX_ROWS:
            return
    with path.open(encoding="utf-8", errors="replace", newline="") as text:
        if path.suffix == ".jsonl":
            rows: Iterable[object] = (line for line in text if line.strip())
        else:
            first = text.readline()
            delimiter = next((char for char in ",\t;" if char in first), ",")
            rows = filter(None, csv.reader(text, delimiter=delimiter))
        try:
            count = sum(1 for _ in islice(rows, MAX_ROWS + 1))
        except csv.Error:  # `read_table` says where
            return
    if count > MAX_ROWS:
        raise DataError(f"{path}: expected at most {MAX_ROWS:,} rows, got more; upload fewer")


def _printable(name: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in name).split())
