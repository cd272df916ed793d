"""The report: scored, saved, read back and shown, without loss and without letting anything through."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from promptclf.data import csv_safe
from promptclf.errors import DataError
from promptclf.evaluation import charts
from promptclf.evaluation.report import Report, Result, build_report, score_predictions, spread
from promptclf.task import Example

HOSTILE = '<script>alert("1")</script>'
LABELS = ["account", "billing", "delivery"]
TIMES = {
    "p50_ms": 41.2,
    "p95_ms": 66.0,
    "seconds_per_1000": 38.1,
    "fit_seconds": 252.0,
    "peak_rss_mb": 1204.0,
}


def probabilities(true: NDArray[np.int64], k: int, strength: float, seed: int) -> NDArray[np.float64]:
    scores = np.random.default_rng(seed).normal(size=(len(true), k))
    scores[np.arange(len(true)), true] += strength
    table: NDArray[np.float64] = np.exp(scores)
    table /= table.sum(axis=1, keepdims=True)
    return table


def fake_report(
    labels: list[str] = LABELS, rows: int = 120, name: str = "LoRA", **options: Any
) -> tuple[Report, list[Example]]:
    """Three classifiers and a variant on made-up rows."""
    true = np.random.default_rng(0).integers(len(labels), size=rows)
    y = [labels[code] for code in true]

    def result(called: str, mode: str, strength: float, **more: Any) -> Result:
        table = probabilities(true, len(labels), strength, seed=len(called))
        return score_predictions(called, y, table, labels, mode=mode, **more)

    results = [
        result("zero-shot", "zero-shot", 0.5, template="completion", quantization="none", timing=TIMES),
        result(name, "lora", 2.6, template="completion", quantization="nf4", seeds=[0], timing=TIMES),
        result("TF-IDF + SVM", "tfidf-svm", 2.3),
    ]
    settings: dict[str, Any] = {
        "task": "desk",
        "variants": [result("zero-shot (chat)", "zero-shot", 0.4, template="chat")],
        "spreads": [spread("zero-shot", "templates", {"completion": 0.5, "chat": 0.4})],
        "dataset": {"name": "desk", "fingerprint": "ab" * 32, "train": 80, "validation": 20, "test": rows},
        "provenance": {"versions": {"promptclf": "0.1.0"}},
        "resamples": 200,
    }
    report = build_report(results, y, labels, **(settings | options))
    return report, [Example(f"text {i}", label) for i, label in enumerate(y)]


@pytest.fixture(scope="module")
def shown() -> tuple[Report, list[Example]]:
    return fake_report()


# ---- scoring --------------------------------------------------------------------------------------


def test_a_result_holds_every_figure(shown: tuple[Report, list[Example]]) -> None:
    report, examples = shown
    y = [example.label for example in examples]
    for result in report.results:
        assert result.predicted is not None
        predicted = [LABELS[code] for code in result.predicted]
        assert result.metrics["accuracy"] == pytest.approx(accuracy_score(y, predicted), abs=1e-12)
        assert result.metrics["macro_f1"] == pytest.approx(f1_score(y, predicted, average="macro"), abs=1e-12)
        assert np.sum(result.confusion) == len(y) == sum(s["support"] for s in result.per_class.values())
        assert len(result.reliability) == 15
        for metric in ("accuracy", "macro_f1"):
            low, high = result.intervals[metric]
            assert low <= result.metrics[metric] <= high
    assert len(report.comparisons) == 3  # variants are not tested
    assert report.verdicts[0].startswith("LoRA beats zero-shot by ")
    assert "not distinguishable with 120 rows; about " in report.verdicts[2]


def test_times_in_a_provenance_move_to_the_timing() -> None:
    origin = {"seed": 1, "learned": {"training": {"minutes": 4.5, "steps": 9}}, "seconds": 2.0}
    result = score_predictions(
        "LoRA", ["a"], [[1.0, 0.0]], ["a", "b"], mode="lora", timing={"p50_ms": 1.0}, provenance=origin
    )
    assert result.provenance == {"seed": 1, "learned": {"training": {"steps": 9}}}
    assert result.timing == {"p50_ms": 1.0, "learned.training.minutes": 4.5, "seconds": 2.0}
    assert origin["learned"] == {"training": {"minutes": 4.5, "steps": 9}}


def test_a_label_that_no_classifier_knows_is_scored_wrong_and_reported() -> None:
    y = ["a", "b", "alien"]
    result = score_predictions("x", y, [[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]], ["a", "b"], mode="zero-shot")
    report = build_report([result], y, ["a", "b"], task="t", resamples=50)
    assert result.metrics["accuracy"] == pytest.approx(2 / 3)
    assert report.labels == ["a", "b", "alien"]
    assert report.unseen_labels == ["alien"]
    assert report.rows == 3
    for text in (report.to_table(), report.to_markdown(), report.to_html()):
        assert "No classifier knows" in text
    assert "alien" in report.to_csv([Example("t", label) for label in y])


def test_shortened_texts_are_reported() -> None:
    result = score_predictions("x", ["a"], [[1.0, 0.0]], ["a", "b"], mode="zero-shot", truncated=3)
    report = build_report([result], ["a"], ["a", "b"], task="t", resamples=50)
    for text in (report.to_table(), report.to_markdown(), report.to_html()):
        assert "x: 3 texts were shortened" in text


def test_an_unknown_timing_is_refused() -> None:
    with pytest.raises(DataError, match=r"timing: expected some of p50_ms.*got 'speed'"):
        score_predictions("x", ["a"], [[1.0, 0.0]], ["a", "b"], mode="lora", timing={"speed": 1})


def one(name: str = "x", y: tuple[str, ...] = ("a", "b")) -> Result:
    return score_predictions(name, y, [[0.9, 0.1]] * len(y), ["a", "b"], mode="lora")


@pytest.mark.parametrize(
    ("results", "y", "message"),
    [
        ([], ["a", "b"], "at least one result"),
        ([one(), one()], ["a", "b"], "the name 'x' is taken"),
        ([one("label")], ["a", "b"], "the name 'label' is taken"),
        ([one()], ["a", "a"], "'x' was not scored on these rows"),
        ([one()], ["a", "b", "a"], "'x' was not scored on these rows"),
        ([one(y=("a", "z"))], ["a", "b"], "'x' was not scored on these rows"),
    ],
)
def test_results_that_do_not_belong_together_are_refused(
    results: list[Result], y: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        build_report(results, y, ["a", "b"], task="t")


def test_a_spread_has_mean_and_range() -> None:
    entry = spread("few-shot", "seeds", {"0": 0.6, "1": 0.7, "2": 0.8})
    assert (entry["mean"], entry["min"], entry["max"]) == (pytest.approx(0.7), 0.6, 0.8)
    with pytest.raises(DataError, match="at least one value"):
        spread("few-shot", "seeds", {})


# ---- JSON -----------------------------------------------------------------------------------------


def test_json_reads_back_to_the_same_report(shown: tuple[Report, list[Example]]) -> None:
    report, _ = shown
    again = Report.from_dict(json.loads(report.to_json()))
    assert again == report
    assert again.to_json() == report.to_json()
    assert again.to_table() == report.to_table()
    assert again.to_markdown() == report.to_markdown()
    assert again.to_html() == report.to_html()


def test_json_is_the_same_outside_of_its_timing() -> None:
    first, second = (json.loads(fake_report()[0].to_json()) for _ in range(2))
    assert first["timing"]["LoRA"] == TIMES
    assert first["timing"]["TF-IDF + SVM"] == {}
    for values in second["timing"].values():
        values.update(dict.fromkeys(values, 99.0))
    assert first != second
    first.pop("timing")
    second.pop("timing")
    assert first == second
    assert first["schema"] == 1
    assert not {"timing", *TIMES} & set(json.dumps(first).replace('"', " ").split())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"schema": 2}, "expected schema 1, got 2"),
        ({"results": [{}]}, "not what `to_dict` writes"),
        ({"timing": {}}, "not what `to_dict` writes"),
        ({"more": 1}, "not what `to_dict` writes"),
        ({"comparisons": None}, "not what `to_dict` writes"),
    ],
)
def test_a_damaged_report_is_refused(
    shown: tuple[Report, list[Example]], edit: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Report.from_dict(shown[0].to_dict() | edit)


# ---- text -----------------------------------------------------------------------------------------


def test_the_table_is_aligned_and_complete(shown: tuple[Report, list[Example]]) -> None:
    report, _ = shown
    heading, rule, *rows = report.to_table().splitlines()[:6]
    columns = heading.split("  ")
    assert [c.strip() for c in columns if c.strip()] == [
        *("classifier", "accuracy %", "macro-F1 %", "log-loss", "ECE"),
        *("p50 ms", "p95 ms", "s/1,000", "train min", "peak MB"),
    ]
    assert {len(row) for row in rows} == {len(rule)} == {len(heading)}
    lora = report.results[1]
    low, high = lora.intervals["accuracy"]
    assert rows[1].split() == [
        *("LoRA", f"{100 * lora.metrics['accuracy']:.1f}", f"[{100 * low:.1f},", f"{100 * high:.1f}]"),
        *(f"{100 * lora.metrics['macro_f1']:.1f}", f"{lora.metrics['log_loss']:.3f}"),
        *(f"{lora.metrics['ece']:.3f}", "41.2", "66.0", "38.1", "4.2", "1,204"),
    ]
    assert rows[2].split()[-5:] == ["–"] * 5
    assert rows[3].startswith("zero-shot (chat)")
    for sentence in [*report.verdicts, "zero-shot over 2 templates: accuracy 45.0 on average, 40.0 to 50.0"]:
        assert sentence in report.to_table()


def test_columns_without_a_figure_are_left_out() -> None:
    report, _ = fake_report()
    for result in [*report.results, *report.variants]:
        result.timing = {"seconds_per_1000": 38.1}
    heading = report.to_table().splitlines()[0]
    assert heading.split()[-2:] == ["ECE", "s/1,000"]
    assert "p50 ms" not in report.to_markdown() and "peak MB" not in report.to_html()


def test_what_was_shortened_to_learn_from_is_noted() -> None:
    report, _ = fake_report()
    report.results[1].provenance["learned"] = {"truncated": 1234}
    report.results[0].provenance["learned"] = {"examples_too_long": 9, "pool": 9}
    table = report.to_table()
    assert "LoRA: 1,234 of the texts to learn from were shortened to fit the model." in table
    assert "zero-shot: all examples were longer than their token budget and shown shortened." in table


def test_wide_characters_keep_the_table_aligned() -> None:
    report, _ = fake_report(name="微调模型")
    lines = report.to_table().splitlines()
    assert len(lines[3]) + 4 == len(lines[2]) == len(lines[4])


def test_markdown_shows_all_and_runs_nothing() -> None:
    report, _ = fake_report(["a|b", HOSTILE, "_c_ [x](http://evil.example)"], name=f"{HOSTILE}|x\ny")
    text = report.to_markdown()
    assert "<script" not in text
    assert r"x\](http" in text
    assert not re.search(r"(?<!\\)\]\(http", text)
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (6, 7, 11)
    assert "p<0.001" in text or "not distinguishable" in text
    assert text.count("<details>") == text.count("</details>") == 5


# ---- HTML -----------------------------------------------------------------------------------------

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_asks_for_nothing_from_outside(shown: tuple[Report, list[Example]]) -> None:
    text = shown[0].to_html()
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:", text)
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert {"table", "svg", "style", "details"} <= names
    assert not names & {"script", "img", "link", "iframe", "object", "image", "use", "a", "form"}
    assert not {
        key for _, attributes in page.tags for key in attributes if key.startswith(("on", "src", "href"))
    }
    policy = [a for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_page_shows_every_part(shown: tuple[Report, list[Example]]) -> None:
    report, _ = shown
    page = Page(report.to_html())
    for sentence in [*report.verdicts, *LABELS, "zero-shot (chat)", "120 test rows", "abababababab"]:
        assert sentence in page.words
    pictures = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    for result in [*report.results, *report.variants]:
        assert f"Confusion matrix of {result.name}" in pictures
        assert f"Reliability diagram of {result.name}" in pictures
    assert "Accuracy against cost" in pictures
    assert "prefers-color-scheme: dark" in report.to_html()


@pytest.mark.parametrize(
    "payload", [HOSTILE, "'\"><svg onload=x>", "</style><b>", "&lt;i&gt;", "<!--", "]]>"]
)
def test_whatever_a_user_writes_stays_text(payload: str) -> None:
    report, _ = fake_report(
        [payload, "b", "c"],
        name=f"n {payload}",
        task=f"t {payload}",
        dataset={"name": payload, "fingerprint": payload, "train": 1},
        provenance={payload: payload},
        spreads=[spread(payload, payload, {payload: 0.5}, metric=payload)],
    )
    plain = Page(fake_report(["x", "b", "c"], name="n", spreads=report.spreads)[0].to_html())
    page = Page(report.to_html())
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}
    assert not {key for _, attributes in page.tags for key in attributes if key.startswith("on")}
    assert page.words.count(payload) > 10


def test_a_page_without_times_variants_or_rivals_is_whole() -> None:
    page = Page(build_report([one()], ["a", "b"], ["a", "b"], task="t", resamples=50).to_html())
    assert "Figures" in page.words
    assert "Accuracy against cost" not in page.words
    assert "Which differences are real" not in page.words


def test_seventy_seven_labels_stay_usable() -> None:
    labels = [f"a_rather_long_label_name_{i:02d}" for i in range(77)]
    text = fake_report(labels, rows=1500)[0].to_html()
    Page(text)
    assert len(text) < 2_000_000
    wide = [int(width) for width in re.findall(r'<svg class="chart" [^>]*?width="(\d+)"', text)]
    assert max(wide) < 1180  # fits a page


@pytest.mark.parametrize("k", [2, 9, 20, 40])
def test_the_confusion_chart_has_a_cell_for_every_count(k: int) -> None:
    confusion = np.arange(k * k).reshape(k, k) % 3
    picture = charts.confusion_chart(confusion.tolist(), [f"l{i}" for i in range(k)])
    Page(picture)
    assert picture.count("<g><title>") == np.count_nonzero(confusion)
    assert "l0: 1 row (" in picture


def test_names_in_the_cost_chart_do_not_cover_each_other() -> None:
    points = [charts.Point(f"classifier {i}", 10.0, 0.8 - i / 1000, (0.7, 0.9)) for i in range(5)]
    picture = charts.cost_chart(points)
    heights = [
        float(y) for y in re.findall(r'y="([\d.]+)" dominant-baseline="central" font-size="12"', picture)
    ]
    assert len(heights) == 5
    assert min(np.diff(sorted(heights))) >= 14


# ---- CSV ------------------------------------------------------------------------------------------


def test_predictions_hold_every_row_and_recompute_the_figures() -> None:
    report, examples = fake_report(["=1+1", "b", '"quoted", and\nbroken'])
    examples[0] = Example("@SUM(A1)", examples[0].label, pair="-2")
    text = report.to_csv(examples)
    assert not any(
        cell.startswith(("=", "@", "-")) for row in csv.reader(io.StringIO(text, newline="")) for cell in row
    )
    heading, *rows = csv_safe.read_rows(text)
    assert heading[:6] == [
        *("text", "pair", "label", "zero-shot", "zero-shot: probability"),
        "zero-shot: probability of label",
    ]
    assert [(row[0], row[1] or None, row[2]) for row in rows] == [(e.text, e.pair, e.label) for e in examples]
    column = heading.index("LoRA")
    right = [row[column] == row[2] for row in rows]
    assert np.mean(right) == pytest.approx(report.results[1].metrics["accuracy"])
    loss = -np.mean([np.log(float(row[column + 2])) for row in rows])
    assert loss == pytest.approx(report.results[1].metrics["log_loss"], rel=1e-4)


def test_predictions_need_the_rows_that_were_scored(shown: tuple[Report, list[Example]]) -> None:
    report, examples = shown
    with pytest.raises(DataError, match="expected the 120 test rows"):
        report.to_csv(examples[1:])
    with pytest.raises(DataError, match="holds no predictions"):
        Report.from_dict(report.to_dict()).to_csv(examples)


def test_saving_writes_four_files_and_twice_the_same(tmp_path: Path) -> None:
    paths = [fake_report()[0].save(tmp_path / str(i) / "deep", fake_report()[1]) for i in range(2)]
    assert [path.name for path in paths[0]] == ["report.md", "report.json", "report.html", "predictions.csv"]
    assert sorted(path.name for path in (tmp_path / "0" / "deep").iterdir()) == sorted(
        path.name for path in paths[0]
    )
    for first, second in zip(*paths, strict=True):
        assert first.read_bytes() == second.read_bytes()
        assert first.stat().st_size > 500
