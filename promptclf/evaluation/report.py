"""The result of a comparison: figures, intervals, tests and verdicts, and the files they go to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from promptclf.artifacts import write_text
from promptclf.data.csv_safe import write_rows
from promptclf.errors import DataError
from promptclf.evaluation import metrics, report_html, report_text, significance
from promptclf.evaluation.metrics import Codes
from promptclf.evaluation.results import Result, score_predictions, without_times
from promptclf.evaluation.significance import Bootstrap, Comparison
from promptclf.task import Example

__all__ = ["SCHEMA", "Report", "Result", "build_report", "score_predictions", "spread"]

SCHEMA = 1
_COLUMNS = ("text", "pair", "label")  # of predictions.csv, beside the classifiers' own


@dataclass
class Report:
    """A comparison on one frozen test split.

    Attributes
    ----------
    task
        The task's name.
    labels
        The labels in the order of all matrices: the classifiers' own, then `unseen_labels`.
    rows
        How many test rows were scored; all of them.
    results
        One `Result` a classifier.
    comparisons
        Every pair of results.
    variants
        Results of other templates, quantisations or seeds: with intervals, but no tests.
    averages
        Means over results that differ in their seed: figures, intervals and times, and nothing by row. An
        interval is that of the mean for these very seeds on other test rows.
    spreads
        What `spread` returned: how much a figure moves over such variants.
    dataset
        Name, fingerprint and sizes of the splits.
    unseen_labels
        Labels of test rows that no classifier knows; such rows count as wrong.
    seed, resamples
        Of the bootstrap.
    provenance
        What holds for all results: versions, machine.
    """

    task: str
    labels: list[str]
    rows: int
    results: list[Result]
    comparisons: list[Comparison] = field(default_factory=list)
    variants: list[Result] = field(default_factory=list)
    averages: list[Result] = field(default_factory=list)
    spreads: list[dict[str, Any]] = field(default_factory=list)
    dataset: dict[str, Any] = field(default_factory=dict)
    unseen_labels: list[str] = field(default_factory=list)
    seed: int = 0
    resamples: int = significance.RESAMPLES
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def verdicts(self) -> list[str]:
        """One sentence a pair."""
        return [comparison.verdict for comparison in self.comparisons]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ``"schema": 1``. Everything that differs from run to run is in ``timing``."""
        return {
            "schema": SCHEMA,
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "results": [result.to_dict() for result in self.results],
            "variants": [result.to_dict() for result in self.variants],
            "averages": [result.to_dict() for result in self.averages],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "timing": {r.name: r.timing for r in [*self.results, *self.variants, *self.averages]},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """Read what `to_dict` wrote.

        Raises
        ------
        DataError
            If the schema is another one or something is missing.
        """
        if values.get("schema") != SCHEMA:
            raise DataError(
                f"report: expected schema {SCHEMA}, got {values.get('schema')!r}; "
                "compare again or update promptclf"
            )
        try:
            rest = {
                key: value
                for key, value in values.items()
                if key not in ("schema", "schema_version", "timing")
            }
            for key in ("results", "variants", "averages"):
                rest[key] = [
                    Result.from_dict(entry, values["timing"][entry["name"]]) for entry in values.get(key, ())
                ]
            rest["comparisons"] = [Comparison.from_dict(entry) for entry in values["comparisons"]]
            return cls(**rest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"report: not what `to_dict` writes ({error!r}); compare again") from error

    def to_json(self) -> str:
        """`to_dict` as JSON text; the same seed gives the same text outside of ``timing``."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_table(self) -> str:
        """The figures and verdicts as aligned plain text."""
        return report_text.table(self)

    def to_markdown(self) -> str:
        """The whole report as Markdown."""
        return report_text.markdown(self)

    def to_html(self) -> str:
        """The whole report as one self-contained page with pictures."""
        return report_html.page(self)

    def to_csv(self, examples: Sequence[Example]) -> str:
        """Every test row with each classifier's label, its probability and the true label's.

        Parameters
        ----------
        examples
            The test rows, in the order in which they were scored.

        Raises
        ------
        DataError
            If there are not as many as were scored, or the report was read from JSON.
        """
        if len(examples) != self.rows:
            raise DataError(f"expected the {self.rows} test rows that were scored, got {len(examples)}")
        pairs = any(example.pair is not None for example in examples)
        columns = {"text": [e.text for e in examples]}
        if pairs:
            columns["pair"] = [e.pair or "" for e in examples]
        columns["label"] = [e.label for e in examples]
        true = metrics.encode(columns["label"], self.labels)
        every = np.arange(self.rows)
        for result in [*self.results, *self.variants]:
            if result.predicted is None or result.proba is None:
                raise DataError("a report that was read from JSON holds no predictions; compare again")
            columns[result.name] = [self.labels[code] for code in result.predicted]
            for title, codes in (("probability", result.predicted), ("probability of label", true)):
                columns[f"{result.name}: {title}"] = [f"{p:.6g}" for p in result.proba[every, codes]]
        return write_rows([list(columns), *map(list, zip(*columns.values(), strict=True))])

    def save(self, folder: str | Path, examples: Sequence[Example]) -> list[Path]:
        """Write report.md, report.json, report.html and predictions.csv, each of them atomically.

        Returns
        -------
        The four paths.
        """
        contents = {
            "report.md": self.to_markdown(),
            "report.json": self.to_json(),
            "report.html": self.to_html(),
            "predictions.csv": self.to_csv(examples),
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_text(Path(folder) / name, content)
        return [Path(folder) / name for name in contents]


def build_report(
    results: Sequence[Result],
    y_true: Sequence[str],
    labels: Sequence[str],
    *,
    task: str,
    dataset: Mapping[str, Any] | None = None,
    variants: Sequence[Result] = (),
    averages: Mapping[str, Sequence[str]] = {},
    spreads: Sequence[Mapping[str, Any]] = (),
    provenance: Mapping[str, Any] | None = None,
    seed: int = 0,
    resamples: int = significance.RESAMPLES,
) -> Report:
    """Put results together: intervals for each, a test for every pair of `results`.

    Parameters
    ----------
    results, variants
        What `score_predictions` returned for the same rows and labels.
    averages
        Name -> the names of the results and variants to show the mean of.
    y_true, labels
        What it was given.
    task, dataset, spreads, provenance, seed, resamples
        See `Report`.

    Raises
    ------
    DataError
        If there is no result, two have one name, or one was scored on other rows.
    """
    everyone = [*results, *variants]
    names = [result.name for result in everyone]
    if not results:
        raise DataError("expected at least one result to report, got none")
    taken = [*_COLUMNS, *averages, *names]
    if len(set(taken)) < len(taken):
        twice = next(name for name in taken if taken.count(name) > 1)
        raise DataError(f"the name {twice!r} is taken; give each classifier its own name")
    known = metrics.all_labels(labels, y_true)
    true = metrics.encode(y_true, known)
    predicted = []
    for result in everyone:
        if result.predicted is None or result.confusion != _table(true, result.predicted, len(known)):
            raise DataError(f"result {result.name!r} was not scored on these rows and labels; score it again")
        predicted.append(result.predicted)
    drawn = significance.paired_bootstrap(true, predicted, len(known), resamples=resamples, seed=seed)
    for i, result in enumerate(everyone):
        result.intervals = {
            "accuracy": significance.percentile_interval(drawn.accuracy[:, i]),
            "macro_f1": significance.percentile_interval(drawn.macro_f1[:, i]),
        }
    return Report(
        task=task,
        labels=known,
        rows=len(y_true),
        results=list(results),
        comparisons=significance.compare_pairs(names[: len(results)], true, predicted[: len(results)], drawn),
        variants=list(variants),
        averages=[
            _average(name, [names.index(one) for one in of], everyone, drawn) for name, of in averages.items()
        ],
        spreads=[dict(entry) for entry in spreads],
        dataset=dict(dataset or {}),
        unseen_labels=known[len(labels) :],
        seed=seed,
        resamples=resamples,
        provenance=without_times(dict(provenance or {}))[0],
    )


def spread(name: str, over: str, values: Mapping[str, float], *, metric: str = "accuracy") -> dict[str, Any]:
    """How much a classifier's figure moves over templates, seeds or quantisations.

    Parameters
    ----------
    name
        The classifier.
    over
        "templates", "seeds" or "quantization".
    values
        What varied -> the figure.
    """
    if not values:
        raise DataError(f"spread of {name!r} over {over}: expected at least one value, got none")
    figures = [float(value) for value in values.values()]
    return {
        "name": name,
        "over": over,
        "metric": metric,
        "values": {str(key): float(value) for key, value in values.items()},
        "mean": sum(figures) / len(figures),
        "min": min(figures),
        "max": max(figures),
    }


def _average(name: str, members: list[int], everyone: Sequence[Result], drawn: Bootstrap) -> Result:
    some = [everyone[i] for i in members]
    columns = {"accuracy": drawn.accuracy, "macro_f1": drawn.macro_f1}
    return Result(
        name,
        some[0].mode,
        metrics={key: float(np.mean([r.metrics[key] for r in some])) for key in some[0].metrics},
        per_class={},
        confusion=[],
        reliability=[],
        template=some[0].template,
        quantization=some[0].quantization,
        seeds=[seed for r in some for seed in r.seeds],
        intervals={
            key: significance.percentile_interval(values[:, members].mean(axis=1))
            for key, values in columns.items()
        },
        timing={
            key: float(np.mean([r.timing[key] for r in some]))
            for key in some[0].timing
            if all(key in r.timing for r in some)
        },
    )


def _table(true: Codes, predicted: Codes, n_labels: int) -> list[list[int]] | None:
    if len(true) != len(predicted) or predicted.max(initial=0) >= n_labels:
        return None
    counts: list[list[int]] = metrics.confusion_matrix(true, predicted, n_labels).tolist()
    return counts
