"""A report as plain text for terminals and as Markdown."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptclf.classifiers.calibrate import MIN_PRIOR_TEXTS

if TYPE_CHECKING:
    from promptclf.evaluation.report import Report
    from promptclf.evaluation.results import Result

MISSING = "–"

#: Heading of a column -> how a result reads there.
COLUMNS: dict[str, Callable[[Result], str]] = {
    "accuracy %": lambda r: f"{percent(r.metrics['accuracy'])}{interval(r, 'accuracy')}",
    "macro-F1 %": lambda r: percent(r.metrics["macro_f1"]),
    "log-loss": lambda r: f"{r.metrics['log_loss']:.3f}",
    "ECE": lambda r: f"{r.metrics['ece']:.3f}",
    "p50 ms": lambda r: _time(r, "p50_ms"),
    "p95 ms": lambda r: _time(r, "p95_ms"),
    "s/1,000": lambda r: _time(r, "seconds_per_1000"),
    "train min": lambda r: _time(r, "fit_seconds", 1 / 60),
    "peak MB": lambda r: _time(r, "peak_rss_mb"),
}


def table(report: Report) -> str:
    """The figures, aligned, with spreads and verdicts below.

    Examples
    --------
    A line of it: ``LoRA  93.2 [90.0, 96.0]  92.9  0.231  0.031  41.0  60.2  38.1  4.2  1,204``.
    """
    shown = columns(report)
    rows = [["classifier", *shown], *([r.name, *cells(r, shown)] for r in lines(report))]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    text = ["  ".join(_padded(row, widths)).rstrip() for row in rows]
    text.insert(1, "  ".join("─" * width for width in widths))
    return (
        "\n".join([*text, "", caption(report), *notes(report), *spreads(report), "", *report.verdicts]) + "\n"
    )


def markdown(report: Report) -> str:
    """The whole report as Markdown that any renderer shows; texts of users are escaped."""
    results, shown = [*report.results, *report.variants], columns(report)
    parts = [
        f"# Comparison on {_md(report.task)}",
        _table(["classifier", *shown], [[r.name, *cells(r, shown)] for r in lines(report)]),
        "\n\n".join(map(_md, [caption(report), *notes(report)])),
        _list("Verdicts", report.verdicts),
        _list("Spreads", spreads(report)),
        f"## F1 by label\n\n{_f1_table(report)}",
        *(_details(f"{r.name}: precision and recall", _class_table(r)) for r in results),
        _details("Where this comes from", _pre(origin(report))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def lines(report: Report) -> list[Result]:
    """The results as tables show them: a mean before the first of what it is the mean of."""
    found = [*report.results, *report.variants]
    for average in report.averages:
        found.insert([r.mode for r in found].index(average.mode), average)
    return found


def columns(report: Report) -> list[str]:
    """Headings of the columns in which something was measured."""
    return [name for name, render in COLUMNS.items() if any(render(r) != MISSING for r in lines(report))]


def cells(result: Result, shown: Sequence[str]) -> list[str]:
    """A result's cells in some of `COLUMNS`."""
    return [COLUMNS[name](result) for name in shown]


def caption(report: Report) -> str:
    """What was scored, what the brackets mean, and what computed."""
    parts = [
        f"{scored(report)}, {len(report.labels)} labels",
        f"in brackets 95 % paired bootstrap intervals ({report.resamples:,} resamples, seed {report.seed})",
    ]
    if report.comparisons:
        parts.append("p by McNemar's exact test, Holm-corrected")
    if found := models(report):
        parts.append(f"model: {' and '.join(found)}")
    return "; ".join(parts)


def scored(report: Report) -> str:
    """How many rows were scored, and of what kind."""
    return f"{report.rows:,} test rows" if is_split(report) else f"{report.rows:,} rows"


def is_split(report: Report) -> bool:
    """Whether the rows are the test split of data with train rows: rows that were kept from learning."""
    return bool(report.dataset.get("rows", {}).get("train") != 0)


def models(report: Report) -> list[str]:
    """The language models in use, such as "embedded (bfloat16, cpu)", each once."""
    found = []
    for result in [*report.results, *report.variants]:
        if model := result.provenance.get("model"):
            bits = "" if model["quantization"] == "none" else f", weights {model['quantization']}"
            found.append(f"{model['name']} ({model['dtype']}, {model['device']}{bits})")
    return list(dict.fromkeys(found))


