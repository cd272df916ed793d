"""A report as one HTML page: no script, no request, light and dark by the reader's own setting."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from promptclf.evaluation import charts, report_text
from promptclf.evaluation.charts import escape
from promptclf.evaluation.report_text import MISSING, percent

if TYPE_CHECKING:
    from promptclf.evaluation.report import Report
    from promptclf.evaluation.results import Result
    from promptclf.evaluation.significance import Comparison

MISTAKES = 9  # how many confused pairs are listed

_CSS = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 40px 0 12px; }
h3 { font-size: 14px; margin: 0 0 10px; }
h3 small { font-weight: 400; margin-left: 6px; }
header { margin-bottom: 16px; }
p { margin: 0 0 8px; }
.muted, small { color: var(--muted); }
small { font-size: 12.5px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; }
.card + .card { margin-top: 16px; }
.scroll { overflow-x: auto; }
.row { display: flex; flex-wrap: wrap; gap: 24px 28px; align-items: flex-start; }
.row > * { min-width: 0; max-width: 100%; }
.caption { margin: 12px 0 0; }
.grow { flex: 1 1 190px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { padding: 7px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 500; font-size: 12.5px; }
tr:last-child > td { border-bottom: 0; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
th.words, td.words { text-align: left; }
td.words { white-space: normal; overflow-wrap: anywhere; min-width: 90px; }
tr.best > td:first-child, tr.best .main { color: var(--accent); font-weight: 650; }
tr.variant > td:first-child { padding-left: 14px; color: var(--muted); }
td svg.chart { margin-left: auto; }
ul { list-style: none; margin: 0; padding: 0; }
li { padding: 7px 0 7px 26px; position: relative; overflow-wrap: anywhere; }
li::before { position: absolute; left: 2px; font-weight: 700; }
li.found::before { content: "✓"; color: var(--good); }
li.open::before { content: "?"; color: var(--open); }
li.note::before { content: "!"; color: var(--open); }
.shade { border-radius: 4px; padding: 2px 6px; }
summary { cursor: pointer; color: var(--muted); }
details > .row + details { margin-top: 14px; }
details > summary + * { margin-top: 12px; }
details.card > summary { color: var(--ink); font-weight: 600; font-size: 15px; }
details.card > summary small { font-weight: 400; margin-left: 8px; }
details details > summary { font-size: 13.5px; }
pre { overflow-x: auto; font-size: 12px; line-height: 1.45; margin: 0; }
footer { margin-top: 40px; }
@media (max-width: 640px) { main { padding: 24px 14px 48px; } .card { padding: 14px; } }
@media print { .card { break-inside: avoid; } body { background: none; } }
"""

_KEY = (
    '<span style="color: var(--accent)">■</span> accuracy '
    '<span style="color: var(--wrong); opacity: 0.5">■</span> gap to confidence'
)

