"""What is wrong with a data set: duplicates, leaks, conflicts, imbalance, long texts, label collisions."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from promptclf.data.dataset import Dataset
from promptclf.data.similarity import normal_form, similar_pairs
from promptclf.task import Example, Task

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

NEAR = 0.5  # Jaccard similarity of character 5-grams from which two texts are near-duplicates
IMBALANCE = 5  # a class is rare if the largest has more than this many times its rows
SMALL_CLASS = 10  # train rows
MAX_PAIRS = 1_000_000  # near-duplicates are counted so far; more are only found in generated texts


class Row(NamedTuple):
    """A row of a split, counted from 1; rows of one group belong together."""

    split: str
    row: int
    group: int


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at before results are trusted.

    Parameters
    ----------
    kind
        What was found, such as ``"duplicates"``.
    severity
        ``error``: results would mislead; ``warning``: they may suffer; ``info``: good to know.
    count
        How many rows, texts or labels are concerned, as `message` says.
    message
        One sentence with the count.
    advice
        One sentence about what to do.
    rows
        The rows concerned; of duplicates also those that are repeated.
    labels
        The labels concerned, if it is about labels.
    """

    kind: str
    severity: Severity
    count: int
    message: str
    advice: str
    rows: tuple[Row, ...] = ()
    labels: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary of JSON types."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "count": self.count,
            "message": self.message,
            "advice": self.advice,
            "rows": [row._asdict() for row in self.rows],
            "labels": list(self.labels),
        }


def diagnose(
    data: Dataset | Mapping[str, Sequence[Example]],
    *,
    task: Task | None = None,
    count_tokens: Callable[[list[str]], list[int]] | None = None,
    encode: Callable[[str], list[int]] | None = None,
    max_tokens: int | None = None,
) -> list[Finding]:
    """Check examples and labels; the worst findings come first.

    Parameters
    ----------
    data
        A data set, or split name -> examples (`read_source` gives them uncut, with the row numbers of
        the files). Classes are counted on ``train``, or on everything if there is no such split.
    task
        Whose labels and verbalisers to check. Default: the data set's, or the labels that occur.
    count_tokens
        Optional: texts -> their lengths in tokens. Of a pair, both texts are joined by a line break.
    encode
        Optional: a label's words -> their token ids, as a model would score them.
    max_tokens
        The limit that `count_tokens` is compared with.

    Returns
    -------
    list of Finding
        Empty if nothing was found.
    """
    splits = data.splits if isinstance(data, Dataset) else dict(data)
    task = data.task if isinstance(data, Dataset) and task is None else task
    labels = sorted({example.label for examples in splits.values() for example in examples})
    findings = [*_check_texts(splits), *_check_near_duplicates(splits)]
    findings += _check_labels(splits, labels, task)
    findings += _check_classes(splits, task.labels if task else labels)
    findings += _check_spelling(labels)
    if count_tokens is not None and max_tokens is not None:
        findings += _check_lengths(splits, count_tokens, max_tokens)
    if encode is not None:
        words = {
            label: task.verbaliser(label) if task else label for label in (task.labels if task else labels)
        }
        findings += _check_tokens({label: tuple(encode(word)) for label, word in words.items()})
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _check_texts(splits: Mapping[str, Sequence[Example]]) -> Iterable[Finding]:
    """Empty texts; the same text twice, in two splits, or with two labels."""
    copies: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
    empty: list[Row] = []
    for split, examples in splits.items():
        for number, example in enumerate(examples, start=1):
            if not (key := _key(example)):
                empty.append(Row(split, number, len(empty)))
            else:
                copies[key].append((split, number, example.label))
    if empty:
        yield Finding(
            "empty_texts",
            "warning",
            len(empty),
            f"{_rows(len(empty))} without text",
            "fill them in or remove them: they can only be guessed",
            tuple(empty),
        )
    groups = [group for group in copies.values() if len(group) > 1]
    leaks = [group for group in groups if len({split for split, _, _ in group}) > 1]
    if leaks:
        count = sum(split != group[0][0] for group in leaks for split, _, _ in group)
        yield Finding(
            "duplicates_across_splits",
            "error",
            count,
            f"{_rows(count)} whose text stands in an earlier split too",
            "remove them from train: scores on texts seen in training are too high",
            _grouped(leaks),
        )
    repeats = [
        [copy for copy in group if copy[0] == split]
        for group in groups
        for split in dict.fromkeys(copy[0] for copy in group)
    ]
    if repeats := [group for group in repeats if len(group) > 1]:
        count = sum(len(group) - 1 for group in repeats)
        yield Finding(
            "duplicates",
            "warning",
            count,
            f"{_rows(count)} whose text stands earlier in the same split",
            "keep one of each: repeated rows count twice in training and in the score",
            _grouped(repeats),
        )
    conflicts = [group for group in groups if len({label for _, _, label in group}) > 1]
    if conflicts:
        yield Finding(
            "conflicting_labels",
            "error",
            len(conflicts),
            f"{len(conflicts)} text{'s' * (len(conflicts) > 1)} with more than one label",
            "decide on one label for each: no classifier can get them all right",
            _grouped(conflicts),
            tuple(sorted({label for group in conflicts for _, _, label in group})),
        )


