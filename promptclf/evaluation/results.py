"""The result of one classifier on the test rows: every figure, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from promptclf.errors import DataError
from promptclf.evaluation import metrics
from promptclf.evaluation.metrics import Codes, Floats, ReliabilityBin
from promptclf.evaluation.significance import Interval

TIMING = ("p50_ms", "p95_ms", "seconds_per_1000", "fit_seconds", "peak_rss_mb")
_APART = ("predicted", "proba", "timing")  # attributes that `Result.to_dict` leaves out
_MEASURED = ("seconds", "minutes")  # keys of a provenance that hold times: no two runs agree on them


@dataclass
class Result:
    """What one classifier reached on the test rows; `score_predictions` makes it.

    Attributes
    ----------
    name, mode
        The name in tables, and the mode (``"lora"``, ``"tfidf-svm"``, …).
    metrics
        accuracy, macro_f1, weighted_f1, log_loss (nats), brier, ece and ece_by_chance.
    per_class
        Label -> precision, recall, f1, support.
    confusion
        Counts, k rows (true) of k columns (predicted), in the order of the report's labels.
    reliability
        15 bins of the top probability.
    template, quantization, seeds
        Which variant of the mode this is.
    truncated
        How many texts were shortened to fit the model.
    intervals
        Metric -> its 95 % bootstrap interval; `build_report` fills it.
    timing
        p50_ms and p95_ms of one text, seconds_per_1000 texts, fit_seconds, peak_rss_mb; what was measured.
    provenance
        Where the result comes from.
    predicted, proba
        Index of the predicted label, shape (n,), and probabilities, shape (n, k). They go to
        predictions.csv and not into the JSON: a report read from there has None.
    """

    name: str
    mode: str
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: list[list[int]]
    reliability: list[ReliabilityBin]
    template: str | None = None
    quantization: str | None = None
    seeds: list[int] = field(default_factory=list)
    truncated: int = 0
    intervals: dict[str, Interval] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    predicted: Codes | None = field(default=None, repr=False, compare=False)
    proba: Floats | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary without rows and times."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _APART}
        values["intervals"] = {metric: list(pair) for metric, pair in self.intervals.items()}
        return values | {"reliability": [b.to_dict() for b in self.reliability]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], timing: Mapping[str, float]) -> Result:
        """Read what `to_dict` wrote, with the times that are kept apart."""
        values = dict(values)
        values["reliability"] = [ReliabilityBin(**entry) for entry in values["reliability"]]
        values["intervals"] = {metric: (low, high) for metric, (low, high) in values["intervals"].items()}
        return cls(**values, timing=dict(timing))


def score_predictions(
    name: str,
    y_true: Sequence[str],
    proba: ArrayLike,
    labels: Sequence[str],
    *,
    mode: str,
    template: str | None = None,
    quantization: str | None = None,
    seeds: Sequence[int] = (),
    truncated: int = 0,
    timing: Mapping[str, float] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Result:
    """Score one classifier's probabilities.

    Parameters
    ----------
    name
        Its name in tables; unique within a report.
    y_true
        n true labels. Those outside of `labels` count as wrong.
    proba
        Shape (n, k).
    labels
        The k labels that the columns stand for (``classes_``).
    mode, template, quantization, seeds, truncated
        See `Result`.
    timing
        Some of p50_ms, p95_ms, seconds_per_1000, fit_seconds and peak_rss_mb.
    provenance
        JSON values. Times in it (keys "seconds" and "minutes", at any depth) move to the timing.

    Raises
    ------
    DataError
        If there are no rows, shapes do not fit, a row is no distribution or a timing is unknown.
    """
    if unknown := sorted(set(timing or {}) - set(TIMING)):
        raise DataError(f"timing: expected some of {', '.join(TIMING)}, got {unknown[0]!r}")
    table = metrics.check_proba(proba, len(y_true), len(labels))
    known = metrics.all_labels(labels, y_true)
    table = np.pad(table, ((0, 0), (0, len(known) - len(labels))))
    true = metrics.encode(y_true, known)
    predicted = table.argmax(axis=1)
    confusion = metrics.confusion_matrix(true, predicted, len(known))
    origin, times = without_times(dict(provenance or {}))
    return Result(
        name=name,
        mode=mode,
        metrics=metrics.scores(true, table),
        per_class=metrics.class_report(confusion, known),
        confusion=confusion.tolist(),
        reliability=metrics.reliability_bins(true, table),
        template=template,
        quantization=quantization,
        seeds=list(seeds),
        truncated=truncated,
        timing={**(timing or {}), **times},
        provenance=origin,
        predicted=predicted,
        proba=table,
    )


def without_times(values: dict[str, Any], prefix: str = "") -> tuple[dict[str, Any], dict[str, float]]:
    """The mapping without measured times, and these under their dotted path."""
    kept: dict[str, Any] = {}
    times: dict[str, float] = {}
    for key, value in values.items():
        if key in _MEASURED:
            times[f"{prefix}{key}"] = value
        elif isinstance(value, dict):
            kept[key], inner = without_times(value, f"{prefix}{key}.")
            times |= inner
        else:
            kept[key] = value
    return kept, times
