"""Every figure equals scikit-learn's, with empty classes and labels that nobody knows too."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference

from promptclf.errors import DataError
from promptclf.evaluation import metrics

EXACT = 1e-12


@st.composite
def scored_rows(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """True codes and probabilities; some labels may occur on neither side, ties included."""
    k = draw(st.integers(2, 7))
    n = draw(st.integers(1, 40))
    present = draw(st.lists(st.integers(0, k - 1), min_size=1, max_size=k))
    true = np.array(draw(st.lists(st.sampled_from(present), min_size=n, max_size=n)), dtype=np.int64)
    raw = draw(st.lists(st.integers(0, 6), min_size=n * k, max_size=n * k))
    table = np.array(raw, dtype=float).reshape(n, k)
    table[table.sum(axis=1) == 0] = 1
    return true, table / table.sum(axis=1, keepdims=True)


@given(scored_rows())
def test_scores_equal_those_of_scikit_learn(rows: tuple[NDArray[np.int64], NDArray[np.float64]]) -> None:
    true, proba = rows
    labels = np.arange(proba.shape[1])
    predicted = proba.argmax(axis=1)
    truth = (true[:, None] == labels).astype(float)
    expected = {
        "accuracy": reference.accuracy_score(true, predicted),
        "macro_f1": reference.f1_score(true, predicted, average="macro", zero_division=0),
        "weighted_f1": reference.f1_score(true, predicted, average="weighted", zero_division=0),
        "log_loss": reference.log_loss(true, proba, labels=labels),
        "brier": ((proba - truth) ** 2).sum(axis=1).mean(),
    }
    found = metrics.scores(true, proba)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=EXACT)
    counts = metrics.confusion_matrix(true, predicted, len(labels))
    assert (counts == reference.confusion_matrix(true, predicted, labels=labels)).all()


@given(scored_rows())
def test_class_report_equals_that_of_scikit_learn(
    rows: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> None:
    true, proba = rows
    names = [f"c{i}" for i in range(proba.shape[1])]
    predicted = proba.argmax(axis=1)
    expected = reference.classification_report(
        true, predicted, labels=range(len(names)), target_names=names, output_dict=True, zero_division=0
    )
    found = metrics.class_report(metrics.confusion_matrix(true, predicted, len(names)), names)
    assert list(found) == names
    for name in names:
        entry = {("f1-score" if key == "f1" else key): value for key, value in found[name].items()}
        assert entry == pytest.approx(expected[name], abs=EXACT)


@pytest.mark.parametrize("k", [2, 3, 77])
def test_brier_score_equals_that_of_scikit_learn(k: int) -> None:
    rng = np.random.default_rng(k)
    true, proba = rng.integers(k, size=200), rng.dirichlet(np.ones(k), size=200)
    if k == 2:
        expected = reference.brier_score_loss(true, proba[:, 1], scale_by_half=False)
    else:
        expected = reference.brier_score_loss(true, proba, labels=range(k), scale_by_half=False)
    assert metrics.brier_score(true, proba) == pytest.approx(expected, abs=EXACT)


@given(scored_rows(), st.integers(1, 20))
def test_calibration_error_equals_a_plain_loop(
    rows: tuple[NDArray[np.int64], NDArray[np.float64]], bins: int
) -> None:
    true, proba = rows
    error = 0.0
    edges = np.linspace(0, 1, bins + 1)
    for low, high in pairwise(edges):
        inside = [i for i, p in enumerate(proba.max(axis=1)) if low < p <= high]
        if inside:
            right = np.mean([proba[i].argmax() == true[i] for i in inside])
            error += len(inside) / len(true) * abs(right - np.mean([proba[i].max() for i in inside]))
    found = metrics.reliability_bins(true, proba, bins)
    assert metrics.expected_calibration_error(found) == pytest.approx(error, abs=EXACT)
    assert sum(b.count for b in found) == len(true)


def test_reliability_bins_on_a_case_done_by_hand() -> None:
    true = np.array([0, 0, 1, 1])
    proba = np.array([[0.95, 0.05], [0.95, 0.05], [0.97, 0.03], [0.4, 0.6]])
    bins = metrics.reliability_bins(true, proba)
    assert len(bins) == 15
    assert [(i, b.count) for i, b in enumerate(bins) if b.count] == [(8, 1), (14, 3)]
    assert bins[14].accuracy == pytest.approx(2 / 3)
    assert bins[14].confidence == pytest.approx((0.95 + 0.95 + 0.97) / 3)
    assert bins[8].accuracy == 1
    assert bins[0] == metrics.ReliabilityBin(0.0, bins[1].lower, 0, 0.0, 0.0)
    assert metrics.ReliabilityBin(**bins[14].to_dict()) == bins[14]


def test_a_label_nobody_knows_counts_as_wrong_and_is_never_dropped() -> None:
    labels, y_true = ["a", "b"], ["a", "b", "zeta", "b", "alien"]
    known = metrics.all_labels(labels, y_true)
    assert known == ["a", "b", "alien", "zeta"]
    true = metrics.encode(y_true, known)
    proba = np.pad(np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4], [0.1, 0.9]]), ((0, 0), (0, 2)))
    predicted = [known[code] for code in proba.argmax(axis=1)]
    found = metrics.scores(true, proba)
    assert found["accuracy"] == 2 / 5
    assert found["macro_f1"] == pytest.approx(
        reference.f1_score(y_true, predicted, average="macro", zero_division=0), abs=EXACT
    )
    report = metrics.class_report(metrics.confusion_matrix(true, proba.argmax(axis=1), 4), known)
    assert sum(entry["support"] for entry in report.values()) == 5
    assert report["alien"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}


def test_a_probability_of_zero_for_the_truth_costs_much_and_is_finite() -> None:
    loss = metrics.log_loss(np.array([1]), np.array([[1.0, 0.0]]))
    assert loss == pytest.approx(-np.log(np.finfo(float).eps))


def test_macro_f1_ignores_labels_that_occur_nowhere() -> None:
    # Two of three labels occur: the mean is over two, as in scikit-learn.
    assert metrics.macro_f1([1, 1, 0], [1, 2, 0], [2, 1, 0]) == pytest.approx(2 / 3)
    assert metrics.f1_scores([1, 1, 0], [1, 2, 0], [2, 1, 0]) == pytest.approx([2 / 3, 2 / 3, 0])


def test_no_warning_where_ratios_have_no_denominator() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.class_report(metrics.confusion_matrix(np.array([0]), np.array([0]), 3), ["a", "b", "c"])


@pytest.mark.parametrize(
    ("proba", "rows", "message"),
    [
        ([], 0, "at least one row"),
        ([[0.5, 0.5]], 2, r"expected shape \(2, 2\), got \(1, 2\)"),
        ([[0.5, 0.6]], 1, "sum to 1"),
        ([[1.5, -0.5]], 1, "sum to 1"),
        ([[float("nan"), 1.0]], 1, "sum to 1"),
    ],
)
def test_what_is_no_distribution_is_refused(proba: list[list[float]], rows: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        metrics.check_proba(proba, rows, 2)


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(DataError, match=r"expected one of the labels \['a'\], got 'b'"):
        metrics.encode(["a", "b"], ["a"])


def test_a_calibrated_classifier_has_the_error_of_chance() -> None:
    rng = np.random.default_rng(3)
    proba = rng.dirichlet([0.5, 0.5, 0.5], size=300)
    found = []
    for _ in range(200):
        true = np.array([rng.choice(3, p=row) for row in proba])
        found.append(metrics.expected_calibration_error(metrics.reliability_bins(true, proba)))
    chance = metrics.ece_by_chance(proba)
    assert chance == pytest.approx(np.mean(found), rel=0.05)
    assert chance > 0.03  # nothing a single measurement could be blamed for
    assert metrics.ece_by_chance(np.repeat(proba, 100, axis=0)) == pytest.approx(chance / 10, rel=0.1)
    assert metrics.ece_by_chance(np.eye(3)) == 0