def _check_near_duplicates(splits: Mapping[str, Sequence[Example]]) -> Iterable[Finding]:
    """Rows much like an earlier one; the most similar earlier row is named."""
    nodes: dict[tuple[str, str], int] = {}  # equal texts are _check_texts' concern: one row stands for them
    for split, examples in splits.items():
        for number, example in enumerate(examples, start=1):
            nodes.setdefault((split, _key(example)), number)
    rows = list(nodes.items())
    closest: dict[tuple[bool, int], tuple[float, int]] = {}
    pairs = 0
    for block in similar_pairs([key for _, key in nodes], threshold=NEAR):
        for earlier, later, similarity in block:
            (split, key), (other_split, other_key) = rows[earlier][0], rows[later][0]
            slot = (split != other_split, later)
            if key != other_key and similarity > closest.get(slot, (0.0, 0))[0]:
                closest[slot] = (similarity, earlier)
        pairs += len(block)
        if pairs > MAX_PAIRS:
            break
    least = "at least " if pairs > MAX_PAIRS else ""
    for across in (True, False):
        groups = [
            [(rows[index][0][0], rows[index][1]) for index in (earlier, later)]
            for (is_across, later), (_, earlier) in sorted(closest.items())
            if is_across == across
        ]
        if groups:
            place = "a row of an earlier split" if across else "an earlier row of the same split"
            yield Finding(
                "near_duplicates_across_splits" if across else "near_duplicates",
                "warning" if across else "info",
                len(groups),
                f"{least}{_rows(len(groups))} much like {place} (5-gram Jaccard similarity >= {NEAR})",
                "read some: rewordings of train rows make the score too high"
                if across
                else "read some: many rows made from one pattern teach less than their number suggests",
                _grouped(groups),
            )


def _check_labels(
    splits: Mapping[str, Sequence[Example]], labels: Sequence[str], task: Task | None
) -> Iterable[Finding]:
    """What `load_dataset` refuses: a single label, and labels that the task does not have."""
    if len(labels) == 1 and task is None:
        yield Finding(
            "single_label",
            "error",
            1,
            f"1 label only: {labels[0]!r}",
            "add rows with another label: there is nothing to choose between",
            labels=tuple(labels),
        )
    if task and (strange := tuple(label for label in labels if label not in task.labels)):
        groups = {label: group for group, label in enumerate(strange)}
        rows = [
            Row(split, number, groups[example.label])
            for split, examples in splits.items()
            for number, example in enumerate(examples, start=1)
            if example.label in groups
        ]
        yield Finding(
            "unknown_labels",
            "error",
            len(rows),
            f"{_rows(len(rows))} with a label that the task {task.name!r} does not have: {_some(strange)}",
            "add the labels to the task, or correct or remove the rows",
            tuple(sorted(rows, key=lambda row: row.group)),
            strange,
        )


