"""What a table of probabilities is worth: accuracy, F1, log-loss, Brier score and calibration.

Everything is computed from two arrays: `true`, the index of each row's label, and `proba`, one
column per label. Labels that no row has and labels that no column stands for both count; nothing
is dropped. Definitions and conventions are scikit-learn's, so that figures can be checked there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptclf.errors import DataError

ECE_BINS = 15

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The rows whose top probability lies in (lower, upper]: how sure, and how often right."""

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary; ``ReliabilityBin(**d)`` reads it back."""
        return asdict(self)


def all_labels(labels: Sequence[str], y_true: Sequence[str]) -> list[str]:
    """`labels`, then the labels of `y_true` that are missing among them, sorted."""
    return [*labels, *sorted(set(y_true) - set(labels))]


def encode(y: Sequence[str], labels: Sequence[str]) -> Codes:
    """The position in `labels` of each entry of `y`, shape (n,).

    Raises
    ------
    DataError
        If an entry is not among the labels.
    """
    index = {label: code for code, label in enumerate(labels)}
    try:
        return np.array([index[label] for label in y], dtype=np.int64)
    except KeyError as error:
        raise DataError(f"expected one of the labels {list(labels)}, got {error.args[0]!r}") from None


def check_proba(proba: ArrayLike, rows: int, columns: int) -> Floats:
    """`proba` as an array of shape (rows, columns) whose rows are distributions.

    Raises
    ------
    DataError
        If there are no rows, the shape is another one, or a row is not a distribution (to 1e-6).
    """
    table = np.asarray(proba, dtype=np.float64)
    if rows == 0:
        raise DataError("expected at least one row to score, got none")
    if table.shape != (rows, columns):
        raise DataError(f"probabilities: expected shape ({rows}, {columns}), got {table.shape}")
    if not np.isfinite(table).all() or table.min() < 0 or np.abs(table.sum(axis=1) - 1).max() > 1e-6:
        raise DataError("probabilities: expected rows of numbers from 0 to 1 that sum to 1")
    return table


def confusion_matrix(true: Codes, predicted: Codes, n_labels: int) -> Codes:
    """Counts, shape (n_labels, n_labels): rows are true labels, columns predicted ones."""
    flat = np.bincount(true * n_labels + predicted, minlength=n_labels**2)
    return flat.reshape(n_labels, n_labels).astype(np.int64)


def f1_scores(hits: ArrayLike, support: ArrayLike, predicted: ArrayLike) -> Floats:
    """F1 of each label from its counts; 0 where a label occurs in neither truth nor predictions.

    All three arrays have the shape (..., k): rows right, rows that have the label, rows given it.
    """
    return _ratio(2.0 * np.asarray(hits), np.asarray(support) + np.asarray(predicted))


def macro_f1(hits: ArrayLike, support: ArrayLike, predicted: ArrayLike) -> Floats:
    """Mean F1 over the labels that occur in truth or predictions, shape (...,).

    As ``sklearn.metrics.f1_score(average="macro")``; for the arguments see `f1_scores`.
    """
    occurs = (np.asarray(support) + np.asarray(predicted)) > 0
    return _ratio(f1_scores(hits, support, predicted).sum(axis=-1), occurs.sum(axis=-1))


def class_report(confusion: Codes, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Label -> precision, recall, f1 and support, 0 where a ratio has no denominator.

    As ``sklearn.metrics.classification_report(labels=labels, zero_division=0)``, without its
    averages: those would collide with a label that is called "accuracy".
    """
    hits, support, predicted = label_counts(confusion)
    columns = (_ratio(hits, predicted), _ratio(hits, support), f1_scores(hits, support, predicted))
    return {
        label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for label, p, r, f, n in zip(labels, *columns, support, strict=True)
    }


def log_loss(true: Codes, proba: Floats) -> float:
    """Mean negative log-probability of the true label, in nats, clipped at the float's epsilon."""
    eps = np.finfo(np.float64).eps
    chosen = proba[np.arange(len(true)), true]
    return float(-np.log(np.clip(chosen, eps, 1 - eps)).mean())


def brier_score(true: Codes, proba: Floats) -> float:
    """Mean squared distance to the truth, summed over the labels: 0 to 2 (Brier, 1950)."""
    truth = np.zeros_like(proba)
    truth[np.arange(len(true)), true] = 1
    return float(((proba - truth) ** 2).sum(axis=1).mean())


def reliability_bins(true: Codes, proba: Floats, bins: int = ECE_BINS) -> list[ReliabilityBin]:
    """Confidence against accuracy in equally wide bins of the top probability (Guo et al., 2017).

    Empty bins are kept, with a count of 0 and both means 0.
    """
    confidence = proba.max(axis=1)
    right = proba.argmax(axis=1) == true
    edges = np.linspace(0, 1, bins + 1)
    place = np.digitize(confidence, edges[1:-1], right=True)
    counts = np.bincount(place, minlength=bins)
    sure = _ratio(np.bincount(place, weights=confidence, minlength=bins), counts)
    accuracy = _ratio(np.bincount(place, weights=right, minlength=bins), counts)
    return [
        ReliabilityBin(float(low), float(high), int(count), float(c), float(a))
        for low, high, count, c, a in zip(edges[:-1], edges[1:], counts, sure, accuracy, strict=True)
    ]


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Mean gap between confidence and accuracy, weighted by the bins' counts: 0 to 1."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / total


def ece_by_chance(proba: Floats, bins: int = ECE_BINS, draws: int = 200, seed: int = 0) -> float:
    """The error that `expected_calibration_error` would show were every probability exactly right.

    With few rows a bin's accuracy scatters, so that a perfect classifier does not reach 0 either. This
    is the mean over `draws` sets of outcomes drawn from the top probabilities (the consistency
    resampling of Bröcker and Smith, 2007).
    """
    confidence = proba.max(axis=1)
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    rng = np.random.default_rng(seed)
    gaps = [
        np.bincount(place, weights=(rng.random(len(confidence)) < confidence) - confidence, minlength=bins)
        for _ in range(draws)
    ]
    return float(np.abs(gaps).sum(axis=1).mean() / len(confidence))


def scores(true: Codes, proba: Floats) -> dict[str, float]:
    """The figures of one classifier: accuracy, F1, log_loss, brier, ece and ece_by_chance.

    Parameters
    ----------
    true
        Shape (n,): the column of each row's label.
    proba
        Shape (n, k); the prediction is the first of the largest columns.
    """
    counts = label_counts(confusion_matrix(true, proba.argmax(axis=1), proba.shape[1]))
    hits, support, _ = counts
    return {
        "accuracy": float(hits.sum() / support.sum()),
        "macro_f1": float(macro_f1(*counts)),
        "weighted_f1": float((f1_scores(*counts) * support).sum() / support.sum()),
        "log_loss": log_loss(true, proba),
        "brier": brier_score(true, proba),
        "ece": expected_calibration_error(reliability_bins(true, proba)),
        "ece_by_chance": ece_by_chance(proba),
    }


def label_counts(confusion: Codes) -> tuple[Codes, Codes, Codes]:
    """Per label, each of shape (k,): rows right, rows that have it, rows given it."""
    return confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    top, bottom = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    result: Floats = np.divide(top, bottom, out=np.zeros(top.shape), where=bottom > 0)
    return result