def notes(report: Report) -> list[str]:
    """What a reader must know before trusting the figures."""
    found = []
    if report.unseen_labels:
        unknown = ", ".join(map(repr, report.unseen_labels))
        found.append(f"No classifier knows {unknown}: test rows with such a label count as wrong.")
    if not is_split(report):
        found.append("All rows were scored: if the classifier learned from some, figures are too good.")
    for average in report.averages:
        found.append(
            f"{average.name}: figures are means, the interval resamples test rows for these very seeds; "
            "verdicts and predictions are those of single seeds."
        )
    for result in [*report.results, *report.variants]:
        if result.truncated:
            texts = "1 text was" if result.truncated == 1 else f"{result.truncated:,} texts were"
            found.append(f"{result.name}: {texts} shortened to fit the model.")
        learned = result.provenance.get("learned", {})
        if is_uncalibrated(result):
            found.append(
                f"{result.name}: not calibrated, so it may prefer some labels whatever the text; "
                f"calibration needs at least {MIN_PRIOR_TEXTS} texts to learn from."
            )
        if count := learned.get("truncated"):
            found.append(
                f"{result.name}: {count:,} of the texts to learn from were shortened to fit the model."
            )
        if (count := learned.get("examples_too_long")) and count == learned["pool"]:
            found.append(
                f"{result.name}: all examples were longer than their token budget and shown shortened."
            )
    return found


def is_uncalibrated(result: Result) -> bool:
    """Whether zero-shot would have been calibrated, had there been enough texts to learn from."""
    learned, asked = (result.provenance.get(key, {}) for key in ("learned", "parameters"))
    found = learned.get("calibration") == "none" and asked.get("calibration") == "auto"
    return result.mode == "zero-shot" and found


def spreads(report: Report) -> list[str]:
    """How much figures move, one line a spread."""
    return [
        f"{s['name']} over {len(s['values'])} {_plural(s['over'], len(s['values']))}: "
        f"{s['metric'].replace('_', '-')} {percent(s['mean'])} on average, "
        f"{percent(s['min'])} to {percent(s['max'])} "
        f"({', '.join(f'{key}: {percent(value)}' for key, value in s['values'].items())})"
        for s in report.spreads
    ]


def origin(report: Report) -> dict[str, Any]:
    """Dataset, seeds, versions and each result's own provenance, as JSON values."""
    return {
        "dataset": report.dataset,
        **report.provenance,
        "results": {
            r.name: {
                "mode": r.mode,
                "template": r.template,
                "quantization": r.quantization,
                "seeds": r.seeds,
                **r.provenance,
            }
            for r in [*report.results, *report.variants]
        },
    }


def percent(value: float) -> str:
    """A share in per cent, one decimal."""
    return f"{100 * value:.1f}"


def interval(result: Result, metric: str) -> str:
    """The interval in brackets, in per cent, with a space before it; nothing if there is none."""
    if metric not in result.intervals:
        return ""
    low, high = result.intervals[metric]
    return f" [{percent(low)}, {percent(high)}]"


def _time(result: Result, key: str, factor: float = 1.0) -> str:
    if key not in result.timing:
        return MISSING
    value = result.timing[key] * factor
    if value < 0.005:
        return "<0.01"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _plural(over: str, count: int) -> str:
    singular = {"templates": "template", "seeds": "seed", "quantization": "quantisation"}.get(over, over)
    return singular if count == 1 else f"{singular}s"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The name on the left, figures on the right of their column."""
    gaps = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
    return [row[0] + gaps[0], *(gap + cell for gap, cell in zip(gaps[1:], row[1:], strict=True))]


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line; readable in the source too."""
    flat = re.sub(r"([\\`*_|~#]|\](?=[(\[:]))", r"\\\1", " ".join(text.split()))
    # A tag or an entity starts only before one of these; "p<0.001" stays.
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", flat))


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        list(map(_md, heading)),
        ["---", *["---:"] * (len(heading) - 1)],
        *([*map(_md, row)] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(title: str, sentences: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {_md(sentence)}" for sentence in sentences) if sentences else ""


def _f1_table(report: Report) -> str:
    results = [*report.results, *report.variants]
    rows = [
        [
            label,
            f"{results[0].per_class[label]['support']:,}",
            *(percent(r.per_class[label]["f1"]) for r in results),
        ]
        for label in report.labels
    ]
    return _table(["label", "rows", *(r.name for r in results)], rows)


def _class_table(result: Result) -> str:
    rows = [
        [label, *(percent(s[key]) for key in ("precision", "recall", "f1")), f"{s['support']:,}"]
        for label, s in result.per_class.items()
    ]
    return _table(["label", "precision %", "recall %", "F1 %", "rows"], rows)


def _pre(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, indent=1, ensure_ascii=False)
    return f"<pre>{html.escape(text, quote=False)}</pre>"


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{html.escape(summary, quote=False)}</summary>\n\n{content}\n\n</details>"
