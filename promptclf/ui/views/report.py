"""A comparison as it stands on the page: verdicts, figures, pictures, and the rows that divide the modes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from promptclf.classifiers.calibrate import MIN_PRIOR_TEXTS
from promptclf.evaluation import charts
from promptclf.evaluation.report import Report
from promptclf.evaluation.report_text import COLUMNS, MISSING, is_uncalibrated, percent
from promptclf.evaluation.results import Result
from promptclf.evaluation.significance import Comparison, format_p, two_digits
from promptclf.modes import MODES
from promptclf.ui.words import Language, say, sentences

MISTAKES = 6
DIVIDED, DIVIDED_FIRST = 50, 8
SHOWN_CHARS = 280
WIDTHS = {"wide": 640.0, "narrow": 300.0}  # of the scatter, for screens of either kind
#: The report's columns that the page shows, and the key of each one's heading.
FIGURES = {
    "accuracy %": "evaluate_accuracy",
    "macro-F1 %": "evaluate_macro_f1",
    "log-loss": "evaluate_log_loss",
    "ECE": "evaluate_ece",
    "p50 ms": "evaluate_p50",
    "s/1,000": "evaluate_per_1000",
    "train min": "evaluate_fit",
}


def report_view(
    report: Report, name: str, language: Language, predictions: Sequence[Sequence[str]] = ()
) -> str:
    """Everything about a comparison, best news first.

    Parameters
    ----------
    report
        As it was kept; its predictions are not needed.
    name
        What the task is called on the page.
    predictions
        The rows of predictions.csv with their heading, for the rows that divide the modes.
    """
    best = max(report.results, key=lambda result: result.metrics["accuracy"])
    sections = [
        _lead(report, name, best, language),
        _figures(report, best, language),
        _cost(report, language),
        *(_classifier(result, report.labels, language, shown=result is best) for result in report.results),
        _divided(report, predictions, language),
    ]
    return f'<section class="pw-work">{"".join(sections)}</section>'


def name_of(name: str, language: Language) -> str:
    """What a result is called on the page: a mode by its title, anything else as in the report."""
    return say(language, f"mode_{name}") if name in MODES else name


def verdict(comparison: Comparison, language: Language) -> str:
    """`Comparison.verdict` in the language of the page."""
    names = {"a": name_of(comparison.a, language), "b": name_of(comparison.b, language)}
    if comparison.distinguishable:
        low, high = comparison.accuracy_interval
        return say(
            language,
            "evaluate_beats",
            **names,
            points=f"{100 * comparison.accuracy:.1f}",
            interval=f"[{100 * low:.1f}, {100 * high:.1f}]",
            p=format_p(comparison.p_adjusted),
        )
    tie = say(language, "evaluate_tie", **names, rows=f"{comparison.rows:,}")
    if comparison.only_a + comparison.only_b == 0:
        return say(language, "evaluate_tie_same", tie=tie)
    if comparison.rows_needed is None:
        return say(language, "evaluate_tie_equal", tie=tie, alone=f"{comparison.only_a:,}")
    return say(language, "evaluate_tie_needed", tie=tie, needed=f"{two_digits(comparison.rows_needed):,}")


def scroll(content: str, name: str) -> str:
    """Content that may be wider than the page: it scrolls by itself, with the keyboard too."""
    return f'<div class="pw-scroll" tabindex="0" role="region" aria-label="{escape(name)}">{content}</div>'


def table(
    heading: Sequence[str],
    rows: Iterable[Sequence[str]],
    name: str,
    *,
    words: int = 1,
    best: int = -1,
    stacked: bool = False,
) -> str:
    """A table of cells that are HTML already; the first `words` columns are text, the others figures.

    `best` is a row that stands out. `stacked`: on small screens, the cells of a row stand below each other.
    """
    titles = [
        f"<th{_words(i < words)} scope='col'>{escape(title)}</th>" if title else "<td></td>"
        for i, title in enumerate(heading)
    ]
    body = ""
    for number, row in enumerate(rows):
        cells = "".join(
            f'<td{_words(i < words)} data-of="{escape(heading[i])}">{cell}</td>' for i, cell in enumerate(row)
        )
        kind = " class='pw-best'" if number == best else ""
        body += f"<tr{kind}>{cells}</tr>"
    kind = ' class="pw-stack"' if stacked else ""
    return scroll(
        f"<table{kind}><thead><tr>{''.join(titles)}</tr></thead><tbody>{body}</tbody></table>", name
    )


def _lead(report: Report, task: str, best: Result, language: Language) -> str:
    low, high = best.intervals["accuracy"]
    reached = best.metrics["accuracy"]
    equal = [name_of(r.name, language) for r in report.results if r.metrics["accuracy"] == reached]
    title = say(
        language,
        "evaluate_best" if len(equal) == 1 else "evaluate_best_tied",
        name=equal[0],
        names=("、" if language == "zh" else ", ").join(equal),
        accuracy=percent(best.metrics["accuracy"]),
        low=percent(low),
        high=percent(high),
    )
    facts = say(
        language, "evaluate_facts", task=task, rows=f"{report.rows:,}", labels=str(len(report.labels))
    )
    sentences = "".join(
        f'<li class="{"pw-found" if c.distinguishable else "pw-open"}">{escape(verdict(c, language))}</li>'
        for c in report.comparisons
    )
    notes = "".join(f'<li class="pw-open">{escape(note)}</li>' for note in _notes(report, language))
    return (
        f'<h2 dir="auto">{escape(title)}</h2><p class="pc-meta" dir="auto">{escape(facts)}</p>'
        f'<ul class="pw-verdicts">{sentences}{notes}</ul>'
    )


def _notes(report: Report, language: Language) -> Iterable[str]:
    if report.unseen_labels:
        yield say(language, "evaluate_unseen", labels=", ".join(report.unseen_labels))
    for result in report.results:
        if result.truncated:
            name = name_of(result.name, language)
            yield say(language, "evaluate_truncated", name=name, count=f"{result.truncated:,}")
        if is_uncalibrated(result):
            name = name_of(result.name, language)
            yield say(language, "evaluate_uncalibrated", name=name, least=str(MIN_PRIOR_TEXTS))


def _figures(report: Report, best: Result, language: Language) -> str:
    spans = [result.intervals["accuracy"] for result in report.results]
    scale = (min(low for low, _ in spans), max(high for _, high in spans))
    rows = []
    for result, span in zip(report.results, spans, strict=True):
        picture = charts.interval_chart(result.metrics["accuracy"], span, scale)
        figures = [_figure(COLUMNS[column](result)) for column in FIGURES]
        rows.append([escape(name_of(result.name, language)), picture, *figures])
    heading = [say(language, "evaluate_mode"), "", *(say(language, key) for key in FIGURES.values())]
    title = say(language, "evaluate_figures")
    legend = _legend(say(language, "evaluate_legend", resamples=f"{report.resamples:,}"))
    return f"<h3>{escape(title)}</h3>{table(heading, rows, title, best=report.results.index(best))}{legend}"


def _cost(report: Report, language: Language) -> str:
    points = [
        charts.Point(
            name_of(result.name, language),
            result.timing["seconds_per_1000"],
            result.metrics["accuracy"],
            result.intervals["accuracy"],
        )
        for result in report.results
        if "seconds_per_1000" in result.timing
    ]
    if not points:
        return ""
    title = say(language, "evaluate_chart_cost")
    words = _chart_words(language)
    pictures = "".join(
        f'<div class="pw-{kind}">{charts.cost_chart(points, words, width=width)}</div>'
        for kind, width in WIDTHS.items()
    )
    return f"<h3>{escape(title)}</h3>{pictures}{_legend(say(language, 'evaluate_cost'))}"


def _classifier(result: Result, labels: Sequence[str], language: Language, *, shown: bool) -> str:
    words = _chart_words(language)
    name = name_of(result.name, language)
    confusion, reliability = words["confusion"], words["reliability"]
    matrix = charts.confusion_chart(result.confusion, labels, f"{confusion}: {name}", words)
    diagram = charts.reliability_chart(
        result.reliability, result.metrics["ece"], f"{reliability}: {name}", words
    )
    accuracy = f"{percent(result.metrics['accuracy'])} %"
    key = (
        f'<i class="pw-key pw-key-right"></i>{escape(say(language, "evaluate_key_accuracy"))} '
        f'<i class="pw-key pw-key-gap"></i>{escape(say(language, "evaluate_key_gap"))}'
    )
    parts = [
        (confusion, _legend(say(language, "evaluate_axes")) + scroll(matrix, f"{confusion}: {name}")),
        (reliability, f'<p class="pw-legend">{key}</p>{scroll(diagram, f"{reliability}: {name}")}'),
        (say(language, "evaluate_mistakes"), _mistakes(result, labels, language)),
    ]
    pictures = "".join(f"<div><h4>{escape(title)}</h4>{content}</div>" for title, content in parts)
    return (
        f'<details class="pw-fold"{" open" if shown else ""}><summary><b>{escape(name)}</b> '
        f'<span class="pc-meta">{escape(accuracy)}</span></summary>'
        f'<div class="pw-pictures">{pictures}</div></details>'
    )


def _mistakes(result: Result, labels: Sequence[str], language: Language) -> str:
    pairs = [
        (count, true, predicted)
        for true, row in zip(labels, result.confusion, strict=True)
        for predicted, count in zip(labels, row, strict=True)
        if true != predicted and count
    ]
    pairs.sort(key=lambda pair: -pair[0])
    rows = "".join(
        f'<li><span dir="auto">{escape(true)} <span class="pc-meta">→</span> {escape(predicted)}</span>'
        f"<b>{count:,}</b></li>"
        for count, true, predicted in pairs[:MISTAKES]
    )
    return f'<ul class="pw-mistakes">{rows}</ul>' if rows else _legend(say(language, "evaluate_none"))


def _divided(report: Report, predictions: Sequence[Sequence[str]], language: Language) -> str:
    """The test rows for which the modes give different labels."""
    modes = [result.name for result in report.results if result.mode in MODES]
    if len(modes) < 2 or not predictions:
        return ""
    heading = list(predictions[0])
    columns = [heading.index(name) for name in modes]
    text, label = heading.index("text"), heading.index("label")
    pair = heading.index("pair") if "pair" in heading else None
    rows = [row for row in predictions[1:] if len({row[column] for column in columns}) > 1]
    # First those on which the modes differ most.
    rows.sort(key=lambda row: -len({row[column] for column in columns}))
    cells = [
        [
            _text(row[text] if pair is None else f"{row[text]}\n{row[pair]}"),
            f'<span dir="auto">{escape(row[label])}</span>',
            *(_answer(row[column], row[label], language) for column in columns),
        ]
        for row in rows[:DIVIDED]
    ]
    title = say(language, "evaluate_divided")
    counts = {"count": f"{len(rows):,}", "rows": f"{len(predictions) - 1:,}"}
    said = say(language, "evaluate_divided_count", **counts)
    if len(rows) > DIVIDED:
        said = sentences(language, said, say(language, "evaluate_divided_more", shown=str(DIVIDED)))
    names = [say(language, "evaluate_text"), say(language, "evaluate_label")]
    names += [name_of(name, language) for name in modes]
    content = table(names, cells[:DIVIDED_FIRST], title, words=len(names), stacked=True) if cells else ""
    if more := cells[DIVIDED_FIRST:]:
        summary = say(language, "evaluate_divided_rest", count=str(len(more)))
        rest = table(names, more, f"{title}: {summary}", words=len(names), stacked=True)
        content += f'<details class="pw-more"><summary>{escape(summary)}</summary>{rest}</details>'
    return f"<h3>{escape(title)}</h3>{_legend(said)}{content}"


def _legend(text: str) -> str:
    return f'<p class="pw-legend">{escape(text)}</p>'


def _text(text: str) -> str:
    shown = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
    return f'<span class="pw-text" dir="auto">{escape(shown)}</span>'


def _answer(label: str, true: str, language: Language) -> str:
    kind = "right" if label == true else "wrong"
    mark = "✓" if kind == "right" else "✗"
    spoken = escape(say(language, f"evaluate_{kind}"))
    return f'<span class="pw-{kind}" title="{spoken}" dir="auto"><b>{mark}</b> {escape(label)}</span>'


def _figure(cell: str) -> str:
    """A cell of the report's text table with its interval, if any, set back."""
    main, bracket, interval = cell.partition(" [")
    if main == MISSING:
        return f'<span class="pc-meta">{MISSING}</span>'
    return f"<span>{escape(main)}</span>" + (f" <small>[{escape(interval)}</small>" if bracket else "")


def _chart_words(language: Language) -> dict[str, str]:
    return {key: say(language, f"evaluate_chart_{key}") for key in charts.WORDS}


def _words(yes: bool) -> str:
    return " class='pw-words'" if yes else ""
