"""A task's examples in three frozen splits: load, split, subsample, fingerprint."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from promptclf.data.hub import is_hub_id, read_hub
from promptclf.data.reading import CSV_SUFFIXES, JSONL_SUFFIXES, choose_columns, read_rows, read_table
from promptclf.data.splitting import draw_examples, split_examples
from promptclf.errors import DataError, TaskError
from promptclf.task import PACKAGED_TASKS, Example, Task, packaged_tasks

__all__ = ["HELD_OUT", "Dataset", "Source", "load_dataset", "read_rows", "read_source", "split_examples"]

log = logging.getLogger(__name__)
Key = TypeVar("Key")

#: The share of the rows that is cut off for a split which the source does not give.
HELD_OUT = 0.2

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "dev", "valid", "val"),
    "test": ("test",),
}
# Not readable, but found here so that a split file in such a format is refused and not overlooked.
_OTHER_SUFFIXES = (".json", ".parquet", ".arrow", ".xlsx", ".xls", ".gz", ".zip", ".bz2", ".xz", ".zst")


class Cleaner(Protocol):
    """A transformer of texts such as `promptclf.data.clean.TextCleaner`."""

    def transform(self, X: Iterable[Any]) -> Sequence[Any]:
        """Clean every text, or (text, pair), of `X`."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A task with its train, validation and test examples.

    Parameters
    ----------
    task
        The task; every example's label is one of its labels.
    train, validation, test
        The splits, in the order in which the fingerprint counts them.
    name
        A name for reports.
    validation_from_source
        False where the validation split was cut from train by `load_dataset`.
    columns
        Role (``text``, ``label``, ``pair``) -> the source's column, as given or guessed.
    revision
        The commit on the Hub, where the rows come from there.

    Raises
    ------
    DataError
        If a label is not one of the task's.
    """

    task: Task
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    name: str = "data"
    validation_from_source: bool = True
    columns: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None

    def __post_init__(self) -> None:
        for name in _SPLIT_NAMES:
            object.__setattr__(self, name, tuple(getattr(self, name)))
            _check_labels(getattr(self, name), self.task, f"{self.name} ({name})")

    @property
    def splits(self) -> dict[str, tuple[Example, ...]]:
        """Split name -> examples: train, validation, test."""
        return {name: getattr(self, name) for name in _SPLIT_NAMES}

    @property
    def pairs(self) -> bool:
        """Whether the examples are pairs of texts."""
        return any(examples[0].pair is not None for examples in self.splits.values() if examples)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the task's labels and of all rows in order, as 64 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(list(self.task.labels)).encode())
        for name, examples in self.splits.items():
            for example in examples:
                row = [name, example.text, example.label, example.pair, sorted(example.meta.items())]
                digest.update(b"\n" + json.dumps(row).encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Where the data came from and how much there is, as JSON types, for reports."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "labels": len(self.task.labels),
            "rows": {name: len(examples) for name, examples in self.splits.items()},
            "validation_from_source": self.validation_from_source,
            "columns": dict(self.columns),
            "revision": self.revision,
        }

    def limit(self, rows: int | None = None, test_rows: int | None = None, seed: int = 0) -> Dataset:
        """Draw a stratified subsample; the same seed draws the same rows.

        Where there are at least as many train rows as classes, every class keeps one. Where there are
        fewer, the largest classes are kept and a warning is logged.

        Parameters
        ----------
        rows
            The whole labelled budget. Where validation was cut from train, 20 % of it are validation
            rows; where the source has its own validation split, that is kept whole and `rows` counts
            train rows. None, or more than there are: all.
        test_rows
            How many test rows to keep.
        seed
            Seed of the draw.

        Raises
        ------
        DataError
            If fewer rows are asked for than one for each split.
        """
        least = 1 if self.validation_from_source else 2
        if (rows is not None and rows < least) or (test_rows is not None and test_rows < 1):
            raise DataError(
                f"limit: expected rows >= {least} and test_rows >= 1,"
                f" got rows={rows} and test_rows={test_rows}"
            )
        train, validation, test = self.train, self.validation, self.test
        if rows is not None and self.validation_from_source:
            train = draw_examples(train, rows, seed)
        elif rows is not None and rows < len(train) + len(validation):
            held = max(1, round(HELD_OUT * rows))
            train, validation = draw_examples(train, rows - held, seed), draw_examples(validation, held, seed)
        if lost := {example.label for example in self.train} - {example.label for example in train}:
            log.warning("%s: %d train rows leave %d classes without one", self.name, len(train), len(lost))
        if test_rows is not None:
            test = draw_examples(test, test_rows, seed)
        return replace(self, train=train, validation=validation, test=test)

    def clean(self, cleaner: Cleaner) -> Dataset:
        """Pass all texts, pairs included, through a transformer such as `TextCleaner`."""

        def cleaned(examples: Sequence[Example]) -> tuple[Example, ...]:
            texts = cleaner.transform([(example.text, example.pair) for example in examples])
            rows = zip(examples, texts, strict=True)
            return tuple(replace(example, text=text, pair=pair) for example, (text, pair) in rows)

        return replace(
            self, train=cleaned(self.train), validation=cleaned(self.validation), test=cleaned(self.test)
        )


@dataclass(frozen=True)
class Source:
    """What a source holds, before any split is cut: what `promptclf doctor` looks at.

    Parameters
    ----------
    name
        A name for reports: the file's, folder's, task's or Hub dataset's.
    splits
        Split name -> examples in the source's order; a single file is one split, ``train``.
    columns
        Role -> column, as given or guessed.
    task
        The task that lies beside the rows as ``task.yaml``, if any.
    revision
        The commit on the Hub, if any.
    """

    name: str
    splits: dict[str, list[Example]]
    columns: dict[str, str]
    task: Task | None = None
    revision: str | None = None


def load_dataset(
    source: str | Path,
    *,
    task: Task | str | Path | None = None,
    text: str | None = None,
    label: str | None = None,
    pair: str | None = None,
    seed: int = 0,
) -> Dataset:
    """Load examples and complete the splits, stratified by label.

    A split that the source gives is kept. A missing validation or test split is cut from train: 20 % of
    the rows each, so that a single file becomes 60/20/20.

    Parameters
    ----------
    source
        A CSV or JSONL file, a folder with train, dev (or validation) and test files, the name of a
        packaged task, or ``hub:owner/name[:config][@revision]``.
    task
        A task, a packaged task's name or a YAML file. Default: ``task.yaml`` in the folder; without
        one, a task whose labels are those of all splits, sorted.
    text, label, pair
        Columns to use; see `read_rows`. ``pair=""``: there is no second text.
    seed
        Seed of the cuts.

    Raises
    ------
    DataError
        If the source cannot be read, a label is not one of the task's, or a split has to be cut and a
        class has fewer than two rows.
    TaskError
        If `task` is not a valid task.
    """
    found = read_source(source, text=text, label=label, pair=pair)
    chosen = task if isinstance(task, Task) else found.task if task is None else Task.load(task)
    if chosen is None:
        labels = sorted({example.label for rows in found.splits.values() for example in rows})
        try:
            chosen = Task(name=found.name, labels=tuple(labels))
        except TaskError as error:
            raise DataError(f"{found.name}: the column {found.columns['label']!r}: {error}") from error
    for split, examples in found.splits.items():
        _check_labels(examples, chosen, f"{found.name} ({split})")
    splits: dict[str, Sequence[Example]] = dict(found.splits)
    missing = [split for split in _SPLIT_NAMES if split not in splits]
    if missing:
        fractions = (1 - HELD_OUT * len(missing), *[HELD_OUT] * len(missing))
        try:
            parts = split_examples(splits["train"], fractions=fractions, seed=seed)
        except DataError as error:
            raise DataError(f"{found.name}: no {' or '.join(missing)} split: {error}") from error
        splits.update(zip(["train", *missing], parts, strict=True))
        log.info("%s: cut from train: %s", found.name, ", ".join(missing))
    return Dataset(
        chosen,
        tuple(splits["train"]),
        tuple(splits["validation"]),
        tuple(splits["test"]),
        name=found.name,
        validation_from_source="validation" in found.splits,
        columns=found.columns,
        revision=found.revision,
    )


def read_source(
    source: str | Path, *, text: str | None = None, label: str | None = None, pair: str | None = None
) -> Source:
    """Read every split of a file, folder, packaged task or Hub dataset as it is.

    Parameters and errors are those of `load_dataset`. The columns are chosen on the train split and
    expected in the others.
    """
    task = revision = None
    if is_hub_id(source):
        name = str(source).removeprefix("hub:")
        every, revision = read_hub(str(source))
        tables = {split: every[key] for split, key in _find_splits(name, {key: key for key in every}).items()}
    elif (path := _locate(source)).is_dir():
        name = path.resolve().name or "data"
        files = {file: file.name.split(".")[0] for file in _data_files(path)}
        tables = {split: read_table(file) for split, file in _find_splits(str(path), files).items()}
        task = Task.load(path / "task.yaml") if (path / "task.yaml").is_file() else None
    else:
        name, tables = path.stem, {"train": read_table(path)}
    train = tables["train"]
    columns = choose_columns(
        train.columns, text=text, label=label, pair=pair, labelled=True, where=train.source
    )
    if revision and "test" in tables and not any(columns["label"] in row for row in tables["test"].rows):
        log.warning("%s: its labels are withheld; a test split is cut from train", tables.pop("test").source)
    splits = {split: table.examples(columns) for split, table in tables.items()}
    return Source(name, splits, columns, task, revision)


def _check_labels(examples: Sequence[Example], task: Task, where: str) -> None:
    known = set(task.labels)
    for index, example in enumerate(examples):
        if example.label not in known:
            close = difflib.get_close_matches(example.label, task.labels, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "add it to the task or correct the row"
            raise DataError(
                f"{where}, row {index + 1}: expected one of the {len(known)} labels of the task"
                f" {task.name!r}, got {example.label!r}; {hint}"
            )


def _locate(source: str | Path) -> Path:
    path = Path(source)
    try:
        if path.exists():
            return path
    except (OSError, ValueError) as error:
        raise DataError(f"{str(source)[:80]!r}: cannot be read: {error}") from error
    if str(source) in packaged_tasks():
        return PACKAGED_TASKS / str(source)
    raise DataError(
        f"no data {str(source)!r}: there is no such file or folder; expected a CSV or JSONL file, a folder,"
        f" hub:owner/name or one of the packaged tasks {packaged_tasks()}"
    )


def _data_files(folder: Path) -> list[Path]:
    suffixes = (*CSV_SUFFIXES, *JSONL_SUFFIXES, *_OTHER_SUFFIXES)
    try:
        return sorted(file for file in folder.iterdir() if file.name.lower().endswith(suffixes))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error}") from error


def _find_splits(where: str, names: Mapping[Key, str]) -> dict[str, Key]:
    """Match files or Hub splits to train, validation and test by name."""
    found: dict[str, Key] = {}
    for split, aliases in _SPLIT_NAMES.items():
        keys = [key for key, name in names.items() if name.lower() in aliases]
        if len(keys) > 1:
            raise DataError(
                f"{where}: expected one {split} split, got {', '.join(str(key) for key in keys)}; keep one"
            )
        if keys:
            found[split] = keys[0]
    if "train" not in found:
        raise DataError(
            f"{where}: expected train.csv or train.jsonl, got {[str(key) for key in names] or 'no data'};"
            " rename a file or give one file instead of the folder"
        )
    if ignored := [str(key) for key in names if key not in found.values()]:
        log.info("%s: not used: %s", where, ", ".join(ignored))
    return found