def _check_classes(splits: Mapping[str, Sequence[Example]], labels: Sequence[str]) -> Iterable[Finding]:
    """Classes without rows, with few rows, and with far fewer rows than the largest."""
    where = "train" if "train" in splits else "data"
    examples = splits[where] if where in splits else [row for rows in splits.values() for row in rows]
    counts = Counter(example.label for example in examples)
    if absent := tuple(label for label in labels if not counts[label]):
        yield Finding(
            "absent_classes",
            "warning",
            len(absent),
            f"{_classes(len(absent))} without a {where} row: {_some(absent)}",
            "add rows: these can be predicted zero-shot but not learnt",
            labels=absent,
        )
    if small := tuple(label for label in labels if 0 < counts[label] < SMALL_CLASS):
        single = any(counts[label] < 2 for label in small)
        yield Finding(
            "small_classes",
            "error" if single else "warning",
            len(small),
            f"{_classes(len(small))} with fewer than {SMALL_CLASS} {where} rows:"
            f" {_some([f'{label} ({counts[label]})' for label in small])}",
            "add rows or merge the classes"
            + ("; a class with one row cannot be split into train and test" if single else ""),
            labels=small,
        )
    largest = max(counts.values(), default=0)
    if rare := tuple(label for label in labels if 0 < counts[label] * IMBALANCE < largest):
        yield Finding(
            "imbalance",
            "warning",
            len(rare),
            f"{_classes(len(rare))} with less than 1/{IMBALANCE} of the {largest} {where} rows of the"
            f" largest:"
            f" {_some([f'{label} ({counts[label]})' for label in rare])}",
            "judge by macro-F1 rather than accuracy, and use class weights in training",
            labels=rare,
        )


def _check_spelling(labels: Sequence[str]) -> Iterable[Finding]:
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        spellings[unicodedata.normalize("NFC", label).strip().casefold()].append(label)
    if variants := [group for group in spellings.values() if len(group) > 1]:
        yield Finding(
            "label_spellings",
            "error",
            len(variants),
            f"{len(variants)} label{'s' * (len(variants) > 1)} in more than one spelling:"
            f" {_some([' = '.join(map(repr, group)) for group in variants])}",
            "write each label in one way",
            labels=tuple(label for group in variants for label in group),
        )


def _check_lengths(
    splits: Mapping[str, Sequence[Example]], count_tokens: Callable[[list[str]], list[int]], limit: int
) -> Iterable[Finding]:
    places = [(split, number) for split, examples in splits.items() for number in range(1, len(examples) + 1)]
    lengths = count_tokens([_joined(example) for examples in splits.values() for example in examples])
    long = [place for place, length in zip(places, lengths, strict=True) if length > limit]
    if long:
        yield Finding(
            "long_texts",
            "warning",
            len(long),
            f"{_rows(len(long))} over the limit of {limit} tokens; the longest has {max(lengths)}",
            "shorten them, or ask for truncation: they are refused otherwise",
            tuple(Row(split, number, group) for group, (split, number) in enumerate(long)),
        )


def _check_tokens(tokens: Mapping[str, tuple[int, ...]]) -> Iterable[Finding]:
    """Labels that a model cannot tell apart, or only by where they end."""
    owners: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for label, ids in tokens.items():
        owners[ids].append(label)
    equal = [label for ids, group in owners.items() if len(group) > 1 or not ids for label in group]
    if equal:
        yield Finding(
            "label_token_collisions",
            "error",
            len(equal),
            f"{len(equal)} label{'s' * (len(equal) > 1)} with no tokens or those of another"
            f" label: {_some(equal)}",
            "give each a verbaliser of its own: the model cannot tell these apart",
            labels=tuple(equal),
        )
    starts = {ids[:end] for ids in owners for end in range(1, len(ids))}
    if begun := tuple(label for label, ids in tokens.items() if ids in starts):
        yield Finding(
            "label_prefixes",
            "info",
            len(begun),
            f"{len(begun)} label{'s' * (len(begun) > 1)} whose tokens begin another label: {_some(begun)}",
            "nothing must be done, the end is scored too; verbalisers that begin differently work better",
            labels=begun,
        )


def _key(example: Example) -> str:
    return normal_form(_joined(example))


def _joined(example: Example) -> str:
    return example.text if example.pair is None else f"{example.text}\n{example.pair}"


def _grouped(groups: Iterable[Sequence[tuple[Any, ...]]]) -> tuple[Row, ...]:
    return tuple(Row(item[0], item[1], number) for number, group in enumerate(groups) for item in group)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _classes(count: int) -> str:
    return "1 class" if count == 1 else f"{count} classes"


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