# Nothing but inline style is ever needed: a browser then refuses everything else.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(report: Report) -> str:
    """The whole report as a self-contained page; every text from outside is escaped."""
    results = [*report.results, *report.variants]
    sections = [
        _header(report),
        _figures(report, report_text.lines(report)),
        _verdicts(report.comparisons),
        _cost(report, results),
        _spreads(report),
        f"<h2>By classifier</h2>{''.join(_classifier(result, report.labels) for result in results)}",
        _by_label(report, results),
        _origin(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Comparison on {escape(report.task)}</title>\n<style>{charts.CSS}{_CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(filter(None, sections))}\n</main>\n</body>\n</html>\n"
    )


def _header(report: Report) -> str:
    facts = [report_text.scored(report)]
    split = report.dataset.get("rows", {})
    facts += [f"{split[name]:,} {name} rows" for name in ("train", "validation") if name in split]
    facts += [f"{len(report.labels)} labels"]
    if fingerprint := report.dataset.get("fingerprint"):
        facts.append(f"data {str(fingerprint)[:12]}")
    notes = "".join(f'<li class="note">{escape(note)}</li>' for note in report_text.notes(report))
    return (
        f"<header><h1>Comparison on {escape(report.task)}</h1>"
        f'<p class="muted">{escape(" · ".join(facts))}</p></header>'
        f"{_card(f'<ul>{notes}</ul>') if notes else ''}"
    )


def _figures(report: Report, results: Sequence[Result]) -> str:
    spans = [result.intervals["accuracy"] for result in results]
    scale = (min(low for low, _ in spans), max(high for _, high in spans))
    best = max(result.metrics["accuracy"] for result in report.results)
    rows, kinds, shown = [], [], report_text.columns(report)
    for result, span in zip(results, spans, strict=True):
        accuracy = result.metrics["accuracy"]
        best_of_all = result in report.results and accuracy == best
        kinds.append("variant" if result in report.variants else "best" if best_of_all else "")
        picture = charts.interval_chart(accuracy, span, scale)
        rows.append([escape(result.name), picture, *map(_figure, report_text.cells(result, shown))])
    heading = ["classifier", "", *shown]
    note = f'<p class="caption"><small>{escape(report_text.caption(report))}</small></p>'
    return f"<h2>Figures</h2>{_card(_table(heading, rows, kinds=kinds) + note)}"


def _verdicts(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return ""
    sentences = "".join(
        f'<li class="{"found" if c.distinguishable else "open"}">{escape(c.verdict)}</li>'
        for c in comparisons
    )
    ends = [end for c in comparisons for end in c.accuracy_interval]
    scale = (min(0.0, *ends), max(0.0, *ends))
    rows = [
        [
            f"{escape(c.a)} – {escape(c.b)}",
            charts.interval_chart(c.accuracy, c.accuracy_interval, scale, zero=True),
            _difference(c.accuracy, c.accuracy_interval),
            _difference(c.macro_f1, c.macro_f1_interval),
            f"{c.only_a:,} : {c.only_b:,}",
            f"{c.p_value:.2g}",
            f"{c.p_adjusted:.2g}",
        ]
        for c in comparisons
    ]
    heading = ["pair", "", "accuracy, points", "macro-F1, points", "right alone", "p", "p, corrected"]
    details = f"<summary>Every difference with its test</summary>{_table(heading, rows)}"
    return (
        f"<h2>Which differences are real</h2>{_card(f'<ul>{sentences}</ul>')}"
        f'<details class="card">{details}</details>'
    )


def _cost(report: Report, results: Sequence[Result]) -> str:
    points = [
        charts.Point(
            result.name,
            result.timing["seconds_per_1000"],
            result.metrics["accuracy"],
            result.intervals["accuracy"],
            result in report.variants,
        )
        for result in results
        if "seconds_per_1000" in result.timing
    ]
    if not points:
        return ""
    return f"<h2>Accuracy against cost</h2>{_card(_scroll(charts.cost_chart(points)))}"


def _spreads(report: Report) -> str:
    if not report.spreads:
        return ""
    scale = (min(s["min"] for s in report.spreads), max(s["max"] for s in report.spreads))
    rows = [
        [
            escape(f"{s['name']} over {s['over']}"),
            charts.interval_chart(s["mean"], (s["min"], s["max"]), scale),
            percent(s["mean"]),
            f"{percent(s['min'])} to {percent(s['max'])}",
            escape(", ".join(f"{key}: {percent(value)}" for key, value in s["values"].items())),
        ]
        for s in report.spreads
    ]
    heading = ["what varies", "", "mean %", "range %", "values %"]
    return f"<h2>Spread</h2>{_card(_table(heading, rows, words=(0, 4)))}"


def _classifier(result: Result, labels: Sequence[str]) -> str:
    name, shown = result.name, result.metrics
    facts = [f"accuracy {percent(shown['accuracy'])} %", f"log-loss {shown['log_loss']:.3f}"]
    facts += [f"Brier {shown['brier']:.3f}"]
    facts += [f"template {result.template}"] if result.template else []
    facts += [f"quantisation {result.quantization}"] if result.quantization else []
    matrix = charts.confusion_chart(result.confusion, labels, f"Confusion matrix of {name}")
    diagram = charts.reliability_chart(result.reliability, shown["ece"], f"Reliability diagram of {name}")
    by_label = [
        [escape(label), *(percent(s[key]) for key in ("precision", "recall", "f1")), f"{s['support']:,}"]
        for label, s in result.per_class.items()
    ]
    heading = ["label", "precision %", "recall %", "F1 %", "rows"]
    return (
        f'<details class="card" open><summary>{escape(name)} <small>{escape(" · ".join(facts))}</small>'
        f'</summary><div class="row">'
        f"<div><h3>Confusion <small>true ↓ predicted →</small></h3>{_scroll(matrix)}</div>"
        f"<div><h3>Reliability <small>{_KEY}</small></h3>{_scroll(diagram)}{_by_chance(shown)}</div>"
        f'<div class="grow"><h3>Most frequent mistakes</h3>{_mistakes(result, labels)}</div></div>'
        f"<details><summary>Precision and recall by label</summary>{_table(heading, by_label)}</details>"
        "</details>"
    )


def _by_chance(shown: dict[str, float]) -> str:
    if "ece_by_chance" not in shown:  # a report of an earlier version
        return ""
    chance = f"{shown['ece_by_chance']:.3f}"
    return f"<p><small>Perfectly calibrated, it would show about {chance} on as many rows.</small></p>"


def _mistakes(result: Result, labels: Sequence[str]) -> str:
    pairs = [
        (count, true, predicted)
        for true, row in zip(labels, result.confusion, strict=True)
        for predicted, count in zip(labels, row, strict=True)
        if true != predicted and count
    ]
    pairs.sort(key=lambda pair: -pair[0])
    rows = [
        [f'{escape(true)} <span class="muted">→</span> {escape(predicted)}', f"{count:,}"]
        for count, true, predicted in pairs[:MISTAKES]
    ]
    return _table(["true → predicted", "rows"], rows) if rows else "<p>None.</p>"


def _by_label(report: Report, results: Sequence[Result]) -> str:
    rows = [
        [
            escape(label),
            f"{results[0].per_class[label]['support']:,}",
            *(_shade(result.per_class[label]["f1"]) for result in results),
        ]
        for label in report.labels
    ]
    heading = ["label", "rows", *(result.name for result in results)]
    return f"<h2>F1 by label, %</h2>{_card(_table(heading, rows))}"


def _origin(report: Report) -> str:
    text = json.dumps(report_text.origin(report), indent=1, ensure_ascii=False)
    content = f'<pre class="card">{escape(text)}</pre>'
    return f"<footer><details><summary>Where this comes from</summary>{content}</details></footer>"


def _shade(f1: float) -> str:
    # Squared: most labels do well, and it is the others that must stand out.
    tint = f"color-mix(in srgb, var(--accent) {45 * f1**2:.0f}%, transparent)"
    return f'<span class="shade" style="background: {tint}">{percent(f1)}</span>'


def _difference(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * value:+.1f} <small>[{100 * low:.1f}, {100 * high:.1f}]</small>"


def _figure(cell: str) -> str:
    """A cell of the text table with its interval, if any, set back."""
    main, bracket, interval = cell.partition(" [")
    kind = "muted" if main == MISSING else "main"
    after = f" <small>[{escape(interval)}</small>" if bracket else ""
    return f'<span class="{kind}">{escape(main)}</span>{after}'


def _table(
    titles: Iterable[str],
    rows: Iterable[Sequence[str]],
    *,
    words: Sequence[int] = (0,),
    kinds: Iterable[str] = (),
) -> str:
    """A table of cells that are HTML already; `words` are columns of text, `kinds` classes of rows."""
    heading = "".join(f"<th{_kind(i in words)}>{escape(title)}</th>" for i, title in enumerate(titles))
    body = ""
    for row, kind in zip_longest(rows, kinds, fillvalue=""):
        cells = "".join(f"<td{_kind(i in words)}>{cell}</td>" for i, cell in enumerate(row))
        body += f'<tr class="{kind}">{cells}</tr>'
    return _scroll(f"<table><tr>{heading}</tr>{body}</table>")


def _kind(words: bool) -> str:
    return ' class="words"' if words else ""


def _card(content: str) -> str:
    return f'<div class="card">{content}</div>'


def _scroll(content: str) -> str:
    return f'<div class="scroll">{content}</div>'
