"""What is known about rows: the doctor's findings, label counts, and how they are split."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

from promptclf.data.dataset import Dataset
from promptclf.data.doctor import Finding, diagnose
from promptclf.task import Example
from promptclf.ui.views.report import table
from promptclf.ui.words import Language, say

EXAMINED = 10_000  # rows the doctor looks at: near-duplicates take a second for every 2,500
GROUPS, NUMBERS, SHOWN_CHARS, SAMPLE = 3, 6, 140, 2
_MARKS = {"error": "✗", "warning": "!", "info": "i"}


def examine(rows: Mapping[str, Sequence[Example]]) -> tuple[list[Finding], int]:
    """The doctor's findings, and how many rows were looked at: of very many, some are drawn.

    Parameters
    ----------
    rows
        Split -> its rows. The findings' row numbers are those of the splits.
    """
    total = sum(map(len, rows.values()))
    if total <= EXAMINED:
        return diagnose(rows), total
    share = EXAMINED / total
    draw = random.Random(0)
    kept = {
        split: sorted(draw.sample(range(len(examples)), round(share * len(examples))))
        for split, examples in rows.items()
    }
    found = diagnose({split: [rows[split][i] for i in indices] for split, indices in kept.items()})
    numbered = [
        replace(f, rows=tuple(row._replace(row=kept[row.split][row.row - 1] + 1) for row in f.rows))
        for f in found
    ]
    return numbered, sum(map(len, kept.values()))


def findings_card(
    findings: Sequence[Finding], examined: int, rows: Mapping[str, Sequence[Example]], language: Language
) -> str:
    """What the doctor found, the worst first, each with what to do and some of the rows."""
    total = sum(map(len, rows.values()))
    key = "data_examined" if examined == total else "data_examined_some"
    said = say(language, key, rows=f"{examined:,}", total=f"{total:,}")
    items = "".join(_finding(finding, rows, language) for finding in findings)
    if not items:
        items = f'<li class="pw-found">{escape(say(language, "data_nothing_found"))}</li>'
    return (
        f"<h3>{escape(say(language, 'data_findings'))}</h3>"
        f'<p class="pw-legend">{escape(said)}</p><ul class="pw-findings">{items}</ul>'
    )


def labels_card(dataset: Dataset, language: Language) -> str:
    """How many rows each label has, in all and in every part."""
    counts = {split: Counter(row.label for row in rows) for split, rows in dataset.splits.items()}
    totals = {label: sum(count[label] for count in counts.values()) for label in dataset.task.labels}
    most = max(totals.values(), default=0) or 1
    rows = [
        [
            _label(label, dataset.task.descriptions.get(label, "")),
            _bar(total / most),
            f"<b>{total:,}</b>",
            *(f"{count[label]:,}" for count in counts.values()),
        ]
        for label, total in totals.items()
    ]
    sums = [f"{len(part):,}" for part in dataset.splits.values()]
    whole = f"<b>{sum(totals.values()):,}</b>"
    rows.append([f"<b>{escape(say(language, 'data_all'))}</b>", "", whole, *sums])
    heading = [say(language, "data_label"), "", say(language, "data_rows")]
    heading += [say(language, f"data_{split}") for split in dataset.splits]
    title = say(language, "data_labels_title")
    return (
        f"<h3>{escape(title)}</h3><p class='pw-legend'>{escape(say(language, 'data_split_info'))}</p>"
        f'<div class="pw-labels-table">{table(heading, rows, title)}</div>'
    )


def sample_card(dataset: Dataset, language: Language) -> str:
    """A few rows of every part."""
    rows = [
        [
            escape(say(language, f"data_{split}")) if number == 0 else "",
            f'<span class="pw-text" dir="auto">{escape(_short(_joined(row)))}</span>',
            f'<span dir="auto">{escape(row.label)}</span>',
        ]
        for split, part in dataset.splits.items()
        for number, row in enumerate(part[:SAMPLE])
    ]
    title = say(language, "data_sample")
    heading = [say(language, "data_part"), say(language, "data_text"), say(language, "data_label")]
    return (
        f'<details class="pw-fold"><summary>{escape(title)}</summary>'
        f"{table(heading, rows, title, words=3, stacked=True)}</details>"
    )


def _finding(finding: Finding, rows: Mapping[str, Sequence[Example]], language: Language) -> str:
    labels = ", ".join(finding.labels[:5]) + ("…" if len(finding.labels) > 5 else "")
    said = say(language, f"data_find_{finding.kind}", count=f"{finding.count:,}", labels=labels)
    advice = say(language, f"data_advice_{finding.kind}")
    severity = say(language, f"data_{finding.severity}")
    return (
        f'<li class="pw-{finding.severity}"><i title="{escape(severity)}" role="img"'
        f' aria-label="{escape(severity)}">{_MARKS[finding.severity]}</i>'
        f'<div><span dir="auto">{escape(said)}</span> <span class="pc-meta">{escape(advice)}</span>'
        f"{_groups(finding, rows, language)}</div></li>"
    )


def _groups(finding: Finding, rows: Mapping[str, Sequence[Example]], language: Language) -> str:
    """The first rows concerned, those that belong together on one line."""
    grouped: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for row in finding.rows:
        if len(grouped) < GROUPS or row.group in grouped:
            grouped[row.group].append((row.split, row.row))
    several = len(rows) > 1
    items = []
    for places in grouped.values():
        names = {split: say(language, f"data_{split}") + " " if several else "" for split in rows}
        numbers = [f"{names[split]}{number:,}" for split, number in places[:NUMBERS]]
        more = "…" if len(places) > NUMBERS else ""
        split, number = places[0]
        where = say(language, "data_row_numbers", numbers=", ".join(numbers) + more)
        text = _short(_joined(rows[split][number - 1]))
        items.append(f'<li>{escape(where)} <span dir="auto">{escape(text)}</span></li>')
    if not items:
        return ""
    summary = escape(say(language, "data_show_rows"))
    return f"<details><summary>{summary}</summary><ul>{''.join(items)}</ul></details>"


def _label(label: str, description: str) -> str:
    said = f' <span class="pc-meta" dir="auto">{escape(description)}</span>' if description else ""
    return f'<span dir="auto">{escape(label)}</span>{said}'


def _bar(share: float) -> str:
    width = f"width:{100 * share:.1f}%"
    return f'<span class="pc-track" aria-hidden="true"><span style="{width}"></span></span>'


def _joined(example: Example) -> str:
    return example.text if example.pair is None else f"{example.text} / {example.pair}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_CHARS else f"{flat[:SHOWN_CHARS]}…"
